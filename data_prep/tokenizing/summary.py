"""What tokenizing made of the raw text: one line in all, and a table with a line per raw shard or folder of them."""

from collections import defaultdict
from pathlib import Path

from data_prep.shards.manifest import Manifest
from data_prep.tokenizing.sources import Source, read_sources

MOST_LINES = 20
COLUMNS = ("documents", "empty", "skipped", "unknown", "tokens", "raw bytes/token")


def summary(manifest: Manifest, *, seconds: float) -> str:
    """Return one line: the content of the folder, and the time that it took."""
    return (
        f"{manifest.num_documents:,} documents, {manifest.num_tokens:,} tokens in {len(manifest.shards)} shards, "
        f"{seconds:,.0f} s"
    )


def source_table(folder: str | Path, manifest: Manifest) -> str:
    """Return a table of a finished folder's raw shards; of their folders, if there are more than MOST_LINES of them.

    Empty documents have no text; unknown tokens stand for text that the tokenizer cannot spell. sources.jsonl names
    the skipped records.
    """
    sources = read_sources(Path(folder), manifest)
    rows = _rows(sources, lambda source: source.part.source)
    if len(rows) > MOST_LINES:
        rows = _rows(sources, lambda source: source.part.source.rpartition("/")[0] + "/")
    lines = [_line(name, cells) for name, cells in rows.items()]
    hidden = [f"... and {len(lines) - MOST_LINES} more folders (sources.jsonl)"] if len(lines) > MOST_LINES else []
    return "\n".join([_line("raw text", COLUMNS), *lines[:MOST_LINES], *hidden])


def warnings(manifest: Manifest) -> list[str]:
    """Return what is suspicious about a finished folder, one sentence each."""
    if manifest.num_documents:
        return []
    return ["none of the raw shards has any text: the token shards are empty; check the input and --text_field"]


def _rows(sources: list[Source], name_of) -> dict[str, tuple[str, ...]]:
    groups: dict[str, list[Source]] = defaultdict(list)
    for source in sources:
        groups[name_of(source)].append(source)
    return {name: _cells(group) for name, group in groups.items()}


def _cells(sources: list[Source]) -> tuple[str, ...]:
    num_documents, num_empty, num_unknown, num_tokens = (
        sum(getattr(source, name) for source in sources)
        for name in ("num_documents", "num_empty", "num_unknown", "num_tokens")
    )
    num_skipped, size = (sum(map(of, sources)) for of in (lambda source: len(source.skipped), num_bytes))
    rate = f"{size / num_tokens:.2f}" if size and num_tokens else "-"
    return (*(f"{number:,}" for number in (num_documents, num_empty, num_skipped, num_unknown, num_tokens)), rate)


def num_bytes(source: Source) -> int:
    """Bytes of the raw file or range; 0 for a data set."""
    identity = source.part.identity
    return identity["end"] - identity["start"] if "end" in identity else identity.get("num_bytes", 0)


def _line(name: str, cells: tuple[str, ...]) -> str:
    shown = name if len(name) <= 40 else "..." + name[-37:]
    return f"{shown:40}" + "".join(f"{cell:>16}" for cell in cells)
