"""The model of a run: built without memory, made expert parallel, initialised identically on any number of ranks."""

import torch
from torch import nn

from models.configuration_hash_gpt import HashGPTConfig
from models.experts import Experts
from models.modeling_hash_gpt import HashGPTForCausalLM
from models.sparse_ffn import SparseFFN
from train.config.seeds import derive_seed
from train.parallel.expert_parallel import parallelize_experts, stacked_expert_tensors, tag_experts
from train.parallel.token_shuffle import shuffle_base_tokens


def build_model(
    network: HashGPTConfig, *, route_tables: list[dict] | torch.Tensor, ep_size: int, seed: int
) -> HashGPTForCausalLM:
    """A float32 model on the CPU that holds E / ep_size experts per sparse layer.

    route_tables: as HashGPTForCausalLM.set_route_tables takes them; unused if routers learn. The model is built on the
    meta device first, so that no rank ever holds the experts of another. Collective over all ranks if ep_size > 1.
    """
    with torch.device("meta"):
        model = HashGPTForCausalLM(network)
    parallelize_experts(model, ep_size=ep_size)
    shuffle_base_tokens(model)
    model.to_empty(device="cpu")  # creates new Parameters, so ties and tags are renewed
    model.tie_weights()
    tag_experts(model)
    initialize_weights(model, seed=seed)
    if network.sparse_layers and network.router == "hash":
        model.set_route_tables(route_tables)
    return model


@torch.no_grad()
def initialize_weights(model: HashGPTForCausalLM, *, seed: int) -> None:
    """Draw every module's weights from a seed of its own name, and every expert's from a seed of its global id.

    The weights therefore depend neither on the number of ranks nor on ep_size.
    """
    # Children before parents: GPT-2's blocks re-draw the output matrices of their children.
    for name, module in reversed(list(model.named_modules())):
        if isinstance(module, SparseFFN):
            _initialize_experts(model, name, module.experts, seed=seed)
        elif not isinstance(module, Experts):
            torch.manual_seed(derive_seed(seed, name))
            model._init_weights(module)


def _initialize_experts(model: HashGPTForCausalLM, layer: str, experts: nn.Module, *, seed: int) -> None:
    stacked = stacked_expert_tensors(experts)
    for local, expert in enumerate(experts.expert_ids):
        torch.manual_seed(derive_seed(seed, layer, expert))
        experts.initialize({tensor_name: tensor[local] for tensor_name, tensor in stacked.items()})
