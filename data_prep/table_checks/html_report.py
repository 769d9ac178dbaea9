"""The measurements of check_table as one page of HTML that needs no other file."""

import html

from matplotlib.figure import Figure

from data_prep.counts.drift import Drift
from data_prep.table_checks.held_out_load import NUM_SAMPLES
from data_prep.table_checks.html_page import html_picture, html_table, page
from data_prep.table_checks.table_check import TableCheck
from data_prep.tables.expert_load import max_over_mean, rank_load
from data_prep.tables.route_table_file import INTEGER_FIELDS, TEXT_FIELDS


def html_report(check: TableCheck, beside: TableCheck | None, drift: Drift | None, figures: dict[str, Figure]) -> str:
    """Return the page with the `figures` of check_figures; `beside` is another table to compare with."""
    title = f"Route table {check.name}"
    return page(title, [f"<h1>{html.escape(title)}</h1>", *table_sections(check, beside, drift, figures)])


def table_sections(
    check: TableCheck, beside: TableCheck | None, drift: Drift | None, figures: dict[str, Figure]
) -> list[str]:
    """Return the page's parts below its heading."""
    return [
        f'<p class="verdict">{_verdict(check)}</p>',
        "<h2>Load on the whole data set</h2>",
        _layer_table([check] if beside is None else [check, beside]),
        html_picture(figures["load_per_expert"], "Load of each expert, sorted; the dashed line is perfect balance."),
        "<h2>Load in a batch</h2>",
        "<p>A step waits for the fullest expert or rank of its batch. Batches are made of contexts drawn at random; "
        "<i>worst possible</i> is the batch made of the contexts that load one expert, or rank, most: memory for its "
        "tokens is enough for any order of the data.</p>",
        _batch_table(check),
        html_picture(figures["imbalance_by_batch"], "Load imbalance against batch size."),
        "<h2>Drift</h2>",
        _drift(drift),
        "<h2>How the table was made</h2>",
        _provenance(check),
    ]


def _verdict(check: TableCheck) -> str:
    table = check.table
    return (
        f"On {check.num_tokens:,} tokens of <span class=mono>{html.escape(check.data)}</span> the fullest of "
        f"{table.num_experts} experts gets <b>{check.max_over_mean:.3f}</b> times the mean; the lower bound of any "
        f"table of {table.hash_key} keys is {check.lower_bound:.3f}. The fullest of {check.ep_size} ranks gets "
        f"<b>{check.rank_max_over_mean:.3f}</b> times the mean."
    )


def _layer_table(checks: list[TableCheck]) -> str:
    rows = []
    for check in checks:
        for layer, load_E in enumerate(check.load_LE):
            predicted_E = check.table.load[layer]
            predicted = f"{max_over_mean(predicted_E):.4f}" if predicted_E.any() else "-"
            ranks = max_over_mean(rank_load(load_E, check.ep_size))
            fullest = f"{load_E.argmax()} ({load_E.max() / load_E.sum():.2%})"
            cells = (predicted, f"{max_over_mean(load_E):.4f}", f"{check.lower_bound:.4f}", f"{ranks:.4f}", fullest)
            rows.append([html.escape(f"{check.name}, layer {layer}"), *cells])
    heads = ("table", "predicted", "measured", "lower bound", "ranks", "fullest expert (share)")
    return html_table("imbalance, max/mean, of experts and of ranks", heads, rows)


def _batch_table(check: TableCheck) -> str:
    heads = ("tokens", "mean", "p99", "worst drawn", "worst possible", "rank mean", "rank p99", "rank worst possible")
    names = ("mean", "p99", "worst", "worst_possible", "rank_mean", "rank_p99", "rank_worst_possible")
    rows = [[f"{batch.batch_tokens:,}", *(f"{getattr(batch, name):.3f}" for name in names)] for batch in check.batches]
    return html_table(f"imbalance, max/mean, of {NUM_SAMPLES:,} batches per size, table {check.layer}", heads, rows)


def _drift(drift: Drift | None) -> str:
    if drift is None:
        return "<p>Not measured: give the counted corpus with <span class=mono>--against</span>.</p>"
    rows = [[str(key), f"{share:.3%}", f"{other:.3%}", f"{share - other:+.3%}"] for key, share, other in drift.top]
    return (
        f"<p>{drift.distance:.2%} of the tokens would need another key for the counts to agree with the counted "
        f"corpus; {drift.unseen:.3%} have a key that was never counted.</p>"
        + html_table("the greatest changes", ("key", "share here", "share as counted", "change"), rows)
    )


def _provenance(check: TableCheck) -> str:
    table = check.table
    names = [*TEXT_FIELDS, *INTEGER_FIELDS, "num_tables", "num_hashes", "top_k", "rotation_period", "num_tokens"]
    names += ["digest", "split_digest"] if table.split else ["digest"]
    rows = [[name, f'<span class="mono">{html.escape(str(getattr(table, name)))}</span>'] for name in names]
    return html_table("from the file's metadata", ("field", "value"), rows)
