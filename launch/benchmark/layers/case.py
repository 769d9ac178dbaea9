"""One case of the benchmark: the layer, tokens and hidden states that all variants of a rank share."""

from dataclasses import dataclass

import torch
from deepspeed.utils import groups
from torch import nn

from launch.benchmark.layers.options import Options
from launch.benchmark.layers.tokens import TokenSource
from models.configuration_hash_gpt import HashGPTConfig
from models.dispatch import DispatchPlan
from models.hash_keys import TokenContext, previous_tokens
from models.sparse_ffn import SparseFFN
from train.config.seeds import derive_seed
from train.parallel.expert_parallel import ExpertParallelExperts, stacked_expert_tensors, tag_experts


@dataclass(frozen=True)
class Case:
    """The inputs of every variant on one rank."""

    config: HashGPTConfig  # of the layer, with dropout 0
    layer: SparseFFN  # the hash layer, whose expert weights all variants share
    context: TokenContext  # token ids and their neighbours, [B, S]
    hidden_BSD: torch.Tensor  # the layer's input
    grad_BSD: torch.Tensor  # the gradient of its output
    expert_T: torch.Tensor  # the table's expert of each token, int64 [T]
    plans: list[DispatchPlan]  # the layer's dispatch plans for these tokens, made ahead
    ep_size: int  # ranks that share the experts
    rank: int  # this one

    @property
    def num_tokens(self) -> int:
        return len(self.expert_T)

    @property
    def weights(self) -> dict[str, torch.Tensor]:
        """This rank's experts, stacked [e, ...], under their names in models.experts; detached."""
        return {name: tensor.detach() for name, tensor in stacked_expert_tensors(self.layer.experts).items()}

    @property
    def local_experts(self) -> range:
        return self.layer.experts.expert_ids

    @property
    def num_bound_bytes(self) -> int:
        """Bytes that this rank must send: tokens of remote experts, there and back, in both passes."""
        is_remote_T = (self.expert_T < self.local_experts.start) | (self.expert_T >= self.local_experts.stop)
        token_bytes = self.hidden_BSD.shape[-1] * self.hidden_BSD.element_size()
        return int(is_remote_T.sum()) * token_bytes * 4


def make_case(
    options: Options, *, num_experts: int, tokens_per_rank: int, ep_size: int, rank: int, device: torch.device
) -> Case:
    """Collective over all ep_size ranks."""
    source = TokenSource(options.tokens, vocab_size=options.vocab_size, seed=options.seed)
    dtype = getattr(torch, options.dtype)
    config = layer_config(options, num_experts=num_experts, vocab_size=source.vocab_size)
    layer = make_layer(config, ep_size=ep_size, seed=options.seed, device=device, dtype=dtype)
    layer.router.set_table(source.table(options.table, num_experts=num_experts, ep_size=ep_size))
    shape = (tokens_per_rank // options.context_length, options.context_length)
    context = _context(source.draw(*shape, rank=rank).to(device), none=source.vocab_size)
    torch.manual_seed(derive_seed(options.seed, "hidden", rank))
    hidden_BSD, grad_BSD = (torch.randn(*shape, options.hidden_size).to(device, dtype) for _ in range(2))
    expert_T = layer.router(context)[0].expert_N
    return Case(config, layer, context, hidden_BSD, grad_BSD, expert_T, layer.plan(context), ep_size, rank)


def layer_config(options: Options, *, num_experts: int, vocab_size: int) -> HashGPTConfig:
    return HashGPTConfig(
        vocab_size=vocab_size,
        hidden_size=options.hidden_size,
        intermediate_size=options.intermediate_size,
        num_attention_heads=1,
        activation_function=options.activation,
        resid_pdrop=0.0,
        sparse_layers=[0],
        num_experts=num_experts,
    )


def make_layer(
    config: HashGPTConfig, *, ep_size: int, seed: int, device: torch.device, dtype: torch.dtype
) -> SparseFFN:
    """A sparse layer with 1 / ep_size of the experts, each initialized from a seed of its own."""
    groups._create_expert_and_data_parallel(ep_size)
    with torch.device("meta"):
        layer = SparseFFN(config, 0)
    if ep_size > 1:
        layer.experts = ExpertParallelExperts(layer.experts, ep_size=ep_size)
    layer.to(dtype).to_empty(device=device)
    tag_experts(layer)
    _initialize(layer.experts, seed=seed)
    return layer


@torch.no_grad()
def _initialize(experts: nn.Module, *, seed: int) -> None:
    stacked = stacked_expert_tensors(experts)
    for local, expert in enumerate(experts.expert_ids):
        torch.manual_seed(derive_seed(seed, "expert", expert))
        experts.initialize({name: tensor[local] for name, tensor in stacked.items()})


def _context(ids: torch.Tensor, *, none: int) -> TokenContext:
    position = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
    return TokenContext(ids, previous_tokens(ids, None, none=none), position)
