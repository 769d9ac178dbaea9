"""The rows of the benchmark as tables for the screen and as a CSV file."""

import csv
import io
from collections.abc import Callable
from dataclasses import asdict, fields
from itertools import groupby
from pathlib import Path

from data_prep.storage.atomic_file import atomic_file
from launch.benchmark.quantiles import Quantiles
from launch.benchmark.rows import Row

# Width and cell of each column behind the variant's name, by its title.
_COLUMNS: dict[str, tuple[int, Callable[[Row], str]]] = {
    "forward": (10, lambda row: f"{row.forward.median:.2f}"),
    "backward": (10, lambda row: f"{row.backward.median:.2f}"),
    "both": (10, lambda row: f"{row.total.median:.2f}"),
    "p10..p90": (19, lambda row: str(row.total)),
    "x dense": (9, lambda row: f"{row.ratio.median:.2f}"),
    "floor": (9, lambda row: f"{row.floor:.0f}"),
    "tokens/s": (12, lambda row: f"{row.tokens_per_second:,.0f}"),
    "peak MiB": (10, lambda row: f"{row.peak:.1f}"),
    "(forward)": (10, lambda row: f"{row.forward_peak:.1f}"),
    "sent MiB": (10, lambda row: f"{row.sent:.2f}"),
    "(least)": (8, lambda row: f"{row.sent_bound:.2f}"),
    "dropped": (9, lambda row: f"{row.dropped:.1%}"),
    "matmul": (8, lambda row: f"{row.matmul_share:.1%}"),
}
_OF_SEVERAL_RANKS = ("sent MiB", "(least)")
LEGEND = """\
Times are medians over the repetitions, in milliseconds. both: forward and backward together. x dense: divided by the
dense layer's time in the same repetition. floor: the arithmetic at the rate of one matmul [tokens, d] @ [d, D], plus
writing the gradients of the weights into new memory, both measured in this run. peak: MiB per rank beyond weights and
inputs, gradients of weights included. (forward): the peak of a forward pass alone. sent: MiB to other ranks in both
passes, counted, mean over ranks. (least): MiB that these routes need. matmul: useful arithmetic per second, as a share
of that matmul's."""


def tables(rows: list[Row]) -> str:
    """One table per case, under a header that names the case."""
    by_case = groupby(rows, key=lambda row: (row.ep_size, row.num_experts, row.tokens_per_rank))
    return "\n\n".join(_table(list(group)) for _, group in by_case) + "\n\n" + LEGEND


def _table(rows: list[Row]) -> str:
    first = rows[0]
    header = (
        f"ep_size {first.ep_size}, {first.num_experts} experts, {first.tokens_per_rank:,} tokens per rank; "
        f"imbalance {first.imbalance:.2f}; dispatch plans made in {first.planning.median:.2f} ms ({first.planning}); "
        f"one matmul: {first.matmul_teraflops:.3g} TFLOP/s"
    )
    names = [name for name in _COLUMNS if first.ep_size > 1 or name not in _OF_SEVERAL_RANKS]
    columns = f"{'':24}" + "".join(f"{name:>{_COLUMNS[name][0]}}" for name in names)
    return "\n".join([header, columns, *(_line(row, names) for row in rows), *_synchronizations(rows)])


def _line(row: Row, names: list[str]) -> str:
    cells = (_COLUMNS[name] for name in names)
    return f"{row.variant:24}" + "".join(f"{value(row):>{width}}" for width, value in cells)


def _synchronizations(rows: list[Row]) -> list[str]:
    """On a GPU, where each variant first makes the host wait for it."""
    tried = [row for row in rows if row.synchronizes is not None]
    return [f"{row.variant:24}{row.synchronizes or 'never makes the host wait for the GPU'}" for row in tried]


def write_csv(path: str | Path, rows: list) -> None:
    """Write rows of one dataclass; Quantiles become three columns, NAME, NAME_p10 and NAME_p90."""
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
        if isinstance(value, Quantiles):
            record |= {spec.name if k == "median" else f"{spec.name}_{k}": f"{v:.6g}" for k, v in asdict(value).items()}
        else:
            record[spec.name] = f"{value:.6g}" if isinstance(value, float) else value
    return record
