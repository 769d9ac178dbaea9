"""The report of a prepared corpus: one page of HTML with its parts, its tokens, its validation data and its table."""

import html
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_prep.counts.counts_file import Counts
from data_prep.counts.drift import Drift
from data_prep.encoding.tokenizer import load_tokenizer
from data_prep.preparing.part_summary import HEADS, PartSummary
from data_prep.preparing.validation import Validation
from data_prep.shards.mixture import Mixture, read_mixture
from data_prep.shards.tokenizer_files import TOKENIZER_FOLDER
from data_prep.storage.atomic_file import atomic_file
from data_prep.table_checks.html_page import html_table, page
from data_prep.table_checks.table_check import TableCheck

REPORT_NAME = "report.html"
MAX_FREQUENT = 10


@dataclass(frozen=True)
class Findings:
    """Everything that the report shows."""

    parts: list[PartSummary]
    counts: Counts
    validation: Validation
    next_command: str
    check: TableCheck | None  # None: no table was built, or there is not one context to measure it on
    drift: Drift | None  # between the counted tokens and those of the check


def write_report(output: Path, findings: Findings) -> Path:
    """Write <output>/report.html; equal findings give equal bytes."""
    path = output / REPORT_NAME
    with atomic_file(path) as file:
        file.write(page(f"Corpus {output}", _sections(output, findings)).encode())
    return path


def _sections(output: Path, findings: Findings) -> list[str]:
    mixture = read_mixture(output)
    rows = [[html.escape(cell) for cell in part.cells()] for part in findings.parts]
    return [
        f"<h1>Corpus {html.escape(str(output))}</h1>",
        f'<p class="verdict">{findings.counts.num_tokens:,} tokens per epoch.</p>',
        html_table("epochs: passes over a part per epoch of the whole", HEADS, rows),
        "<h2>Validation</h2>",
        f"<p>{html.escape(findings.validation.sentence)}.</p>",
        "<h2>Tokens</h2>",
        html_table("the tokenizer", ("field", "value"), _tokenizer_rows(mixture)),
        html_table("the most frequent tokens", ("id", "text", "share"), _frequent_rows(mixture, findings.counts)),
        *_table_sections(findings),
        "<h2>Train</h2>",
        f'<p class="mono">{html.escape(findings.next_command)}</p>',
    ]


def _table_sections(findings: Findings) -> list[str]:
    if findings.check is None:
        return []
    # matplotlib takes a second to import
    from data_prep.table_checks.figures import check_figures
    from data_prep.table_checks.html_report import table_sections

    measured = "the tokens that it was built from" if findings.validation.data is None else "held-out text"
    sections = table_sections(findings.check, None, findings.drift, check_figures(findings.check, None))
    return ["<h2>Route table</h2>", f"<p>It was measured on {measured}.</p>", *sections]


def _tokenizer_rows(mixture: Mixture) -> list[tuple[str, str]]:
    facts = {
        "digest": mixture.tokenizer_digest,
        "token ids": f"{mixture.vocab_size:,}",
        "end token": f"{mixture.end_token} (id {mixture.end_token_id})",
    }
    return [(name, f'<span class="mono">{html.escape(value)}</span>') for name, value in facts.items()]


def _frequent_rows(mixture: Mixture, counts: Counts) -> list[tuple[str, str, str]]:
    tokenizer = load_tokenizer(mixture.streams[0].folder / TOKENIZER_FOLDER)
    most = np.argsort(-counts.counts, kind="stable")[:MAX_FREQUENT].tolist()
    texts = [repr(tokenizer.decode([id_], skip_special_tokens=False)) for id_ in most]
    shares = (counts.counts[most] / max(counts.num_tokens, 1)).tolist()
    return [
        (str(id_), f'<span class="mono">{html.escape(text)}</span>', f"{share:.2%}")
        for id_, text, share in zip(most, texts, shares, strict=True)
    ]
