"""A few steps of training on random tokens, once through the engine on several ranks and once in plain PyTorch."""

import torch
import torch.nn.functional as F

from models.configuration_hash_gpt import HashGPTConfig
from models.routes import add_auxiliary_losses
from tests.models.hashes import HASHES, NUM_EXPERTS, make_tables
from tests.models.routers import ROUTERS
from train.config.run_config import RunConfig
from train.data.batches import Batch
from train.engine.model import build_model

VOCAB, LENGTH, GLOBAL_BATCH, STEPS = 32, 8, 8, 3
ROUTINGS = HASHES | ROUTERS | {"dense": {"sparse_layers": []}}


def network(routing: str = "token") -> HashGPTConfig:
    """routing: a name in tests/models/hashes.py or tests/models/routers.py, or dense."""
    fields = {
        "vocab_size": VOCAB, "max_position_embeddings": LENGTH, "hidden_size": 16, "num_hidden_layers": 3,
        "num_attention_heads": 2, "sparse_layers": [0, 2], "num_experts": NUM_EXPERTS, "num_buckets": 11,
        "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "bos_token_id": 0, "eos_token_id": 0,
    }  # fmt: skip
    return HashGPTConfig(**{**fields, **ROUTINGS[routing]})


def make_model(routing: str = "token", *, ep_size: int = 1):
    config = network(routing)
    tables = [make_tables(config, index) for index in range(len(config.hash_keys))]
    return build_model(config, route_tables=tables, ep_size=ep_size, seed=0)


def run_config(**fields) -> RunConfig:
    defaults = {
        "train_data": "unused", "route_table": "unused", "sparse_layers": [0, 2], "num_experts": NUM_EXPERTS,
        "context_length": LENGTH, "global_batch_size": GLOBAL_BATCH, "micro_batch_size": 2, "optimizer": "sgd",
        "lr": 0.5, "max_steps": STEPS, "schedule": "constant", "warmup_steps": 0, "max_grad_norm": 0.0,
    }  # fmt: skip
    return RunConfig(**{**defaults, **fields})


def batch(step: int) -> Batch:
    """The global batch of a step, with predictions of a fictitious baseline."""
    tokens = torch.randint(0, VOCAB, (GLOBAL_BATCH, LENGTH + 1), generator=torch.Generator().manual_seed(step))
    input_ids, targets = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()
    return Batch(input_ids, targets, torch.ones(GLOBAL_BATCH), predicted=(input_ids * 7 + 3) % VOCAB)


class SilentLog:
    """A stand-in for RunLog that keeps the losses."""

    def __init__(self):
        self.losses = []

    def add_micro_batch(self, loss, records):
        self.losses.append(loss.item())


def train_on_ranks(configs: list[dict]) -> list[dict]:
    """Train once per run config in this process group, and return this rank's parameters by their one-device names.

    A config may also name a routing.
    """
    results = []
    for fields in configs:
        fields = dict(fields)
        results.append(_train_engine(fields.pop("routing", "token"), run_config(**fields)))
    return results


def _train_engine(routing: str, config: RunConfig) -> dict:
    import deepspeed.comm as dist

    from train.config.deepspeed_config import deepspeed_config
    from train.engine.engine import start_engine
    from train.train_step import train_step

    world_size = dist.get_world_size()
    model = make_model(routing, ep_size=config.ep_size)
    for layer in model.transformer.sparse_ffns.values():
        layer.shuffle = None  # one process cannot repeat it; test_token_shuffle.py tests it
    engine = start_engine(model, config, deepspeed_config(config, world_size=world_size))
    for step in range(config.max_steps):
        torch.manual_seed(draw_seed(step, dist.get_rank()))
        train_step(engine, micro_batches(batch(step), config, dist.get_rank(), world_size), SilentLog())
    return local_parameters(engine.module)


def draw_seed(step: int, rank: int) -> int:
    """The seed of the random numbers that routers draw in training."""
    return step * 100 + rank


def micro_batches(whole: Batch, config: RunConfig, rank: int, world_size: int) -> list[Batch]:
    size = config.micro_batch_size
    runs = [slice(row, row + size) for row in range(rank * size, GLOBAL_BATCH, world_size * size)]
    return [Batch(whole.input_ids[r], whole.targets[r], whole.weights[r], whole.predicted[r]) for r in runs]


def local_parameters(model) -> dict:
    """Parameters by name; an expert's tensors get its global id as a suffix."""
    import deepspeed

    from train.parallel.expert_parallel import stacked_expert_tensors

    with deepspeed.zero.GatheredParameters([p for p in model.parameters() if hasattr(p, "ds_id")]):
        shared = {name: p for name, p in model.named_parameters() if ".experts." not in name}
        named = {name: p.detach().float().clone() for name, p in shared.items()}
        for layer, sparse_ffn in model.transformer.sparse_ffns.items():
            for name, stacked in stacked_expert_tensors(sparse_ffn.experts).items():
                for local, expert in enumerate(sparse_ffn.experts.expert_ids):
                    named[f"{layer}.{name}.{expert}"] = stacked[local].detach().float().clone()
    return named


def train_plainly(config: RunConfig, *, routing: str = "token", max_norm: float = 0.0, shared_norm=False) -> dict:
    """The same training in plain PyTorch: one process, one batch per step, torch's SGD and gradient clipping."""
    model = make_model(routing)
    optimizer = torch.optim.SGD(model.parameters(), lr=config.lr)
    for step in range(config.max_steps):
        whole = batch(step)
        logits = model(whole.input_ids, **whole.known).logits
        F.cross_entropy(logits.flatten(0, 1), whole.targets.flatten()).backward()
        if max_norm:
            named = dict(model.named_parameters())
            measured = [p for name, p in named.items() if not (shared_norm and ".experts." in name)]
            norm = torch.nn.utils.get_total_norm([p.grad for p in measured])
            torch.nn.utils.clip_grads_with_norm_(named.values(), max_norm, norm)
        optimizer.step()
        optimizer.zero_grad()
    return local_parameters(model)


def train_plainly_as_ranks(config: RunConfig, *, routing: str, world_size: int) -> dict:
    """Like train_plainly, but one micro-batch at a time, since a learned router routes a whole micro-batch."""
    model = make_model(routing)
    optimizer = torch.optim.SGD(model.parameters(), lr=config.lr)
    for step in range(config.max_steps):
        for rank in range(world_size):
            torch.manual_seed(draw_seed(step, rank))
            for part in micro_batches(batch(step), config, rank, world_size):
                outputs = model(part.input_ids, use_cache=False, **part.known)
                loss = F.cross_entropy(outputs.logits.flatten(0, 1), part.targets.flatten())
                add_auxiliary_losses(loss, outputs.routing).mul(len(part.input_ids) / GLOBAL_BATCH).backward()
        optimizer.step()
        optimizer.zero_grad()
    return local_parameters(model)


def plain_gradient_norm(*, shared_only: bool) -> float:
    """Norm of the first step's gradients in plain PyTorch, of all parameters or without the experts."""
    model, whole = make_model(), batch(0)
    F.cross_entropy(model(whole.input_ids).logits.flatten(0, 1), whole.targets.flatten()).backward()
    named = model.named_parameters()
    grads = [p.grad for name, p in named if not (shared_only and ".experts." in name)]
    return torch.nn.utils.get_total_norm(grads).item()
