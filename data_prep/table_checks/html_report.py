"""Write what check_table found out as one page of HTML that needs no other file."""

import base64
import html
import io
from pathlib import Path

from matplotlib.figure import Figure

from data_prep.counts.drift import Drift
from data_prep.storage.atomic_file import atomic_file
from data_prep.table_checks.figures import batch_figure, load_figure
from data_prep.table_checks.findings import TableCheck
from data_prep.tables.expert_load import max_over_mean, rank_load

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem; margin-bottom: 0 } h2 { font-size: 1.1rem; margin-top: 2rem } p { max-width: 48rem }
table { border-collapse: collapse; font-variant-numeric: tabular-nums } caption { text-align: left; color: #555 }
th, td { padding: .25rem .8rem; border-bottom: 1px solid #ddd; text-align: right } th { font-weight: 600 }
th:first-child, td:first-child { text-align: left } img { max-width: 100% } .mono { font-family: monospace }
.wide { overflow-x: auto } .verdict { font-size: 1.1rem }
"""


def figures(check: TableCheck, beside: TableCheck | None) -> dict[str, Figure]:
    """Return the pictures by name; the other table, if any, stands to the left as in the paper's Figure 4."""
    checks = [check] if beside is None else [beside, check]
    loads = {each.name: each.load_LE[min(check.layer, len(each.load_LE) - 1)] for each in checks}
    return {
        "load_per_expert": load_figure(loads),
        "imbalance_by_batch": batch_figure({each.name: each.batches for each in checks}, ep_size=check.ep_size),
    }


def report_html(check: TableCheck, beside: TableCheck | None, drift: Drift | None, drawn: dict[str, Figure]) -> str:
    """Return the page."""
    sections = [
        f"<h1>Route table {html.escape(check.name)}</h1>",
        f'<p class="verdict">{_verdict(check)}</p>',
        "<h2>Load on the whole data set</h2>",
        _layer_table([check] if beside is None else [check, beside]),
        _picture(drawn["load_per_expert"], "Load of each expert, sorted; the dashed line is perfect balance."),
        "<h2>Load in a batch</h2>",
        "<p>A step waits for the fullest expert or rank of its batch. Batches are made of contexts drawn at random; "
        "<i>worst possible</i> is the batch made of the contexts that load one expert, or rank, most: memory for so "
        "many rows is enough for any order of the data.</p>",
        _batch_table(check),
        _picture(drawn["imbalance_by_batch"], "Load imbalance against batch size."),
        "<h2>Drift</h2>",
        _drift(drift),
        "<h2>How the table was made</h2>",
        _provenance(check),
    ]
    head = f'<meta charset="utf-8"><title>Route table {html.escape(check.name)}</title><style>{STYLE}</style>'
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n' + "\n".join(sections) + "\n</body></html>\n"
    )


def write_text(path: str | Path, text: str) -> None:
    with atomic_file(path) as file:
        file.write(text.encode())


def _verdict(check: TableCheck) -> str:
    table = check.table
    return (
        f"On {check.num_tokens:,} tokens of <span class=mono>{html.escape(check.data)}</span> the fullest of "
        f"{table.num_experts} experts gets <b>{check.max_over_mean:.3f}</b> times the mean; no table of "
        f"{table.hash_key} keys could get below {check.lower_bound:.3f}. The fullest of {check.ep_size} ranks gets "
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
    heads = ("table", "predicted", "measured", "no table below", "ranks", "fullest expert (share)")
    return _table("max/mean of the experts' load, and of the ranks'", heads, rows)


def _batch_table(check: TableCheck) -> str:
    heads = ("tokens", "mean", "p99", "worst drawn", "worst possible", "rank mean", "rank p99", "rank worst possible")
    rows = [
        [f"{batch.batch_tokens:,}"]
        + [
            f"{value:.3f}"
            for value in (
                batch.mean,
                batch.p99,
                batch.worst,
                batch.worst_possible,
                batch.rank_mean,
                batch.rank_p99,
                batch.rank_worst_possible,
            )
        ]
        for batch in check.batches
    ]
    return _table(f"max/mean of 1,000 batches per size, table {check.layer}", heads, rows)


def _drift(drift: Drift | None) -> str:
    if drift is None:
        return "<p>Not measured: give the counted corpus with <span class=mono>--against</span>.</p>"
    rows = [[str(key), f"{share:.3%}", f"{other:.3%}", f"{share - other:+.3%}"] for key, share, other in drift.top]
    return (
        f"<p>{drift.distance:.2%} of the tokens would have to be others for the keys to occur as often as in the "
        f"counted corpus; {drift.unseen:.3%} have a key that was never counted.</p>"
        + _table("the greatest changes", ("key", "share here", "share as counted", "change"), rows)
    )


def _provenance(check: TableCheck) -> str:
    table = check.table
    names = (
        "method",
        "hash_key",
        "seed",
        "num_experts",
        "num_tables",
        "num_hashes",
        "rotation_period",
        "top_k",
        "ep_size",
        "vocab_size",
    )
    names += ("num_buckets", "context_length", "num_tokens", "tokenizer_digest", "corpus_digest", "digest")
    names += ("split_digest",) if table.split else ()
    rows = [[name, f'<span class="mono">{html.escape(str(getattr(table, name)))}</span>'] for name in names]
    return _table("as the file says", ("field", "value"), rows)


def _table(caption: str, heads: tuple[str, ...], rows: list[list[str]]) -> str:
    head = "".join(f"<th>{name}</th>" for name in heads)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>\n" for row in rows)
    return f'<div class="wide"><table><caption>{caption}</caption><tr>{head}</tr>\n{body}</table></div>'


def _picture(figure: Figure, text: str) -> str:
    content = io.BytesIO()
    figure.savefig(content, format="png", metadata={"Software": None})
    encoded = base64.b64encode(content.getvalue()).decode()
    return f'<figure><img alt="{text}" src="data:image/png;base64,{encoded}"><figcaption>{text}</figcaption></figure>'
