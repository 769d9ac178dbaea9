"""A checkpoint in the background is reported when it is written, and a failure when it is waited for."""

import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.train.checkpoint.test_commit import Alone
from train.checkpoint import saver
from train.checkpoint.commit import CheckpointError
from train.checkpoint.host_copy import HostCopy
from train.checkpoint.saver import Saver
from train.config.run_config import RunConfig

FOLDER = Path("step_00000001")


class Agreement(Alone):
    def any(self, value: bool) -> bool:
        return value


@pytest.fixture
def make_saver(monkeypatch):
    """A Saver whose snapshots are its arguments, and which writes by calling a function."""

    def make(write, *, async_save: bool) -> Saver:
        monkeypatch.setattr(saver, "Agreement", Agreement)
        monkeypatch.setattr(saver, "AllRanks", Alone)
        monkeypatch.setattr(saver, "take_snapshot", lambda engine, config, **facts: facts)
        monkeypatch.setattr(saver, "save_checkpoint", lambda snapshot, config, group: write(snapshot))
        monkeypatch.setattr(saver, "facts_of_run", lambda config, export, resume_compatibility: {"ep_size": 2})
        return Saver(
            SimpleNamespace(module=None),
            RunConfig("shards", async_save=async_save),
            resume_compatibility={},
            tokenizer_dir=Path("t"),
        )

    return make


def test_a_checkpoint_is_written_at_once_from_the_live_state(make_saver):
    snapshots = []
    waiting = make_saver(lambda snapshot: snapshots.append(snapshot) or FOLDER, async_save=False)
    assert waiting.save(step=1, num_skipped=2) == FOLDER
    assert waiting.poll() is None and waiting.wait() is None
    [snapshot] = snapshots
    assert (snapshot["step"], snapshot["num_skipped"], snapshot["host_copy"]) == (1, 2, None)
    assert snapshot["facts"] == {"ep_size": 2}


def test_a_checkpoint_in_the_background_is_written_from_a_copy(make_saver):
    may_end, snapshots = threading.Event(), []

    def write(snapshot):
        snapshots.append(snapshot)
        may_end.wait()
        return FOLDER

    background = make_saver(write, async_save=True)
    assert background.save(step=1, num_skipped=0) is None
    assert background.poll() is None  # still in flight
    with pytest.raises(RuntimeError, match="the checkpoint before step 2 is still in flight"):
        background.save(step=2, num_skipped=0)  # would overwrite the copy
    may_end.set()
    assert background.wait() == FOLDER
    assert background.wait() is None  # reported once
    background.save(step=2, num_skipped=0)
    background.wait()
    first, second = (snapshot["host_copy"] for snapshot in snapshots)
    assert isinstance(first, HostCopy) and first is second


@pytest.mark.parametrize("error", [CheckpointError("no space"), RuntimeError("no space")], ids=["disk", "lost rank"])
def test_a_failure_in_the_background_is_raised_where_it_is_waited_for(make_saver, error):
    def write(snapshot):
        raise error

    background = make_saver(write, async_save=True)
    background.save(step=1, num_skipped=0)
    with pytest.raises(CheckpointError, match="no space"):
        background.wait()
    assert background.wait() is None
