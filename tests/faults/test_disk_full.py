"""A full disk or a limited file size costs one checkpoint and nothing else."""

import os
import resource
import subprocess
from pathlib import Path

import pytest
import torch

from tests.train.checkpoint.test_commit import ALONE, newest_sound_step
from train.checkpoint.commit import CheckpointError, Snapshot, commit
from train.checkpoint.files.stored_state import WEIGHT, StateShard

STATE = torch.arange(300_000, dtype=torch.float32)  # 1.2 MB


def save(checkpoints: Path, step: int) -> None:
    shards = [StateShard(f"state.{number}", WEIGHT, 0, STATE) for number in range(3)]
    commit(Snapshot(checkpoints / f"step_{step:08d}", shards, {"step": step}), ALONE)


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 8 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"a file system cannot be mounted here: {mounted.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_on_a_full_disk_the_checkpoints_before_stay_and_the_next_one_succeeds_when_there_is_room(small_disk):
    ballast = small_disk / "ballast"
    save(small_disk / "checkpoints", 1)
    ballast.write_bytes(bytes(2_000_000))
    for step in (2, 3):
        with pytest.raises(CheckpointError, match="No space left on device"):
            save(small_disk / "checkpoints", step)
        assert os.listdir(small_disk / "checkpoints") == ["step_00000001"]
    ballast.unlink()
    save(small_disk / "checkpoints", 4)
    assert newest_sound_step(small_disk / "checkpoints") == 4


@pytest.fixture
def limit_file_size():
    """Limit the size of files that this process writes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("size", [0, 1, 100, 4096, 65_536, 600_000, 1_199_999, 1_200_000])
def test_a_limit_on_the_size_of_files_is_an_error_of_the_save(tmp_path, limit_file_size, size):
    save(tmp_path, 1)
    limit_file_size(size)
    with pytest.raises(CheckpointError, match="File too large"):
        save(tmp_path, 2)
    limit_file_size(resource.RLIM_INFINITY)
    assert os.listdir(tmp_path) == ["step_00000001"]
    save(tmp_path, 2)
    assert newest_sound_step(tmp_path) == 2
