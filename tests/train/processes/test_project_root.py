"""The root holds the script and the settings that are found by their paths below it."""

from train.processes.project_root import ROOT


def test_the_root_holds_the_script_and_the_settings_of_a_run():
    assert (ROOT / "launch" / "train.py").is_file()
    assert (ROOT / "ds_configs" / "base.json").is_file()
