"""A checkpoint exists whole or not at all, whatever moment the writing ends at, and no changed bit is taken for it."""

import os
import shutil
from pathlib import Path

import pytest

from tests.damage import damages
from train.checkpoint.commit import (
    MANIFEST,
    CheckpointError,
    check_digests,
    check_sizes,
    clean_up,
    commit_checkpoint,
    completed_checkpoints,
    manifest_bytes,
    prune_checkpoints,
    quarantine,
    read_manifest,
    step_of,
)

FILES = {"config.json": b'{"hidden_size": 16}', "training/rank_00000.safetensors": bytes(range(256)) * 8}


def alone(value):
    return [value]


def write_files(partial: Path) -> list[str]:
    for name, content in FILES.items():
        (partial / name).parent.mkdir(exist_ok=True)
        (partial / name).write_bytes(content)
    return list(FILES)


def save(folder: Path, step: int, write=write_files) -> Path:
    commit_checkpoint(folder / f"step_{step:08d}", write, {"step": step}, rank=0, gather=alone)
    return folder / f"step_{step:08d}"


def is_sound(folder: Path) -> bool:
    try:
        manifest = read_manifest(folder)
        check_sizes(folder, manifest)
        check_digests(folder, manifest)
    except (OSError, ValueError):
        return False
    return True


def newest_sound_step(folder: Path) -> int | None:
    return next((step_of(path) for path in completed_checkpoints(folder) if is_sound(path)), None)


def test_what_was_written_is_found_again(tmp_path):
    folder = save(tmp_path, 7)
    manifest = read_manifest(folder)
    assert manifest["step"] == 7 and manifest["files"].keys() == FILES.keys()
    assert manifest["files"]["config.json"]["size"] == len(FILES["config.json"])
    assert is_sound(folder) and newest_sound_step(tmp_path) == 7
    assert [path.name for path in tmp_path.iterdir()] == ["step_00000007"]


@pytest.mark.parametrize("failing", [0, 1])
def test_a_rank_that_cannot_write_leaves_the_checkpoints_before(tmp_path, failing):
    save(tmp_path, 1)
    outcomes = []

    def gather(value):  # this process is rank 0; rank 1 says that it failed where `failing` is 1
        outcomes.append(value)
        second = (None, "OSError: disk quota exceeded") if failing == 1 and len(outcomes) == 2 else ({}, None)
        return [value, second]

    def write(partial):
        if failing == 0:
            raise OSError("no space left on device")
        return write_files(partial)

    with pytest.raises(CheckpointError, match=f"rank {failing}: OSError: (no space|disk quota)"):
        commit_checkpoint(tmp_path / "step_00000002", write, {"step": 2}, rank=0, gather=gather)
    assert [path.name for path in tmp_path.iterdir()] == ["step_00000001"]
    assert save(tmp_path, 2).is_dir()


class Killed(BaseException):
    """Ends a save as kill -9 does: no handler and no clean-up may run."""


def test_every_moment_of_a_save_leaves_a_sound_checkpoint(tmp_path, monkeypatch):
    """Crash-point enumeration: before each change of the disk the folder is copied, and the copy must be good."""
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
    save(tmp_path / "run", 2)
    prune_checkpoints(tmp_path / "run", keep_last=1, keep_every=0)
    monkeypatch.undo()
    assert len(copies) > 8
    found = [newest_sound_step(copy) for copy in copies]
    assert set(found) == {1, 2} and found == sorted(found)
    for copy in copies:
        assert all(is_sound(path) for path in completed_checkpoints(copy))  # nothing half-written has a final name
        clean_up(copy)
        assert {path.suffix for path in copy.iterdir()} == {""}


def test_nothing_is_renamed_before_it_was_flushed(tmp_path, monkeypatch):
    """What a power cut leaves: files and folders that were not flushed count as lost."""
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


def test_a_thousand_flipped_bits_and_truncations_are_all_noticed(tmp_path):
    folder = save(tmp_path, 1)
    for path in damages([folder / name for name in (MANIFEST, *FILES)], number=1000):
        assert not is_sound(folder), f"{path} with {path.stat().st_size} bytes"
    assert is_sound(folder)


@pytest.mark.parametrize("name", [MANIFEST, *FILES])
def test_damage_is_reported_with_the_name_of_the_file(tmp_path, name):
    folder = save(tmp_path, 1)
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ValueError, match=name):
        check_digests(folder, read_manifest(folder))


def test_a_missing_file_is_noticed_without_reading_any(tmp_path):
    folder = save(tmp_path, 1)
    (folder / "config.json").unlink()
    with pytest.raises(ValueError, match=r"config\.json is missing, but was written with 14 bytes"):
        check_sizes(folder, read_manifest(folder))


def test_ranks_share_the_checking_of_digests(tmp_path):
    folder = save(tmp_path, 1)
    (folder / "config.json").write_bytes(b"x" * 14)
    manifest, damages = read_manifest(folder), 0
    for part in range(2):
        try:
            check_digests(folder, manifest, part=part, num_parts=2)
        except ValueError:
            damages += 1
    assert damages == 1


def test_a_manifest_from_elsewhere_is_damaged_unless_its_digest_is_its_own(tmp_path):
    (tmp_path / MANIFEST).write_bytes(manifest_bytes({"step": 1}).replace(b"1", b"2", 1))
    with pytest.raises(ValueError, match="is damaged"):
        read_manifest(tmp_path)
    with pytest.raises(ValueError, match="has no manifest.json: it was never completed"):
        read_manifest(tmp_path / "nowhere")


def test_the_last_checkpoints_and_every_nth_are_kept(tmp_path):
    for step in range(1, 8):
        save(tmp_path, step)
    deleted = prune_checkpoints(tmp_path, keep_last=2, keep_every=3)
    assert sorted(map(step_of, deleted)) == [1, 2, 4, 5]
    assert [step_of(path) for path in completed_checkpoints(tmp_path)] == [7, 6, 3]
    assert prune_checkpoints(tmp_path, keep_last=0, keep_every=0) == []


def test_what_was_set_aside_is_no_checkpoint(tmp_path):
    aside = quarantine(save(tmp_path, 5), ".damaged")
    assert aside.name == "step_00000005.damaged" and completed_checkpoints(tmp_path) == []
    clean_up(tmp_path)
    assert aside.is_dir()  # evidence is not cleaned up


def test_a_folder_that_an_interrupted_save_left_is_written_anew(tmp_path):
    (tmp_path / "step_00000001.partial").mkdir()
    (tmp_path / "step_00000001.partial" / "old").touch()
    assert not (save(tmp_path, 1) / "old").exists()


@pytest.mark.parametrize("kept_bytes", [0, 10, 100, 1000, 1500])
def test_a_disk_that_is_full_after_some_bytes(tmp_path, monkeypatch, kept_bytes):
    """Of every size that a limit may have, some part of the files fits and the rest does not."""
    save(tmp_path, 1)
    left = [kept_bytes]

    def write(partial):
        for name, content in FILES.items():
            (partial / name).parent.mkdir(exist_ok=True)
            fitting = content[: left[0]]
            (partial / name).write_bytes(fitting)
            left[0] -= len(fitting)
            if len(fitting) < len(content):
                raise OSError(28, "No space left on device")
        return list(FILES)

    with pytest.raises(CheckpointError, match="No space left on device"):
        save(tmp_path, 2, write)
    assert newest_sound_step(tmp_path) == 1 and len(list(tmp_path.iterdir())) == 1
    save(tmp_path, 2)
    assert newest_sound_step(tmp_path) == 2
