"""Time the saves of a run on one process, while training waits or goes on: `python -m launch.benchmark.saves`."""

import argparse
import dataclasses
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import deepspeed.comm as dist
import numpy as np
import torch
from deepspeed.runtime.engine import DeepSpeedEngine

from models.configuration_hash_gpt import HashGPTConfig
from train.checkpoint.saver import Saver
from train.checkpoint.state_shards import owned_shards
from train.config.deepspeed_config import deepspeed_config
from train.config.run_config import RunConfig
from train.data.batches import Batch
from train.engine.engine import start_engine
from train.engine.model import build_model
from train.processes.process_group import silence_libraries, start_process_group
from train.processes.ranks import Ranks
from train.train_step import train_step

VOCAB, LENGTH, NUM_EXPERTS = 4096, 32, 12


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hidden_size", type=int, default=1024, help="1024 makes a model of 1 GiB")
    parser.add_argument("--repetitions", type=int, default=5, help="saves of each kind")
    parser.add_argument("--output", help="a folder on the disk to write to, instead of the system's temporary folder")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    silence_libraries()
    start_process_group(Ranks(rank=0, world_size=1, local_rank=0))
    with tempfile.TemporaryDirectory(dir=options.output) as folder:
        measured = measure_saves(folder, hidden_size=options.hidden_size, repetitions=options.repetitions)
    print(save_table(measured))
    dist.destroy_process_group()
    return 0


def measure_saves(folder: str, *, hidden_size: int, repetitions: int) -> dict[str, list[float]]:
    """Seconds of each part of a save; the parts take turns. The first value is that of a first save."""
    engine, config = _start(folder, hidden_size)
    _step(engine)  # gives the moments values
    (Path(folder) / "tokenizer").mkdir()
    savers = {
        name: Saver(
            engine,
            dataclasses.replace(config, run_dir=f"{folder}/{name}", async_save=name == "async", keep_last=1),
            resume_compatibility={},
            tokenizer_dir=Path(folder) / "tokenizer",
        )
        for name in ("sync", "async")
    }
    values = [shard.values for shard in owned_shards(engine)]
    copies = [torch.empty(len(v), pin_memory=v.is_cuda) for v in values]
    measured = {}
    timed: list[tuple[str, Callable[[int], object]]] = [
        ("copy", lambda number: [copy.copy_(v) for copy, v in zip(copies, values, strict=True)]),
        ("training stands still, async", lambda number: savers["async"].save(step=number, num_skipped=0)),
        ("step while the checkpoint is written", lambda number: _step(engine)),
        ("until it is written", lambda number: savers["async"].wait()),
        ("step", lambda number: _step(engine)),
        ("training stands still, sync", lambda number: savers["sync"].save(step=number, num_skipped=0)),
    ]
    for number in range(1, repetitions + 2):
        for name, act in timed:
            measured.setdefault(name, []).append(_seconds(act, number))
            print(
                f"  save {number} of {repetitions + 1}, {name}: {measured[name][-1]:.2f} s", file=sys.stderr, flush=True
            )
    return measured


def _seconds(act: Callable[[int], object], number: int) -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.perf_counter()
    act(number)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def _start(folder: str, hidden_size: int) -> tuple[DeepSpeedEngine, RunConfig]:
    config = RunConfig(
        train_data="unused", run_dir=folder, sparse_layers=[1, 3], route_table="unused", num_experts=NUM_EXPERTS,
        hidden_size=hidden_size, num_hidden_layers=6, context_length=LENGTH, global_batch_size=1, micro_batch_size=1,
        max_steps=100, warmup_steps=0, precision="fp32",
    )  # fmt: skip
    network = HashGPTConfig(
        vocab_size=VOCAB, max_position_embeddings=LENGTH, hidden_size=hidden_size, num_attention_heads=8,
        num_hidden_layers=config.num_hidden_layers, sparse_layers=config.sparse_layers, num_experts=NUM_EXPERTS,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    table = {"route_table": torch.from_numpy(np.arange(VOCAB, dtype=np.int32)[:, None] % NUM_EXPERTS)}
    model = build_model(network, route_tables=[table] * len(config.sparse_layers), ep_size=1, seed=0)
    return start_engine(model, config, deepspeed_config(config, world_size=1)), config


def _step(engine: DeepSpeedEngine) -> None:
    ids = torch.randint(0, VOCAB, (1, LENGTH + 1), generator=torch.Generator().manual_seed(0)).to(engine.device)
    train_step(engine, [Batch(ids[:, :-1].contiguous(), ids[:, 1:].contiguous(), torch.ones(1))])


def save_table(measured: dict[str, list[float]]) -> str:
    """Each part's seconds in the first save, which allocates the copy's memory, and the later ones' median and range.

    "x copy" is the median ratio to the copy in the same repetition.
    """
    copy = np.array(measured["copy"])
    lines = [f"{'seconds':38}{'first':>8}{'median':>8}{'min..max':>14}{'x copy':>8}"]
    for name, seconds in measured.items():
        later = np.array(seconds)[1:]
        ratio = np.median(later / copy[1:])
        spread = f"{later.min():.2f}..{later.max():.2f}"
        lines.append(f"{name:38}{seconds[0]:8.2f}{np.median(later):8.2f}{spread:>14}{ratio:8.2f}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
