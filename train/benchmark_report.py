"""A benchmark's rows as tables for the screen and as a CSV file."""

import csv
import io
from dataclasses import asdict, fields
from itertools import groupby
from pathlib import Path

from data_prep.atomic_file import atomic_file
from train.benchmark_rows import Row, Spread

_COLUMNS = (
    f"{'variant':24}{'forward':>9}{'backward':>10}{'both':>9}{'p10..p90':>17}{'x dense':>9}{'p10..p90':>13}"
    f"{'tokens/s':>11}{'peak MiB':>10}{'(forward)':>11}{'sent MiB':>10}{'(least)':>9}{'dropped':>9}{'matmul':>8}"
)
LEGEND = """\
Times are milliseconds, medians of the repetitions; both: forward and backward together; x dense: divided by the dense
layer's time in the same repetition. Peak: memory per rank beyond weights and inputs, weight gradients included;
(forward): of a forward pass alone. Sent: bytes to other ranks by both passes, counted, mean over ranks; (least): what
these routes need. Matmul: useful arithmetic per second, as a share of one matmul's [tokens, d] @ [d, D] in this run."""


def tables(rows: list[Row]) -> str:
    """One table per case, with a header that says what was measured."""
    by_case = groupby(rows, key=lambda row: (row.ep_size, row.num_experts, row.tokens_per_rank))
    return "\n\n".join(_table(list(group)) for _, group in by_case) + "\n\n" + LEGEND


def _table(rows: list[Row]) -> str:
    first = rows[0]
    header = (
        f"ep_size {first.ep_size}, {first.num_experts} experts, {first.tokens_per_rank:,} tokens per rank; "
        f"fullest expert {first.load:.2f} times the mean; plans made in {first.plan.median:.2f} ms "
        f"({_range(first.plan, 2)}); one matmul: {first.matmul_teraflops:.3g} TFLOP/s"
    )
    return "\n".join([header, _COLUMNS, *(_line(row) for row in rows), *_synchronisations(rows)])


def _line(row: Row) -> str:
    return (
        f"{row.variant:24}{row.forward.median:9.2f}{row.backward.median:10.2f}{row.total.median:9.2f}"
        f"{_range(row.total, 2):>17}{row.ratio.median:9.2f}{_range(row.ratio, 2):>13}{row.tokens_per_second:11,.0f}"
        f"{row.peak:10.1f}{row.forward_peak:11.1f}{row.sent:10.2f}{row.sent_bound:9.2f}{row.dropped:9.1%}"
        f"{row.matmul_share:8.1%}"
    )


def _range(spread: Spread, digits: int) -> str:
    return f"{spread.p10:.{digits}f}..{spread.p90:.{digits}f}"


def _synchronisations(rows: list[Row]) -> list[str]:
    """On a GPU, which variants make the host wait for it, and where first."""
    tried = [row for row in rows if row.synchronises is not None]
    return [f"{row.variant:24}{row.synchronises or 'never makes the host wait for the GPU'}" for row in tried]


def write_csv(path: str | Path, rows: list) -> None:
    """Rows of one dataclass; a Spread becomes three columns, NAME, NAME_p10 and NAME_p90."""
    text = io.StringIO()
    records = [_flat(row) for row in rows]
    writer = csv.DictWriter(text, fieldnames=list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    with atomic_file(path) as file:
        file.write(text.getvalue().encode())


def _flat(row) -> dict:
    record = {}
    for spec in fields(row):
        value = getattr(row, spec.name)
        if isinstance(value, Spread):
            record |= {spec.name if k == "median" else f"{spec.name}_{k}": f"{v:.6g}" for k, v in asdict(value).items()}
        else:
            record[spec.name] = f"{value:.6g}" if isinstance(value, float) else value
    return record
