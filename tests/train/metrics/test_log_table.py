"""The columns of the log's table stand under their titles."""

import re
from dataclasses import replace

import pytest

from train.metrics.log_table import table_head, table_row
from train.metrics.records import TrainRecord

RECORD = TrainRecord(
    step=20, tokens=640, loss=5.1234, perplexity=168.0, tokens_per_second=12345.0, batch_wait_share=0.0,
    gradient_norm=1.0, imbalance=1.2, predicted_imbalance=1.1, rank_imbalance=1.05, peak_memory_bytes=500 * 2**20,
    dropped_share=None, routing_entropy=None, auxiliary_loss=None, learning_rate=1e-3,
)  # fmt: skip
DENSE = dict.fromkeys(["imbalance", "predicted_imbalance", "rank_imbalance"])


def right_edges(line: str) -> list[int]:
    """Where each column ends; columns are at least two spaces apart."""
    return [match.end() for match in re.finditer(r"\S+( \S+)*", line)]


@pytest.mark.parametrize(
    "changed",
    [{}, DENSE, {"loss": 10.8249}, {"gradient_norm": None}],
    ids=["sparse", "dense", "loss above 10", "no norm"],
)
def test_cells_stand_under_their_titles(changed):
    assert right_edges(table_row(replace(RECORD, **changed))) == right_edges(table_head())


def test_the_row_of_a_record():
    cells = re.split(r"  +", table_row(RECORD).strip())
    assert cells == ["20", "5.1234", "168.00", "12,345", "1.00e-03", "1.00", "1.20 (1.10)", "1.05", "500 M"]
