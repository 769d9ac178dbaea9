"""A checkpoint exists whole or not at all, at whatever moment a save ends."""

import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from train.checkpoint.commit import CheckpointError, Snapshot, commit
from train.checkpoint.files.manifest import read_manifest
from train.checkpoint.files.safetensors_stream import SafetensorsStream
from train.checkpoint.files.stored_state import WEIGHT, StateShard, StoredState
from train.checkpoint.folders import clean_up, open_checkpoint, prune_checkpoints
from train.config.run_paths import completed_checkpoints, step_of

VALUES = torch.arange(500.0)
STATE_FILE, MODEL_FILES = "training/rank_00000.safetensors", ("config.json", "model.bin")


@dataclass(frozen=True)
class Alone:
    """The Group of a single process."""

    rank: int = 0
    size: int = 1

    def gather(self, value) -> list:
        return [value]


ALONE = Alone()


@dataclass(frozen=True)
class TinyExport:
    """Writes a configuration, and the weights that it reads from the shards, as far as the disk has room."""

    num_free_bytes: int = 10_000

    def write(self, folder: Path, stored: StoredState) -> list[str]:
        weights = torch.empty(len(VALUES))
        stored.read(WEIGHT, "w", 0, weights)
        left = self.num_free_bytes
        for name, content in zip(MODEL_FILES, (b'{"hidden_size": 16}', weights.numpy().tobytes()), strict=True):
            (folder / name).write_bytes(content[:left])
            left -= len(content)
            if left < 0:
                raise OSError(28, "No space left on device")
        return list(MODEL_FILES)


def snapshot(checkpoints: Path, step: int) -> Snapshot:
    shards = [StateShard("w", WEIGHT, 0, VALUES)]
    return Snapshot(checkpoints / f"step_{step:08d}", shards, {"step": step}, TinyExport())


def save(checkpoints: Path, step: int) -> Path:
    commit(snapshot(checkpoints, step), ALONE)
    return checkpoints / f"step_{step:08d}"


def is_sound(folder: Path) -> bool:
    try:
        open_checkpoint(folder).check_digests()
    except (OSError, ValueError):
        return False
    return True


def newest_sound_step(checkpoints: Path) -> int | None:
    return next((step_of(path) for path in completed_checkpoints(checkpoints) if is_sound(path)), None)


def test_a_committed_checkpoint_holds_state_model_and_manifest(tmp_path):
    folder, weights = save(tmp_path, 7), torch.empty(len(VALUES))
    manifest = read_manifest(folder)
    assert manifest["step"] == 7 and manifest["files"].keys() == {STATE_FILE, *MODEL_FILES}
    StoredState([folder / STATE_FILE]).read(WEIGHT, "w", 0, weights)
    assert torch.equal(weights, VALUES) and (folder / "model.bin").read_bytes() == VALUES.numpy().tobytes()
    assert is_sound(folder) and newest_sound_step(tmp_path) == 7
    assert [path.name for path in tmp_path.iterdir()] == ["step_00000007"]


def test_a_snapshot_without_an_export_is_its_state_alone(tmp_path):
    commit(replace(snapshot(tmp_path, 1), export=None), ALONE)
    assert read_manifest(tmp_path / "step_00000001")["files"].keys() == {STATE_FILE}


@dataclass
class FirstOfTwo:
    """Rank 0 of two; the outcomes that rank 1 reports are given, or are those of success."""

    outcomes_of_rank_1: dict
    rank: int = 0
    size: int = 2
    num_gathered: int = 0

    def gather(self, value) -> list:
        self.num_gathered += 1
        return [value, self.outcomes_of_rank_1.get(self.num_gathered, ({}, None))]


class Unwritable:
    """Values of a shard that cannot be written."""

    dtype, shape = VALUES.dtype, VALUES.shape

    def detach(self):
        raise OSError("no space left on device")


@pytest.mark.parametrize("failing", [0, 1])
def test_a_rank_that_cannot_write_leaves_the_earlier_checkpoints(tmp_path, failing):
    save(tmp_path, 1)
    second = snapshot(tmp_path, 2)
    if failing == 0:
        second, group = replace(second, shards=[StateShard("w", WEIGHT, 0, Unwritable())]), FirstOfTwo({})
    else:  # in the second of the protocol's four gathers, that of the state
        group = FirstOfTwo({2: (None, "OSError: disk quota exceeded")})
    with pytest.raises(CheckpointError, match=f"rank {failing}: OSError: (no space|disk quota)"):
        commit(second, group)
    assert [path.name for path in tmp_path.iterdir()] == ["step_00000001"]
    assert save(tmp_path, 2).is_dir()


def test_files_of_other_ranks_are_in_the_manifest(tmp_path):
    described = {"training/rank_00001.safetensors": {"size": 5, "xxh3": "0"}}
    commit(snapshot(tmp_path, 1), FirstOfTwo({2: (described, None)}))
    files = read_manifest(tmp_path / "step_00000001")["files"]
    assert files.keys() == {STATE_FILE, *MODEL_FILES, *described}


def test_ranks_write_their_states_into_one_folder(tmp_path):
    names = [snapshot(tmp_path, 1).write_state(tmp_path, rank=rank) for rank in (0, 1)]
    assert names == [["training/rank_00000.safetensors"], ["training/rank_00001.safetensors"]]
    assert sorted(path.name for path in (tmp_path / "training").iterdir()) == [
        "rank_00000.safetensors", "rank_00001.safetensors",
    ]  # fmt: skip


def test_a_folder_that_cannot_be_made_is_an_error_of_the_checkpoint(tmp_path):
    (tmp_path / "checkpoints").touch()
    with pytest.raises(CheckpointError, match="rank 0: NotADirectoryError"):
        save(tmp_path / "checkpoints", 1)


def test_an_error_of_the_program_is_reported_with_its_traceback(tmp_path):
    broken = replace(snapshot(tmp_path, 1), export=object())
    with pytest.raises(CheckpointError, match="(?s)rank 0: Traceback.*AttributeError"):
        commit(broken, ALONE)
    assert list(tmp_path.iterdir()) == []


def test_every_moment_of_a_save_leaves_a_sound_checkpoint(tmp_path, monkeypatch):
    """Crash-point enumeration: the folder is copied before each change of the disk, and every copy must be good."""
    save(tmp_path / "run", 1)
    copies, copying = [], []

    def recorded(function):
        def call(*arguments, **keywords):
            if not copying:  # copying changes the disk too
                copying.append(True)
                copies.append(shutil.copytree(tmp_path / "run", tmp_path / f"copy_{len(copies)}"))
                copying.clear()
            return function(*arguments, **keywords)

        return call

    for name in ("fsync", "rename", "open", "mkdir", "unlink", "rmdir"):
        monkeypatch.setattr(os, name, recorded(getattr(os, name)))
    monkeypatch.setattr(Path, "write_bytes", recorded(Path.write_bytes))
    for name in ("__enter__", "write", "__exit__"):
        monkeypatch.setattr(SafetensorsStream, name, recorded(getattr(SafetensorsStream, name)))
    save(tmp_path / "run", 2)
    prune_checkpoints(tmp_path / "run", keep_last=1, keep_every=0)
    monkeypatch.undo()
    assert len(copies) > 12
    found = [newest_sound_step(copy) for copy in copies]
    assert set(found) == {1, 2} and found == sorted(found)
    for copy in copies:
        assert all(is_sound(path) for path in completed_checkpoints(copy))  # nothing half-written has a final name
        clean_up(copy)
        assert {path.suffix for path in copy.iterdir()} == {""}


def test_nothing_is_renamed_before_it_is_flushed(tmp_path, monkeypatch):
    """After a power cut, files and folders that were not flushed count as lost."""
    flushed, real_fsync, real_rename = set(), os.fsync, os.rename

    def fsync(descriptor):
        flushed.add(os.readlink(f"/proc/self/fd/{descriptor}"))
        real_fsync(descriptor)

    def rename(source, target):
        needed = {str(path) for path in [Path(source), *Path(source).rglob("*")]}
        assert needed <= flushed, needed - flushed
        flushed.clear()
        real_rename(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", rename)
    save(tmp_path, 1)
    assert str(tmp_path) in flushed  # the rename itself


def test_a_folder_that_an_interrupted_save_left_is_rewritten(tmp_path):
    (tmp_path / "step_00000001.partial").mkdir()
    (tmp_path / "step_00000001.partial" / "old").touch()
    assert not (save(tmp_path, 1) / "old").exists()


@pytest.mark.parametrize("num_free_bytes", [0, 10, 100, 1000, 1500])
def test_a_disk_that_fills_up_after_some_bytes_costs_one_checkpoint(tmp_path, num_free_bytes):
    save(tmp_path, 1)
    with pytest.raises(CheckpointError, match="No space left on device"):
        commit(replace(snapshot(tmp_path, 2), export=TinyExport(num_free_bytes)), ALONE)
    assert newest_sound_step(tmp_path) == 1 and len(list(tmp_path.iterdir())) == 1
    save(tmp_path, 2)
    assert newest_sound_step(tmp_path) == 2
