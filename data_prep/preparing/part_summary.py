"""What became of each part of a corpus: documents, tokens, and what was left out."""

from dataclasses import dataclass
from pathlib import Path

from data_prep.preparing.corpus import Corpus
from data_prep.shards.manifest import read_manifest
from data_prep.tokenizing.sources import read_sources
from data_prep.tokenizing.summary import num_bytes

HEADS = ("part", "epochs", "files", "documents", "empty", "tokens", "unknown", "bytes/token", "records skipped")


@dataclass(frozen=True)
class PartSummary:
    """One finished part."""

    name: str
    epochs: str
    num_files: int
    num_bytes: int  # of the raw files as they are stored; 0 if unknown
    num_documents: int
    num_empty: int  # documents without text, which were left out
    num_tokens: int
    num_unknown: int  # tokens for text that the tokenizer cannot spell
    num_skipped: int  # unreadable records

    def cells(self) -> tuple[str, ...]:
        """Return the values under HEADS."""
        per_token = f"{self.num_bytes / self.num_tokens:.2f}" if self.num_bytes and self.num_tokens else "?"
        counts = (self.num_files, self.num_documents, self.num_empty, self.num_tokens, self.num_unknown)
        return self.name, self.epochs, *(f"{count:,}" for count in counts), per_token, f"{self.num_skipped:,}"


def summarize_parts(corpus: Corpus, output: Path) -> list[PartSummary]:
    return [_summarize(output / part.name, str(part.epochs)) for part in corpus.parts]


def summary_lines(parts: list[PartSummary]) -> str:
    """Return a table in text."""
    rows = [HEADS, *(part.cells() for part in parts)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADS))]
    return "\n".join(
        "  ".join(cell.ljust(width) if column == 0 else cell.rjust(width) for column, (cell, width) in enumerate(pairs))
        for pairs in (list(zip(row, widths, strict=True)) for row in rows)
    )


def _summarize(folder: Path, epochs: str) -> PartSummary:
    manifest = read_manifest(folder)
    sources = read_sources(folder, manifest)
    return PartSummary(
        name=folder.name,
        epochs=epochs,
        num_files=len({each.part.source for each in sources}),
        num_bytes=sum(map(num_bytes, sources)),
        num_documents=manifest.num_documents,
        num_empty=sum(each.num_empty for each in sources),
        num_tokens=manifest.num_tokens,
        num_unknown=sum(each.num_unknown for each in sources),
        num_skipped=sum(len(each.skipped) for each in sources),
    )
