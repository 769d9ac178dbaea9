"""A run's checkpoints are found by their names, newest first."""

from train.config.run_paths import checkpoint_dir, checkpoints_dir, completed_checkpoints, step_of

STEPS = (5, 90, 1000, 99_999_999)


def test_names_of_steps_sort_as_numbers():
    names = [checkpoint_dir("run", step).name for step in STEPS]
    assert sorted(names) == names


def test_completed_checkpoints_are_listed_from_the_newest(tmp_path):
    for step in STEPS:
        checkpoint_dir(tmp_path, step).mkdir(parents=True)
    assert [step_of(path) for path in completed_checkpoints(checkpoints_dir(tmp_path))] == sorted(STEPS, reverse=True)


def test_only_a_folder_with_a_final_name_is_a_completed_checkpoint(tmp_path):
    for name in ("step_00000001.partial", "step_00000002.damaged", "step_00000003.deleted"):
        (tmp_path / name).mkdir()
    (tmp_path / "step_00000004").touch()
    assert completed_checkpoints(tmp_path) == [] == completed_checkpoints(tmp_path / "nowhere")
