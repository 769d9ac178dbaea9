"""The benchmark of saves measures every part of a save, and compares it with a copy of the same repetition."""

import pytest

from launch.benchmark.saves import measure_saves, save_table
from tests.distributed.ranks import run_ranks


def test_the_table_compares_with_the_copy_of_the_same_repetition_and_leaves_out_the_first():
    measured = {"copy": [9.0, 1.0, 2.0, 4.0], "training stands still, async": [20.0, 1.1, 2.2, 4.8]}
    assert save_table(measured).splitlines()[1:] == [
        "copy                                      9.00    2.00    1.00..4.00    1.00",
        "training stands still, async             20.00    2.20    1.10..4.80    1.10",
    ]


@pytest.mark.slow  # a process of its own, two kinds of saves and four steps
@pytest.mark.distributed
def test_every_part_of_a_save_is_measured_in_each_repetition(tmp_path):
    [measured] = run_ranks(measure_saves, 1, folder=str(tmp_path), hidden_size=16, repetitions=1)
    assert len(measured) == 6 and all(len(seconds) == 2 and min(seconds) > 0 for seconds in measured.values())
    for kind in ("sync", "async"):
        [newest] = (tmp_path / kind / "checkpoints").iterdir()
        assert newest.name == "step_00000002"
