"""Three steps of every hash and every router on the same batch: the loss must be finite and fall."""

from itertools import islice

import torch

from launch.gpu_acceptance.measuring.engines import batches_ahead, join_alone, network, start, take_step
from launch.gpu_acceptance.measuring.figures import Figure
from launch.gpu_acceptance.measuring.setting import Setting
from models.choices import HASH_KEYS, ROUTERS

_STEPS = 3
# Fields of the network, by name; it has two sparse layers, so that one stands behind the other.
ROUTINGS = {
    **{f"hash of {key}": {"hash_keys": [key, key]} for key in HASH_KEYS},
    **{f"MultiHash {number}": {"hash_keys": ["token", "previous"], "num_hashes": number} for number in (2, 4)},
    "hash, rotation": {"rotation_period": 4},
    "hash, split tokens": {"split_sizes": [[2, 1, 3], [0, 0, 0]]},
    "hash, inserted": {"placement": "insert", "num_sublayers": 2},
    **{name: {"router": name} for name in ROUTERS if name != "hash"},
    "switch with a capacity": {"router": "switch", "capacity_factor": 0.75, "router_jitter_noise": 0.1},
    "base, inserted": {"router": "base", "placement": "insert", "num_sublayers": 2},
}


def measure(setting: Setting) -> list[Figure]:
    join_alone()
    return [_figure(name, "bf16", setting) for name in ROUTINGS] + [_figure("hash of token", "fp32", setting)]


def _figure(name: str, precision: str, setting: Setting) -> Figure:
    losses = train(ROUTINGS[name], setting, precision=precision)
    note = ", ".join(f"{loss:.4f}" for loss in losses)
    return Figure(f"{name}, {precision}: last loss / first", losses[-1] / losses[0], at_most=0.9999, note=note)


def train(fields: dict, setting: Setting, *, precision: str) -> list[float]:
    """The loss of each step."""
    width = setting.size(256, 16)
    config = network(
        **{
            "vocab_size": setting.size(4096, 64), "max_position_embeddings": setting.size(256, 16),
            "hidden_size": width, "num_hidden_layers": 3, "num_attention_heads": width // 8, "sparse_layers": [0, 2],
            "num_experts": 8, "num_buckets": 64, **fields,
        }
    )  # fmt: skip
    engine, run = start(config, precision=precision, global_batch_size=8, micro_batch_size=8)
    batches = batches_ahead(engine, run, num_steps=_STEPS)
    losses = [take_step(engine, islice(batches, 1)) for _ in range(_STEPS)]
    return torch.stack([loss for (loss,) in losses]).tolist()
