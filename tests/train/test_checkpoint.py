"""A checkpoint is complete only when everything that belongs to its step is."""

from types import SimpleNamespace

import pytest

from train import checkpoint
from train.config import RunConfig


def test_a_step_whose_model_directory_was_not_finished_is_not_done(tmp_path, monkeypatch):
    def killed(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "export_model", killed)
    monkeypatch.setattr(checkpoint, "dist", SimpleNamespace(get_rank=lambda: 0, barrier=lambda: None))
    folder = tmp_path / "checkpoints" / "step_00000005"
    engine = SimpleNamespace(save_checkpoint=lambda *_, **__: folder.mkdir(parents=True), module=None)
    config, inputs = RunConfig("shards", run_dir=str(tmp_path)), SimpleNamespace(tokenizer_dir=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save_checkpoint(engine, config, inputs, step=5)
    assert folder.is_dir()
    assert checkpoint.find_checkpoint(config) is None
