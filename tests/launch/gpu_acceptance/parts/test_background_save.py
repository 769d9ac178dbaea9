"""The clock of a save ends when the training's stream may go on, and a save copies no more than its yardstick."""

from types import SimpleNamespace

import pytest
import torch
from torch.nn import Linear

from launch.gpu_acceptance.parts import background_save
from train.checkpoint.files.stored_state import WEIGHT, StateShard


def test_a_save_is_timed_from_an_idle_device_until_the_training_may_go_on(monkeypatch):
    calls = []
    for name in ("wait_for_device", "wait_for_training"):
        monkeypatch.setattr(background_save, name, lambda device, name=name: calls.append((name, device)))
    monkeypatch.setattr(background_save.time, "perf_counter", lambda: calls.append("clock") or 0.0)
    saver = SimpleNamespace(save=lambda **step: calls.append(("save", step)))
    background_save._time_save(saver, 7, "gpu")
    save = ("save", {"step": 7, "num_skipped": 0})
    assert calls == [("wait_for_device", "gpu"), "clock", save, ("wait_for_training", "gpu"), "clock"]


def test_the_yardstick_copies_what_a_save_copies(monkeypatch):
    engine = SimpleNamespace(module=Linear(3, 5, bias=False))  # its weights, in the training's precision, are not saved
    shards = [StateShard("weight", kind, 0, torch.zeros(15)) for kind in (WEIGHT, "exp_avg", "exp_avg_sq")]
    monkeypatch.setattr(background_save, "owned_shards", lambda of: shards if of is engine else pytest.fail("other"))
    assert background_save._num_bytes(engine) == 15 * 12  # 4 bytes each of weight and two moments
