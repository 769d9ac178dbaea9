"""What became of each part of a corpus: documents, tokens, and what was left out."""

from dataclasses import dataclass
from pathlib import Path

from data_prep.preparing.corpus import Corpus
from data_prep.shards.manifest import read_manifest

HEADS = ("part", "epochs", "files", "documents", "tokens", "records skipped")


@dataclass(frozen=True)
class PartSummary:
    """One finished part."""

    name: str
    epochs: str
    num_files: int
    num_documents: int
    num_tokens: int
    num_skipped: int  # unreadable records

    def cells(self) -> tuple[str, ...]:
        """Return the values under HEADS."""
        numbers = (self.num_files, self.num_documents, self.num_tokens, self.num_skipped)
        return self.name, self.epochs, *(f"{number:,}" for number in numbers)


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
    return PartSummary(
        name=folder.name,
        epochs=epochs,
        num_files=len(manifest.shards),
        num_documents=manifest.num_documents,
        num_tokens=manifest.num_tokens,
        num_skipped=sum(len(shard.skipped) for shard in manifest.shards),
    )
