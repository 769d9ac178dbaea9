"""A checkpoint written in the background: how long training stands still, beside one plain copy of the state."""

import shutil
import time
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from deepspeed.runtime.engine import DeepSpeedEngine

from launch.gpu_acceptance.measuring.checkpoints import whole_checkpoint
from launch.gpu_acceptance.measuring.engines import (
    batches_ahead,
    join_alone,
    network,
    start,
    take_step,
    wait_for_device,
    wait_for_training,
)
from launch.gpu_acceptance.measuring.figures import Figure
from launch.gpu_acceptance.measuring.setting import Setting
from train.checkpoint.saver import Saver
from train.checkpoint.state_shards import owned_shards
from train.config.run_config import RunConfig
from train.prefetch.route_ahead import BatchesAhead

MOST_TIMES_COPY = 1.2


def measure(setting: Setting) -> list[Figure]:
    join_alone()
    folder = setting.work_folder("async_save")
    shutil.rmtree(folder / "run", ignore_errors=True)
    engine, run = _start(setting, folder)
    batches = batches_ahead(engine, run)
    alone = [_time_step(engine, batches) for _ in range(6)][1:]
    saver = _saver(engine, run, folder)
    _time_save(saver, 1, engine.device)  # the first save also allocates the memory that the later ones copy to
    saver.wait()
    copy_seconds = min(_time_copy(engine) for _ in range(3))
    still, begin = _time_save(saver, 2, engine.device), time.perf_counter()
    beside = [_time_step(engine, batches) for _ in range(5)]
    saver.wait()
    behind = time.perf_counter() - begin
    batches.close()
    return [
        Figure("state", _num_bytes(engine) / 1e9, "GB"),
        Figure("one copy of the state to host memory", copy_seconds, "s"),
        Figure("training stands still", still, "s"),
        Figure("stands still / copy", still / copy_seconds, at_most=MOST_TIMES_COPY, skipped=setting.without_speed),
        Figure("written in the background, training included", behind, "s"),
        Figure("a step meanwhile / a step alone", float(np.median(beside) / np.median(alone))),
        whole_checkpoint(run.run_dir, step=2),
    ]


def _start(setting: Setting, folder: Path) -> tuple[DeepSpeedEngine, RunConfig]:
    """6 blocks with one hash layer of 16 experts: 16 * 8.4 M + 114 M = 248 M parameters, 3.0 GB of state."""
    width, vocab_size, length, num_experts = setting.size((1024, 50304, 512, 16), (64, 64, 16, 4))
    config = network(
        vocab_size=vocab_size, max_position_embeddings=length, hidden_size=width, num_hidden_layers=6,
        num_attention_heads=width // 32, sparse_layers=[3], num_experts=num_experts,
    )  # fmt: skip
    run = {"precision": "bf16", "zero_stage": 1, "global_batch_size": 8, "micro_batch_size": 8, "async_save": True}
    return start(config, **run, run_dir=str(folder / "run"))


def _saver(engine: DeepSpeedEngine, run: RunConfig, folder: Path) -> Saver:
    tokenizer_dir = folder / "tokenizer"
    tokenizer_dir.mkdir(exist_ok=True)
    return Saver(engine, run, resume_compatibility={}, tokenizer_dir=tokenizer_dir)


def _time_save(saver: Saver, step: int, device: torch.device) -> float:
    """Seconds until training may go on: on a GPU, until its stream has waited for the copy."""
    wait_for_device(device)
    begin = time.perf_counter()
    saver.save(step=step, num_skipped=0)
    wait_for_training(device)
    return time.perf_counter() - begin


def _time_step(engine: DeepSpeedEngine, batches: BatchesAhead) -> float:
    wait_for_device(engine.device)
    begin = time.perf_counter()
    take_step(engine, islice(batches, 1))
    wait_for_device(engine.device)
    return time.perf_counter() - begin


def _state(engine: DeepSpeedEngine) -> list[torch.Tensor]:
    """What a save copies: the fp32 weights and the optimizer's moments."""
    return [shard.values for shard in owned_shards(engine)]


def _num_bytes(engine: DeepSpeedEngine) -> int:
    return sum(tensor.nbytes for tensor in _state(engine))


def _time_copy(engine: DeepSpeedEngine) -> float:
    """Seconds of a copy into memory of the host that exists already, pinned if there is a GPU."""
    pinned = engine.device.type == "cuda"
    copies = [(tensor, torch.empty_like(tensor, device="cpu", pin_memory=pinned)) for tensor in _state(engine)]
    for _, copy in copies:
        copy.zero_()  # the pages exist
    wait_for_device(engine.device)
    begin = time.perf_counter()
    for tensor, copy in copies:
        copy.copy_(tensor, non_blocking=True)
    wait_for_device(engine.device)
    return time.perf_counter() - begin
