"""A run without the expected checkpoint fails, and says what it has."""

from launch.gpu_acceptance.measuring.checkpoints import whole_checkpoint
from train.config.run_paths import checkpoint_dir


def test_a_run_without_checkpoints_fails(tmp_path):
    figure = whole_checkpoint(str(tmp_path), step=2)
    assert (figure.verdict, figure.note) == ("failed", "the newest checkpoint is None")


def test_a_checkpoint_without_a_manifest_fails(tmp_path):
    checkpoint_dir(tmp_path, 2).mkdir(parents=True)
    figure = whole_checkpoint(str(tmp_path), step=2)
    assert figure.verdict == "failed" and "step_00000002 has no" in figure.note
