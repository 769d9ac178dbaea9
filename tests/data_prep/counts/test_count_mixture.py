"""Processes divide the tokens of a mixture: each opens it once, and memory holds one array of counts per process."""

import pickle
import tracemalloc
from contextlib import contextmanager

import numpy as np
import pytest

from data_prep.counts import count_mixture as module
from data_prep.counts.count_folders import count_folders
from data_prep.shards import token_stream
from data_prep.shards.mixture import write_mixture
from tests.damage import flip_bit
from tests.data_prep.shards.test_token_stream import STREAM, write_folder

NUM_WORKERS = 3


class RecordedPool:
    """A pool in this process that takes everything through pickle, as worker processes do."""

    def __init__(self, num_workers, start, arguments):
        self._num_workers, self._start, self._arguments = num_workers, start, arguments
        self.sizes, self.num_started = [], 0

    def map(self, function, shares):
        for number, share in enumerate(shares):
            if number < self._num_workers:
                mixture, counted = pickle.loads(pickle.dumps(self._arguments[:2]))
                self._start(mixture, counted, *self._arguments[2:])
                self.num_started += 1
            content = pickle.dumps(share)
            self.sizes.append(len(content))
            yield function(pickle.loads(content))


@pytest.fixture
def pool(monkeypatch):
    pools = []

    @contextmanager
    def recorded_pool(num_workers, start, *arguments):
        pools.append(RecordedPool(num_workers, start, arguments))
        yield pools[-1]

    monkeypatch.setattr(module, "worker_pool", recorded_pool)
    return pools


@pytest.mark.usefixtures("workers_for_few_tokens")
def test_workers_open_the_mixture_once_and_receive_a_few_bytes_per_share(tmp_path, monkeypatch, pool):
    write_folder(tmp_path, shards=[[[1, 9]]] * 100)
    opened = []
    read_manifest = token_stream.read_manifest
    monkeypatch.setattr(token_stream, "read_manifest", lambda folder: opened.append(folder) or read_manifest(folder))
    counts = count_folders([tmp_path], num_workers=NUM_WORKERS)
    assert counts.counts.tolist() == [0, 100, 0, 0, 0, 0, 0, 0, 0, 100]
    assert len(opened) == 1 + pool[0].num_started == 1 + NUM_WORKERS
    assert len(pool[0].sizes) == NUM_WORKERS * module.SHARES_PER_WORKER and max(pool[0].sizes) < 150


def test_few_tokens_start_no_worker(tmp_path, monkeypatch, pool):
    write_folder(tmp_path)
    count_folders([tmp_path], num_workers=NUM_WORKERS)
    assert pool == []
    monkeypatch.setattr(module, "TOKENS_PER_WORKER", 10)  # of 12 tokens
    count_folders([tmp_path], num_workers=NUM_WORKERS)
    assert len(pool[0].sizes) == 2 * module.SHARES_PER_WORKER


def test_parts_are_counted_one_after_the_other_in_the_memory_of_one(tmp_path):
    num_buckets, num_parts = 2**18, 8
    for part in range(num_parts):
        write_folder(tmp_path / str(part))
    write_mixture(tmp_path / "mixture.yaml", {str(part): 1 for part in range(num_parts)})
    tracemalloc.start()
    counts = count_folders([tmp_path], hash_key="bigram", num_buckets=num_buckets)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert counts.num_tokens == num_parts * len(STREAM)
    assert peak < 3.5 * 8 * num_buckets  # this process's counts, their sum over ranks, and the sum over parts


@pytest.mark.usefixtures("workers_for_few_tokens")
def test_epochs_multiply_the_sum_over_all_processes(tmp_path):
    write_folder(tmp_path / "one")
    write_mixture(tmp_path / "mixture.yaml", {"one": "1/2"})
    expected = [(int(count) + 1) // 2 for count in np.bincount(STREAM)]  # halves are rounded up, once
    for num_workers in (1, 2):
        assert count_folders([tmp_path], num_workers=num_workers).counts.tolist() == expected


def test_exact_products_do_not_depend_on_how_many_are_made_at_once(tmp_path, monkeypatch):
    write_folder(tmp_path / "one")
    write_mixture(tmp_path / "mixture.yaml", {"one": "1/3"})
    whole = count_folders([tmp_path]).counts.tolist()
    monkeypatch.setattr(module, "SCALED_AT_ONCE", 3)
    assert count_folders([tmp_path]).counts.tolist() == whole


@pytest.mark.usefixtures("workers_for_few_tokens")
def test_damage_that_a_worker_finds_is_the_commands_error(tmp_path):
    flip_bit(write_folder(tmp_path) / "shard2.bin", 0)
    with pytest.raises(ValueError, match="shard2.bin is damaged: bytes 0..3 have digest"):
        count_folders([tmp_path], num_workers=2)
