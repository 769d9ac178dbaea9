"""A few steps of training on random tokens, once through the engine on several ranks and once in plain PyTorch."""

import torch
import torch.nn.functional as F

from models.configuration_hash_gpt import HashGPTConfig
from train.batches import Batch
from train.config import RunConfig
from train.model import build_model

VOCAB, LENGTH, GLOBAL_BATCH, STEPS = 32, 8, 8, 3


def network(sparse_layers=(1,), num_experts=4) -> HashGPTConfig:
    return HashGPTConfig(
        vocab_size=VOCAB, n_positions=LENGTH, n_embd=16, n_layer=3, n_head=2, sparse_layers=list(sparse_layers),
        num_experts=num_experts, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip


def run_config(**fields) -> RunConfig:
    defaults = {
        "train_data": "unused", "route_table": "unused", "sparse_layers": [1], "num_experts": 4,
        "context_length": LENGTH, "global_batch_size": GLOBAL_BATCH, "micro_batch_size": 2, "optimizer": "sgd", "lr": 0.5, "steps": STEPS,
        "schedule": "constant", "warmup_steps": 0, "clip": 0.0,
    }  # fmt: skip
    return RunConfig(**{**defaults, **fields})


def route_tables(*, num_layers=1, num_experts=4, used_experts=3) -> torch.Tensor:
    """Tables in which the last expert is idle, so that a rank without rows is part of every test."""
    tokens = torch.arange(VOCAB)
    return torch.stack([(tokens * (layer + 1)) % used_experts for layer in range(num_layers)]).unsqueeze(2)


def batch(step: int) -> Batch:
    """The global batch of a step."""
    tokens = torch.randint(0, VOCAB, (GLOBAL_BATCH, LENGTH + 1), generator=torch.Generator().manual_seed(step))
    return Batch(tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous(), torch.ones(GLOBAL_BATCH))


class SilentLog:
    """Takes the place of RunLog; keeps the losses."""

    def __init__(self):
        self.losses = []

    def add_micro_batch(self, loss, plans):
        self.losses.append(loss.item())


def train_on_ranks(configs: list[dict]) -> list[dict]:
    """Train once per run config in this process group; each rank's parameters under their names on one device."""
    return [_train_engine(run_config(**fields)) for fields in configs]


def _train_engine(config: RunConfig) -> dict:
    import deepspeed.comm as dist

    from train.deepspeed_config import deepspeed_config
    from train.engine import start_engine
    from train.loop import train_step

    world_size = dist.get_world_size()
    model = build_model(network(), route_tables=route_tables(), ep_size=config.ep_size, seed=config.seed)
    engine = start_engine(model, config, deepspeed_config(config, world_size=world_size))
    for step in range(config.steps):
        train_step(engine, micro_batches(batch(step), config, dist.get_rank(), world_size), SilentLog())
    return local_parameters(engine.module)


def micro_batches(whole: Batch, config: RunConfig, rank: int, world_size: int) -> list[Batch]:
    size = config.micro_batch_size
    first_rows = range(rank * size, GLOBAL_BATCH, world_size * size)
    return [Batch(whole.input_ids[i : i + size], whole.targets[i : i + size], whole.weights) for i in first_rows]


def local_parameters(model) -> dict:
    """Parameters by name; an expert's tensors get its global id as a suffix."""
    import deepspeed

    from train.expert_parallel import stacked_expert_tensors

    experts = model.transformer.h[1].mlp.experts
    with deepspeed.zero.GatheredParameters([p for p in model.parameters() if hasattr(p, "ds_id")]):
        shared = {name: p for name, p in model.named_parameters() if ".mlp.experts." not in name}
        named = {name: p.detach().float().clone() for name, p in shared.items()}
        for name, stacked in stacked_expert_tensors(experts).items():
            for local, expert in enumerate(experts.expert_ids):
                named[f"{name}.{expert}"] = stacked[local].detach().float().clone()
    return named


def train_plainly(config: RunConfig, *, max_norm: float = 0.0) -> dict:
    """The same training in plain PyTorch: one process, one batch per step, torch's SGD and gradient clipping."""
    model = build_model(network(), route_tables=route_tables(), ep_size=1, seed=config.seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=config.lr)
    for step in range(config.steps):
        whole = batch(step)
        logits = model(whole.input_ids).logits
        F.cross_entropy(logits.flatten(0, 1), whole.targets.flatten()).backward()
        if max_norm:
            torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm)
        optimizer.step()
        optimizer.zero_grad()
    return local_parameters(model)
