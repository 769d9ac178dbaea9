"""The tokenizing command, killed at random moments in part or in whole, ends with the same folder.

tests/data_prep/tokenizing/test_interrupted.py kills it before every single step; here the moments are random.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data_prep.shards.token_stream import TokenStream
from data_prep.train_tokenizer import save_tokenizer, train_tokenizer
from tests.data_prep.documents.raw_shards import FORMATS, write_raw_shard
from tests.data_prep.tokenizing.test_interrupted import all_files, contents, recorded_files
from train.processes.project_root import ROOT

DOCUMENTS = [f"document {number} has {number * number} words that nobody counted" for number in range(2000)]
TARGETS = ("parent", "worker", "all")
pytestmark = pytest.mark.distributed


@pytest.fixture
def command(tmp_path):
    """Return the command line for a folder, without --output."""
    for number in range(24):
        path = tmp_path / "raw" / f"part{number:02d}{FORMATS[number % len(FORMATS)]}"
        write_raw_shard(path, DOCUMENTS[: 100 * number])
    save_tokenizer(train_tokenizer(DOCUMENTS[:100], vocab_size=300), tmp_path / "tokenizer")
    words = [sys.executable, "-m", "data_prep.tokenize_shards", "--input", tmp_path / "raw", "--shard_bytes", 20_000]
    return [*map(str, [*words, "--tokenizer", tmp_path / "tokenizer", "--workers", 2, "--output"])]


@pytest.mark.parametrize("num_kills", [2, pytest.param(50, marks=pytest.mark.slow)])  # a kill takes nine seconds
def test_killed_commands_make_the_folder_of_an_untouched_one(command, tmp_path, num_kills):
    start = time.monotonic()
    assert start_command(command, tmp_path / "untouched").wait() == 0
    seconds = time.monotonic() - start
    generator, hits, folders = random.Random(num_kills), [], 0
    while len(hits) < num_kills:
        folders += 1
        kill_until_finished(command, tmp_path / f"killed{folders}", generator, hits, seconds=seconds)
        assert contents(tmp_path / f"killed{folders}") == contents(tmp_path / "untouched")
    kept = [num_files for num_files in hits if num_files]
    assert len(kept) >= num_kills / 5, f"the kills came too early: finished files that survived each kill: {hits}"


@pytest.mark.slow  # twenty seconds a kill; the kill before every step of an extension is a fast test
@pytest.mark.parametrize("num_kills", [2, 50])
def test_killed_extensions_make_the_folder_of_an_untouched_one(command, tmp_path, num_kills):
    later = tmp_path / "later"
    later.mkdir()
    for path in sorted((tmp_path / "raw").glob("part0*")):
        path.rename(later / path.name)
    assert start_command(command, tmp_path / "begun").wait() == 0
    for path in later.iterdir():
        path.rename(tmp_path / "raw" / path.name)
    command.insert(-1, "--extend")
    shutil.copytree(tmp_path / "begun", tmp_path / "untouched")
    start = time.monotonic()
    assert start_command(command, tmp_path / "untouched").wait() == 0
    seconds = time.monotonic() - start
    generator, hits, folders = random.Random(num_kills), [], 0
    while len(hits) < num_kills:
        folders += 1
        output = tmp_path / f"killed{folders}"
        shutil.copytree(tmp_path / "begun", output)
        kill_until_finished(command, output, generator, hits, seconds=seconds)
        assert contents(output) == contents(tmp_path / "untouched")
        assert TokenStream(output).manifest.num_documents == sum(min(100 * number, 2000) for number in range(24))


def kill_until_finished(command, output, generator, hits, *, seconds):
    """Start and kill the command until it finishes; append the number of finished files after each kill to `hits`."""
    kept = {}
    while True:
        process = start_command(command, output)
        wait_for_work(process, output)
        time.sleep(generator.uniform(0.3, 1) * seconds)
        is_running = process.poll() is None
        if is_running:
            kill(process, generator.choice(TARGETS))
        files = all_files(output) if output.exists() else {}
        assert kept.items() <= files.items()
        if not is_running or is_complete(output):
            return
        kept = recorded_files(output) if output.exists() else {}
        hits.append(len(kept))


def wait_for_work(process, output):
    """Wait until the command has recorded its settings: the start of Python takes longer on a busy machine."""
    while process.poll() is None and not (output / "unfinished.json").exists():
        time.sleep(0.005)


def is_complete(output):
    return (output / "manifest.json").exists() and not (output / "unfinished.json").exists()


def kill(process, target):
    """Kill the parent, one of its workers or the whole group; a parent that loses a worker exits by itself with 2."""
    if target == "all":
        os.killpg(process.pid, signal.SIGKILL)
    elif target == "parent":
        process.kill()
    else:
        workers = find_workers(process.pid)
        for worker in workers[:1] or [process.pid]:
            os.kill(worker, signal.SIGKILL)
    assert process.wait() in (-signal.SIGKILL, 2, 0)


def find_workers(parent):
    """The worker processes of `parent`, from Linux's /proc."""
    children = Path(f"/proc/{parent}/task/{parent}/children")
    pids = map(int, children.read_text().split()) if children.exists() else []
    return [pid for pid in pids if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def start_command(command, output):
    return subprocess.Popen(
        [*command, str(output)], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
