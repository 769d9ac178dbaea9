"""The command goes on after a part that crashes or hangs, reports at once, and keeps finished parts."""

import json
import os
import time
from pathlib import Path

import pytest

from launch.gpu_acceptance.main import main
from launch.gpu_acceptance.part_list import PARTS, Part

_HERE = "tests.launch.gpu_acceptance"
BAD = [
    Part("crashing", f"{_HERE}.crashing_part", 60, "A part that crashes"),
    # Long enough for Python to start on a busy machine.
    Part("hanging", f"{_HERE}.hanging_part", 3, "A part that hangs"),
    Part("working", f"{_HERE}.working_part", 60, "A part that works"),
]


def report(folder: Path) -> dict[str, dict]:
    """The parts of report.json by name."""
    return {part["part"]: part for part in json.loads((folder / "report.json").read_text())["parts"]}


def run(folder: Path, *arguments: str, parts: list[Part]) -> int:
    return main(["--device", "cpu", "--output", str(folder), *arguments], parts=parts)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The output of a start in which the first two parts fail."""
    folder = tmp_path_factory.mktemp("acceptance")
    assert run(folder, parts=BAD) == 1
    return folder


def test_a_part_that_crashes_says_why_and_the_others_run(folder):
    parts = report(folder)
    assert {name: part["verdict"] for name, part in parts.items()} == {
        "crashing": "failed", "hanging": "failed", "working": "passed",
    }  # fmt: skip
    assert "exit status 1" in parts["crashing"]["error"]
    assert "the card has fallen off the bus" in parts["crashing"]["error"]


def test_a_part_is_killed_at_its_limit_with_the_processes_that_it_started(folder):
    assert "killed after its limit of 3 s" in report(folder)["hanging"]["error"]
    pid = int((folder / "child").read_text())
    for _ in range(100):
        status = Path(f"/proc/{pid}/stat")
        if not status.exists() or status.read_text().split()[2] == "Z":
            return
        time.sleep(0.05)
    os.kill(pid, 9)
    raise AssertionError(f"process {pid} outlived its part")


def test_the_report_has_figures_targets_and_verdicts(folder):
    text = (folder / "report.md").read_text()
    assert "| a wait | 0 |  | <= 0 | passed |" in text
    assert "| a speed | 12,346 tokens/s | 12,000..13,000 |  | measured |" in text
    assert "| a ratio | 9 |  | <= 1.15 | skipped: needs a GPU |" in text
    assert text.startswith("Device: CPU, ") and "small sizes." in text


def test_a_later_start_keeps_finished_parts_unless_they_are_named(folder, capsys):
    good = BAD[2:]
    assert run(folder, parts=good) == 0
    assert "0 parts" in capsys.readouterr().out and (folder / "runs").read_text() == "x"
    assert run(folder, "--only", "working", parts=good) == 0
    assert (folder / "runs").read_text() == "xx"


def test_results_of_another_setting_are_not_kept(folder):
    values = json.loads((folder / "working.json").read_text())
    values["setting"]["device_name"] = "another card"
    (folder / "working.json").write_text(json.dumps(values))
    runs = (folder / "runs").read_text()
    assert run(folder, parts=BAD[2:]) == 0
    assert (folder / "runs").read_text() == runs + "x"


def test_a_missing_gpu_is_an_error_in_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert main(["--device", "cuda", "--output", str(tmp_path)]) == 2
    assert "--device cuda" in capsys.readouterr().err


def test_a_cpu_is_told_that_sizes_are_small(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert main(["--output", str(tmp_path)], parts=[]) == 0
    assert "without a GPU, sizes are small" in capsys.readouterr().out


def test_all_parts_together_end_within_25_minutes():
    assert sum(part.limit_seconds for part in PARTS) <= 25 * 60


@pytest.mark.slow  # trains some 30 models, and one by its own command: three minutes on two cores
@pytest.mark.distributed
@pytest.mark.parametrize("name", [part.name for part in PARTS])
def test_every_part_runs_with_small_sizes(name, tmp_path):
    assert run(tmp_path, "--only", name, parts=PARTS) == 0
    assert report(tmp_path)[name]["error"] is None
