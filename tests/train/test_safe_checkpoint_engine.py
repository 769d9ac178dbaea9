"""A checkpoint file can hold values, and cannot run code."""

import os
import re

import pytest
import torch

from train.safe_checkpoint_engine import SafeCheckpointEngine


@pytest.fixture
def engine():
    return SafeCheckpointEngine()


class Attack:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


def test_code_in_a_file_is_refused_and_not_run(engine, tmp_path):
    path, folder = tmp_path / "model_states.pt", tmp_path / "attacked"
    torch.save({"module": Attack(folder)}, path)
    with pytest.raises(ValueError, match=re.escape(f"checkpoint file {path} cannot be read safely")):
        engine.load(str(path))
    assert not folder.exists()
    torch.load(path, weights_only=False)  # the file is indeed an attack
    assert folder.is_dir()


def test_the_state_of_model_and_optimizer_comes_back(engine, tmp_path):
    model = torch.nn.Linear(2, 3)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    state = {"module": model.state_dict(), "optimizer": optimizer.state_dict(), "step": 3, "names": ["a", None]}
    engine.save(state, str(tmp_path / "state.pt"))
    loaded = engine.load(str(tmp_path / "state.pt"))
    assert loaded["step"] == 3 and loaded["names"] == ["a", None]
    assert torch.equal(loaded["module"]["weight"], model.weight)
    assert torch.equal(loaded["optimizer"]["state"][0]["exp_avg"], optimizer.state_dict()["state"][0]["exp_avg"])


@pytest.mark.parametrize("value", SafeCheckpointEngine._VALUE_CLASSES, ids=lambda value: value.__name__)
def test_deepspeeds_value_classes_are_let_through(engine, tmp_path, value):
    sample = {
        "LossScaler": lambda: value(2.0),
        "ZeroStageEnum": lambda: value(1),
        "fragment_address": lambda: value(3, 4),
    }
    torch.save({"value": sample[value.__name__]()}, tmp_path / "state.pt")
    assert type(engine.load(str(tmp_path / "state.pt"))["value"]) is value


@pytest.mark.parametrize("content", [b"", b"not a checkpoint"])
def test_a_damaged_file_is_named(engine, tmp_path, content):
    path = tmp_path / "damaged.pt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(str(path))):
        engine.load(str(path))
