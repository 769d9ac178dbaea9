"""The table that a run prints: one row per line of the log."""

from collections.abc import Callable

from train.metrics.records import TrainRecord

# Width and cell of each column, by its title.
_COLUMNS: dict[str, tuple[int, Callable[[TrainRecord], str]]] = {
    "step": (8, lambda record: f"{record.step}"),
    "loss": (7, lambda record: f"{record.loss:.4f}"),
    "ppl": (8, lambda record: f"{record.perplexity:.2f}"),
    "tokens/s": (9, lambda record: f"{record.tokens_per_second:,.0f}"),
    "lr": (8, lambda record: f"{record.learning_rate:.2e}"),
    "|grad|": (6, lambda record: _ratio(record.gradient_norm)),
    "imbalance (predicted)": (21, lambda r: f"{_ratio(r.imbalance)} ({_ratio(r.predicted_imbalance)})"),
    "rank imbalance": (14, lambda record: _ratio(record.rank_imbalance)),
    "memory": (8, lambda record: f"{record.peak_memory_bytes / 2**20:,.0f} M"),
}


def table_head() -> str:
    return "  ".join(f"{title:>{width}}" for title, (width, _) in _COLUMNS.items())


def table_row(record: TrainRecord) -> str:
    return "  ".join(f"{cell(record):>{width}}" for width, cell in _COLUMNS.values())


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
