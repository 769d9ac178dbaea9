"""A corpus of 1,200 shards is opened, read, counted and verified with 256 descriptors."""

import os
import subprocess
import sys
import textwrap
from dataclasses import replace

import pytest

from data_prep.shards.manifest import Shard, make_manifest, read_manifest, write_manifest
from data_prep.shards.token_stream import TokenStream
from tests.data_prep.shards.test_token_stream import write_folder
from train.processes.project_root import ROOT

NUM_SHARDS, TOKENS = 1200, [1, 2, 3, 9]


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Links to the files of one shard: to write and flush 3,600 files would take half a minute."""
    folder = write_folder(tmp_path_factory.mktemp("many"), shards=[[TOKENS]])
    [shard] = read_manifest(folder).shards
    shards = [replace(shard, name=f"{number:05d}") for number in range(NUM_SHARDS)]
    for each in shards:
        for suffix in ("bin", "idx", "sum"):
            os.link(folder / f"shard0.{suffix}", folder / f"{each.name}.{suffix}")
    write_manifest(
        folder, make_manifest(shards, tokenizer_digest="sha256:t", vocab_size=10, end_token="<end>", end_token_id=9)
    )
    return folder


def test_256_descriptors_are_enough(many):
    program = f"""
        import resource, sys
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
        from data_prep.counts.count_folders import count_folders
        from data_prep.shards.mixture import read_mixture
        from data_prep.verifying.folder_check import verify

        [stream] = read_mixture({str(many)!r}).streams
        assert stream.read(0, stream.num_tokens).tolist() == {TOKENS} * {NUM_SHARDS}
        assert sum(len(stream.documents(shard)) for shard in range({NUM_SHARDS})) == 2 * {NUM_SHARDS}
        assert count_folders([{str(many)!r}]).counts.tolist() == [0] + 3 * [{NUM_SHARDS}] + 5 * [0] + [{NUM_SHARDS}]
        assert verify(stream.folder) == []
    """
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_opening_asks_for_no_file_by_name(many, monkeypatch):
    asked = []
    status = os.stat
    monkeypatch.setattr(os, "stat", lambda path, **options: asked.append(str(path)) or status(path, **options))
    stream = TokenStream(many)
    assert not [path for path in asked if path.endswith((".bin", ".idx", ".sum"))]
    assert stream.read(4 * 700, 4).tolist() == TOKENS


SLOW = pytest.mark.slow(reason="writes and reads the whole manifest of 10 T tokens, 11 MB")


@pytest.mark.parametrize("num_shards", [4_000, pytest.param(40_000, marks=SLOW)])
def test_10_t_tokens_in_shards_of_1_gb_open_in_a_second_and_100_mb(tmp_path, num_shards):
    facts = {"num_tokens": 250_000_000, "num_documents": 300_000, "block_bytes": 4096}
    shards = [
        Shard(name=f"{n:05d}-part", sums_xxh3=f"{n * 7919:032x}", index_xxh3=f"{n * 104729:016x}", **facts)
        for n in range(num_shards)
    ]
    write_manifest(
        tmp_path,
        make_manifest(shards, tokenizer_digest="sha256:t", vocab_size=256_000, end_token="<end>", end_token_id=9),
    )
    program = f"""
        import os, time
        from data_prep.shards.token_stream import TokenStream

        def peak():
            [line] = [line for line in open("/proc/self/status") if line.startswith("VmHWM")]
            return 1024 * int(line.split()[1])

        def seconds():
            start = time.process_time()
            assert TokenStream({str(tmp_path)!r}).num_tokens == 250_000_000 * {num_shards}
            return time.process_time() - start

        names = [f"{{n:05d}}-part.{{suffix}}" for n in range({num_shards}) for suffix in ("bin", "idx", "sum")]
        os.listdir = lambda folder: names
        before = peak()
        first = seconds()
        print(min(first, *(seconds() for _ in range(3))), peak() - before)
    """
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    seconds, num_bytes = map(float, run.stdout.split())
    assert seconds < num_shards / 40_000 and num_bytes < 100e6 * num_shards / 40_000 + 5e6
