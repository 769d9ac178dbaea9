"""Models small enough to check by hand."""

import torch

from models.configuration_hash_gpt import HashGPTConfig
from models.modeling_hash_gpt import HashGPTForCausalLM

VOCAB = 23


def tiny_config(**fields) -> HashGPTConfig:
    defaults = {
        "vocab_size": VOCAB, "max_position_embeddings": 32, "hidden_size": 8, "num_hidden_layers": 3,
        "num_attention_heads": 2, "sparse_layers": [1], "num_experts": 3, "resid_pdrop": 0.0, "embd_pdrop": 0.0,
        "attn_pdrop": 0.0, "bos_token_id": 0, "eos_token_id": 0, "initializer_range": 0.3,
    }  # fmt: skip
    return HashGPTConfig(**{**defaults, **fields})


def tiny_model(*, seed=0, **fields) -> HashGPTForCausalLM:
    """In evaluation mode, with a random table per sparse layer."""
    torch.manual_seed(seed)
    config = tiny_config(**fields)
    model = HashGPTForCausalLM(config).eval()
    if config.sparse_layers:
        model.set_route_tables(random_tables(config, seed=seed))
    return model


def random_tables(config: HashGPTConfig, *, seed=0) -> torch.Tensor:
    shape = (len(config.sparse_layers), config.vocab_size, 1)
    return torch.randint(0, config.num_experts, shape, generator=torch.Generator().manual_seed(seed))


def token_ids(batch=2, length=7, *, seed=1) -> torch.Tensor:
    return torch.randint(1, VOCAB, (batch, length), generator=torch.Generator().manual_seed(seed))
