"""Batches and plans are the same in the caller's thread and in workers, and workers end with the run."""

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import fields, is_dataclass
from fractions import Fraction
from pathlib import Path

import pytest
import torch

from data_prep.shards.token_stream import TokenStream
from tests.damage import flip_bit
from tests.models.hashes import HASHES, make_tables
from tests.models.tiny import tiny_config
from train.data.batches import PackedSequences
from train.data.mixture_order import MixtureOrder
from train.data.window_order import windows_of
from train.engine.model import build_model
from train.prefetch.loader import MicroBatches, read_ahead
from train.prefetch.route_ahead import make_local_planner
from train.processes.error_origin import is_ours
from train.processes.project_root import ROOT


def make_model(hash_name: str = "token and bigram"):
    fields = {"num_experts": 4, "sparse_layers": [0, 2], "vocab_size": 300, "num_buckets": 11}
    config = tiny_config(**fields, **HASHES[hash_name])
    return build_model(config, route_tables=[make_tables(config, index) for index in range(2)], ep_size=1, seed=0)


def make_micro_batches(folder, hash_name: str = "token and bigram") -> MicroBatches:
    """Micro-batches of documents that are masked from each other, with the tokens themselves as predictions."""
    streams = [TokenStream(folder)]
    sequences = PackedSequences(streams, context_length=8, predictions=streams, end_token_id=299)
    order = MixtureOrder(sequences.parts, [Fraction(1)], seed=0, part_seeds=[0], windows=windows_of(8))
    planner = make_local_planner(make_model(hash_name))
    return MicroBatches(sequences, order, planner, micro_batch_size=4, rank=1, world_size=2)


def values(value) -> object:
    """Return the plain values of tensors in dataclasses, dicts and lists."""
    if is_dataclass(value):
        return {field.name: values(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, dict):
        return {key: values(item) for key, item in value.items()}
    if isinstance(value, list):
        return [values(item) for item in value]
    return (value.dtype, value.tolist()) if isinstance(value, torch.Tensor) else value


@pytest.mark.parametrize("num_workers", [1, 2])
def test_workers_make_the_batches_and_plans_of_the_thread(tiny_data, num_workers):
    micro_batches = make_micro_batches(tiny_data.train)
    state = torch.get_rng_state()
    found = list(read_ahead(micro_batches, range(5, 12), num_workers=num_workers))
    assert torch.equal(torch.get_rng_state(), state)  # dropout draws from it
    expected = list(read_ahead(micro_batches, range(5, 12), num_workers=0))
    assert [values(batch) for batch in found] == [values(batch) for batch in expected]
    assert len(found) == 7 and len(found[0].plans) == 2 and found[0].position_ids is not None


@pytest.mark.parametrize("hash_name", HASHES)
def test_local_plans_are_those_of_the_model(tiny_data, hash_name):
    batch, model = make_micro_batches(tiny_data.train, hash_name)[2], make_model(hash_name)
    assert (batch.position_ids[:, 1:] == 0).any()
    assert values(batch.plans) == values(model.transformer.plan(batch.input_ids, **batch.known))


def test_damage_that_a_worker_meets_is_an_error_of_this_project_in_the_caller(tiny_data, tmp_path):
    shutil.copytree(tiny_data.train, tmp_path / "train")
    [path] = (tmp_path / "train").glob("*.bin")
    flip_bit(path, 100)
    batches = read_ahead(make_micro_batches(tmp_path / "train"), range(1), num_workers=1)
    with pytest.raises(ValueError, match=f"^{path} is damaged: bytes") as error:
        next(batches)
    assert is_ours(error.value)


def start_trainer(tiny_data, folder, *, then: str) -> tuple[subprocess.Popen, list[int]]:
    """Start a process that reads a batch from two workers and then runs `then`; return it and its workers."""
    program = f"""
        import multiprocessing, os, sys, time

        if __name__ == "__main__":
            from tests.train.prefetch.test_loader import make_micro_batches
            from train.prefetch.loader import read_ahead

            batches = read_ahead(make_micro_batches({str(tiny_data.train)!r}), range(1000), num_workers=2)
            next(batches)
            print(*(worker.pid for worker in multiprocessing.active_children()), flush=True)
            {then}
    """
    script = folder / "trainer.py"
    script.write_text(textwrap.dedent(program))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True, env=environment)
    return process, [int(pid) for pid in process.stdout.readline().split()]


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def have_ended(pids: list[int], *, within: float = 10) -> bool:
    end = time.monotonic() + within
    while any(map(is_running, pids)) and time.monotonic() < end:
        time.sleep(0.05)
    return not any(map(is_running, pids))


ENDS = ["os.kill(os.getpid(), 9)", "sys.exit(3)", "raise RuntimeError", "os._exit(3)"]


@pytest.mark.parametrize("then", [ENDS[0], *(pytest.param(end, marks=pytest.mark.slow) for end in ENDS[1:])])
def test_workers_end_with_the_training_process(tiny_data, tmp_path, then):
    process, workers = start_trainer(tiny_data, tmp_path, then=then)
    assert len(workers) == 2
    assert process.wait(timeout=20) != 0
    assert have_ended(workers)
    process.stdout.close()


@pytest.mark.slow
def test_workers_ignore_stop_requests_and_leave_them_to_the_training_process(tiny_data, tmp_path):
    process, workers = start_trainer(tiny_data, tmp_path, then="time.sleep(2); print(sum(1 for _ in batches))")
    for worker in workers:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            os.kill(worker, number)
    assert process.stdout.readline() == "999\n"
    assert process.wait(timeout=20) == 0 and have_ended(workers)
    process.stdout.close()
