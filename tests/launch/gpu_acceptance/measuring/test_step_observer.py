"""On a GPU, torch's alarm is set in each phase of a step, and off again afterwards."""

from types import SimpleNamespace

import pytest
import torch

from launch.gpu_acceptance.measuring.step_observer import StepObserver


def make_observer(modes: list[str], monkeypatch, **options) -> StepObserver:
    """An observer of an engine on a GPU that is not there, with the modes of the alarm in a list."""
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)
    monkeypatch.setattr("launch.gpu_acceptance.measuring.step_observer._group_names", dict)
    model = SimpleNamespace(transformer=SimpleNamespace(sparse_ffns={}))
    engine = SimpleNamespace(module=model, device=torch.device("cuda"), step=lambda: None, backward=fail)
    return StepObserver(engine, None, **options)


def fail(loss):
    raise RuntimeError("called a synchronizing CUDA operation")


def test_a_pass_that_waits_is_an_error_and_the_alarm_goes_off_again(monkeypatch):
    modes = []
    observer = make_observer(modes, monkeypatch, sounds_alarm=True)
    observer.step()
    with pytest.raises(RuntimeError, match="synchronizing"):
        observer.backward(None)
    assert modes == ["warn", "default", "error", "default"]


def test_the_alarm_is_off_by_default(monkeypatch):
    modes = []
    make_observer(modes, monkeypatch).step()
    assert modes == []
