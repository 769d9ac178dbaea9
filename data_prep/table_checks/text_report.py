"""Lines of text on a table: as predicted from its counts, and as measured on other tokens."""

from data_prep.counts.counts_file import Counts
from data_prep.counts.drift import Drift
from data_prep.table_checks.table_check import TableCheck
from data_prep.tables.expert_load import max_over_mean, rank_load
from data_prep.tables.route_table import RouteTable


def table_report(table: RouteTable, counts: Counts, *, most_frequent: str = "") -> str:
    """Return the lines that build_table prints; `most_frequent` is the text of the most frequent token, if known."""
    share = counts.counts.max() / counts.num_tokens
    key = " ".join([f"{counts.hash_key} {counts.counts.argmax()}", *([most_frequent] if most_frequent else [])])
    lines = [
        f"{table.method} table of key {table.hash_key}: {_shape(table)}",
        f"predicted imbalance of experts, max/mean: {table.max_over_mean:.4f} (lower bound {table.lower_bound:.4f})",
        f"predicted imbalance of ranks, max/mean over ep_size={table.ep_size}: {table.rank_max_over_mean:.4f}",
        f"most frequent key: {key}, {share:.2%} of {counts.num_tokens:,} tokens",
    ]
    if table.split is not None:
        lines.append(f"frequent tokens split by the token before them: {len(table.split.split_table)}")
    return "\n".join(lines)


def check_report(check: TableCheck, drift: Drift | None) -> str:
    """Return the lines that check_table prints."""
    return "\n".join(
        [
            f"{check.name}: {_shape(check.table)}",
            f"{check.data}: {check.num_tokens:,} tokens in contexts of {check.context_length}",
            *_layer_lines(check),
            *_batch_lines(check),
            *_drift_lines(drift),
        ]
    )


def _shape(table: RouteTable) -> str:
    num_tables, num_keys, num_columns = table.tables.shape
    shape = f"{num_tables} x {num_keys:,} keys -> {table.num_experts} experts"
    if num_columns == 1:
        return shape
    return (
        shape
        + {
            "hashes": f", {num_columns} hashes",
            "top_k": f", top {num_columns}",
            "rotation": f", rotation period {num_columns}",
        }[table.columns]
    )


def _layer_lines(check: TableCheck) -> list[str]:
    lines = []
    for layer, load_E in enumerate(check.load_LE):
        ranks = max_over_mean(rank_load(load_E, check.ep_size))
        lines.append(
            f"table {layer}: imbalance of experts, max/mean {max_over_mean(load_E):.4f} "
            f"(lower bound {check.lower_bound:.4f}, {_predicted(check, layer)}), of {check.ep_size} ranks {ranks:.4f}"
        )
    return lines


def _predicted(check: TableCheck, layer: int) -> str:
    load_E = check.table.load[layer]
    return f"predicted {max_over_mean(load_E):.4f}" if load_E.any() else "no prediction"


def _batch_lines(check: TableCheck) -> list[str]:
    lines = [
        f"imbalance of batches, max/mean, table {check.layer}:",
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
        return ["drift: not measured; give the counted corpus with --against"]
    key, share, other = drift.top[0]
    return [
        f"drift: {drift.distance:.2%} of the tokens differ, {drift.unseen:.3%} have a key that was never counted",
        f"  greatest change: key {key}, {share:.3%} here, {other:.3%} in the counted corpus",
    ]
