"""Say in lines of text what check_table found out."""

from data_prep.counts.drift import Drift
from data_prep.table_checks.findings import TableCheck
from data_prep.tables.expert_load import max_over_mean, rank_load


def check_text(check: TableCheck, drift: Drift | None) -> str:
    """Return the lines that the command prints."""
    table = check.table
    return "\n".join(
        [
            f"{check.name}: {table.num_tables} x {table.tables.shape[1]:,} keys -> {table.num_experts} experts",
            f"{check.data}: {check.num_tokens:,} tokens in contexts of {check.context_length}",
            *_layer_lines(check),
            *_batch_lines(check),
            *_drift_lines(drift),
        ]
    )


def _layer_lines(check: TableCheck) -> list[str]:
    lines = []
    for layer, load_E in enumerate(check.load_LE):
        ranks = max_over_mean(rank_load(load_E, check.ep_size))
        lines.append(
            f"table {layer}: expert load max/mean {max_over_mean(load_E):.4f} (no table below {check.lower_bound:.4f}; "
            f"{_predicted(check, layer)}), {check.ep_size} ranks {ranks:.4f}"
        )
    return lines


def _predicted(check: TableCheck, layer: int) -> str:
    load_E = check.table.load[layer]
    return f"predicted {max_over_mean(load_E):.4f}" if load_E.any() else "no prediction"


def _batch_lines(check: TableCheck) -> list[str]:
    lines = [
        f"batches of table {check.layer}, max/mean:",
        "  tokens     mean     p99   worst  worst possible   ranks:  mean     p99  worst possible",
    ]
    for batch in check.batches:
        lines.append(
            f"{batch.batch_tokens:8,} {batch.mean:8.3f}{batch.p99:8.3f}{batch.worst:8.3f}{batch.worst_possible:16.3f}"
            f"{batch.rank_mean:15.3f}{batch.rank_p99:8.3f}{batch.rank_worst_possible:16.3f}"
        )
    return lines


def _drift_lines(drift: Drift | None) -> list[str]:
    if drift is None:
        return ["drift and unseen tokens: not measured, give the counted corpus with --against"]
    key, share, other = drift.top[0]
    return [
        f"drift: {drift.distance:.2%} of the tokens differ, {drift.unseen:.3%} have a key that was never counted",
        f"  greatest change: key {key}, {share:.3%} here, {other:.3%} in the other corpus",
    ]
