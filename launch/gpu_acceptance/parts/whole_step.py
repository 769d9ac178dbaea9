"""A whole step of 24 layers, 4 of them hash layers of 64 experts, beside the dense model's, and both models' MFU."""

import time
from dataclasses import dataclass
from itertools import islice

import numpy as np
from deepspeed.runtime.engine import DeepSpeedEngine

from launch.benchmark.quantiles import quantiles
from launch.gpu_acceptance.measuring.arithmetic import operations_per_token, peak_of
from launch.gpu_acceptance.measuring.engines import (
    batches_ahead,
    join_alone,
    network,
    start,
    take_step,
    wait_for_device,
)
from launch.gpu_acceptance.measuring.figures import Figure, with_spread
from launch.gpu_acceptance.measuring.setting import Setting
from train.prefetch.route_ahead import BatchesAhead

MOST_TIMES_DENSE, LEAST_MFU = 1.10, 0.40
_WARMUP = 2


@dataclass(frozen=True)
class _Model:
    engine: DeepSpeedEngine
    batches: BatchesAhead
    num_micro_batches: int  # per step
    num_tokens: int  # per step
    operations: int  # per step


def measure(setting: Setting) -> list[Figure]:
    """Both models fit an 80 GB card together: 18 bytes per parameter, of 2.5 and 0.35 billion, are 52 GB."""
    join_alone()
    models = {"dense": _start(setting, sparse_layers=[]), "hash": _start(setting, sparse_layers=[5, 11, 17, 23])}
    seconds = {name: [] for name in models}
    for repetition in range(-_WARMUP, setting.size(8, 2)):
        for name, model in models.items():
            elapsed = _time_step(model)
            if repetition >= 0:
                seconds[name].append(elapsed)
    for model in models.values():
        model.batches.close()
    figures = [figure for name in models for figure in _figures(name, models[name], np.array(seconds[name]), setting)]
    ratio = quantiles(np.divide(seconds["hash"], seconds["dense"]))
    return [with_spread("hash / dense", ratio, at_most=MOST_TIMES_DENSE, skipped=setting.without_speed), *figures]


def _start(setting: Setting, *, sparse_layers: list[int]) -> _Model:
    """On a GPU, 128 sequences * 1,024 tokens = 131,072 tokens per step, in 16 micro-batches of 8."""
    width, length, vocab_size, num_experts = setting.size((1024, 1024, 50304, 64), (16, 16, 64, 8))
    config = network(
        vocab_size=vocab_size, max_position_embeddings=length, hidden_size=width, num_hidden_layers=24,
        num_attention_heads=setting.size(16, 2), sparse_layers=sparse_layers, num_experts=num_experts,
    )  # fmt: skip
    sequences, micro = setting.size((128, 8), (4, 2))
    engine, run = start(config, precision="bf16", zero_stage=1, global_batch_size=sequences, micro_batch_size=micro)
    num_tokens = sequences * length
    operations = operations_per_token(config) * num_tokens
    return _Model(engine, batches_ahead(engine, run), sequences // micro, num_tokens, operations)


def _time_step(model: _Model) -> float:
    wait_for_device(model.engine.device)
    begin = time.perf_counter()
    take_step(model.engine, islice(model.batches, model.num_micro_batches))
    wait_for_device(model.engine.device)
    return time.perf_counter() - begin


def _figures(name: str, model: _Model, seconds: np.ndarray, setting: Setting) -> list[Figure]:
    peak, skipped = peak_of(setting.device_name), setting.without_speed
    if peak is None and not skipped:
        skipped = "skipped: the peak of this GPU is unknown"
    target = {"at_least": LEAST_MFU, "skipped": skipped}
    mfu = with_spread(f"{name}, MFU", quantiles(model.operations / seconds / peak), **target) if peak else None
    return [
        with_spread(f"{name}, step", quantiles(1e3 * seconds), "ms"),
        with_spread(f"{name}, speed", quantiles(model.num_tokens / seconds), "tokens/s"),
        mfu or Figure(f"{name}, MFU", None, **target),
    ]
