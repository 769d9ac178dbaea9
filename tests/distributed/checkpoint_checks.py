"""Code that the tests of checkpoints run on every rank."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from unittest.mock import patch

import deepspeed.comm as dist
import torch

from tests.distributed.engine_checks import save, start
from tests.distributed.training import SilentLog, batch, micro_batches
from train.checkpoint.checkpoint import resume
from train.checkpoint.files.stored_state import StoredState
from train.checkpoint.state_shards import owned_shards
from train.train_step import train_step

SAVED_AT = 2


def train_and_save(configs: list[dict], folder: str, num_steps: int) -> list[dict]:
    """Train from scratch to num_steps and save at SAVED_AT; the state at both steps, per config."""
    results = []
    for index, fields in enumerate(configs):
        engine, config = start(**fields, run_dir=f"{folder}/{index}")
        result = {}
        for step in range(num_steps):
            _step(engine, config, step)
            if step + 1 == SAVED_AT:
                save(engine, config, folder, step=SAVED_AT)
                result["saved"] = state(engine)
        results.append(result | {"ended": state(engine)})
    return results


def resume_and_train(configs: list[dict], folder: str, output: str, num_steps: int) -> list[dict]:
    """Resume from the checkpoint of each config's `run`, on any number of ranks; the first and last state.

    Before training, the checkpoint is saved again below `output`, in a folder of the config's index.
    """
    results = []
    for index, fields in enumerate(configs):
        fields = dict(fields)
        run = fields.pop("run")
        engine, config = start(**fields, run_dir=f"{folder}/{run}")
        with count_elements_read() as num_read:
            manifest, _ = resume(engine, config)
        save(engine, replace(config, run_dir=f"{output}/{index}"), output, step=manifest["step"])
        result = {"saved": state(engine), "num_read": sum(num_read)}
        for step in range(manifest["step"], num_steps):
            _step(engine, config, step)
        results.append(result | {"ended": state(engine), "manifest": manifest})
    return results


@contextmanager
def count_elements_read() -> Iterator[list[int]]:
    """The number of elements in each read of a stored state."""
    num_read, read = [], StoredState.read

    def counting_read(stored, kind, name, offset, out):
        num_read.append(len(out))
        read(stored, kind, name, offset, out)

    with patch.object(StoredState, "read", counting_read):
        yield num_read


def _step(engine, config, step: int) -> None:
    torch.manual_seed(step * 100 + dist.get_rank())
    train_step(engine, micro_batches(batch(step), config, dist.get_rank(), dist.get_world_size()), SilentLog())


def state(engine) -> dict[str, torch.Tensor]:
    """The whole training state by kind and name, assembled from the shards of all ranks and equal on each."""
    mine = [(f.kind, f.name, f.offset, f.values.clone()) for f in owned_shards(engine)]
    everyones = [None] * dist.get_world_size()
    dist.all_gather_object(everyones, mine)
    pieces: dict[str, list] = {}
    for kind, name, offset, values in (piece for of_rank in everyones for piece in of_rank):
        pieces.setdefault(f"{kind} {name}", []).append((offset, values))
    whole = {}
    for key, parts in pieces.items():
        parts.sort(key=lambda part: part[0])
        ends = [0, *(offset + len(values) for offset, values in parts)]
        assert [offset for offset, _ in parts] == ends[:-1], f"{key} is covered by {parts}"
        whole[key] = torch.cat([values for _, values in parts])
    return whole
