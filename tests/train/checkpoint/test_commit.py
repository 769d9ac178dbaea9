"""A checkpoint exists whole or not at all, at whatever moment a save ends."""

import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from train.checkpoint.commit import CheckpointError, Snapshot, commit
from train.checkpoint.files.hashed_file import HashedFile, Run, write_hashed
from train.checkpoint.files.manifest import read_manifest
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
    """A configuration, and the weights that a rank holds in their places, as far as the disk has room."""

    num_free_bytes: int = 10_000

    def create(self, folder: Path) -> None:
        with open(folder / "model.bin", "wb") as file:
            file.truncate(VALUES.nbytes)

    def write(self, folder: Path, shards: list[StateShard], *, rank: int) -> dict[str, list[Run]]:
        config, left = b'{"hidden_size": 16}', self.num_free_bytes
        runs = {"config.json": write_hashed(folder / "config.json", config[:left])} if rank == 0 else {}
        with HashedFile(folder / "model.bin", may_exist=True) as file:
            for shard in shards:
                file.write(shard.values.numpy().tobytes()[: max(0, left - len(config))], begin=4 * shard.offset)
        if left < len(config) + VALUES.nbytes:
            raise OSError(28, "No space left on device")
        return runs | {"model.bin": file.runs}


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
    else:  # in the second of the protocol's three gathers
        group = FirstOfTwo({2: (None, "OSError: disk quota exceeded")})
    with pytest.raises(CheckpointError, match=f"rank {failing}: OSError: (no space|disk quota)"):
        commit(second, group)
    assert [path.name for path in tmp_path.iterdir()] == ["step_00000001"]
    assert save(tmp_path, 2).is_dir()


def half(checkpoints: Path, *, rank: int) -> Snapshot:
    begin = 250 * rank
    return replace(snapshot(checkpoints, 1), shards=[StateShard("w", WEIGHT, begin, VALUES[begin : begin + 250])])


def test_two_ranks_write_one_model_and_a_state_each(tmp_path):
    partial = tmp_path / "step_00000001.partial"

    class WithRankOne(FirstOfTwo):
        def gather(self, value) -> list:
            gathered = super().gather(value)
            if self.num_gathered == 2:
                gathered[1] = half(tmp_path, rank=1).write(partial, rank=1), None
            return gathered

    commit(half(tmp_path, rank=0), WithRankOne({}))
    folder, other = tmp_path / "step_00000001", save(tmp_path / "alone", 1)
    assert is_sound(folder) and (folder / "model.bin").read_bytes() == (other / "model.bin").read_bytes()
    files = read_manifest(folder)["files"]
    assert files.keys() == {STATE_FILE, "training/rank_00001.safetensors", *MODEL_FILES}
    assert [size for size, _ in files["model.bin"]] == [1000, 1000]


@pytest.mark.parametrize("rank", [0, 1])
def test_weights_that_no_rank_writes_cost_the_checkpoint(tmp_path, rank):
    problem = "no rank has written the bytes 0 to 999" if rank == 1 else "2000 bytes long, but was written with 1000"
    with pytest.raises(CheckpointError, match=f"(?s){problem}"):
        commit(half(tmp_path, rank=rank), ALONE)
    assert list(tmp_path.iterdir()) == []


def test_no_file_is_read_back(tmp_path, monkeypatch):
    modes, real_open = [], open
    monkeypatch.setattr("builtins.open", lambda path, mode="r", *rest, **more: (
        modes.append((str(path), mode)), real_open(path, mode, *rest, **more)
    )[1])  # fmt: skip
    monkeypatch.setattr(Path, "read_bytes", None)
    save(tmp_path, 1)
    monkeypatch.undo()
    assert {mode for path, mode in modes if str(tmp_path) in path or path.isdigit()} == {"wb"}


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
    for name in ("__enter__", "write", "__exit__"):
        monkeypatch.setattr(HashedFile, name, recorded(getattr(HashedFile, name)))
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
