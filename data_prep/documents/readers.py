"""Read the documents of one raw shard: .txt, .jsonl or .parquet, plain or compressed, or a .tar of such files."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from data_prep.documents.archives import tar_members
from data_prep.documents.decompress import DECOMPRESSORS, decompressed
from data_prep.documents.document_rules import DocumentRules, Parts
from data_prep.documents.files.byte_ranges import owned_span
from data_prep.documents.files.read_blocks import Digest, read_blocks
from data_prep.documents.lines import group_lines
from data_prep.documents.rows import group_rows, json_rows, parquet_rows
from data_prep.documents.skipped import SkippedRecords
from data_prep.documents.text_chunks import read_chunks

SUFFIXES = (".txt", ".jsonl", ".parquet", ".tar")
MOST_BYTES_IN_MEMORY = 2**26  # of a .parquet in a stream; a longer one is written to a temporary file


def read_parts(
    path: Path,
    rules: DocumentRules,
    skipped: SkippedRecords,
    on_read: Callable[[int], None],
    *,
    start: int = 0,
    end: int | None = None,
    digest: Digest | None = None,
) -> Parts:
    """Yield parts of documents in order: (text, whether it ends its document), with LF as line end.

    start, end: a byte range, if can_be_cut; its borders move as data_prep/documents/files/byte_ranges.py says.
    `on_read` is called with the number of bytes read since its last call; `digest` is updated with all bytes in order.
    DamagedShard for a file that cannot be read to its end, ValueError for an unreadable record if `skipped` is full.
    Memory holds a chunk of a .txt, one row of a .jsonl, one batch of rows of a .parquet.
    """
    kind, compressions = split_suffix(path.name)
    if kind == ".parquet" and not compressions:
        return _parts_of_parquet_file(path, rules, skipped, on_read, digest)
    first, last = 0, None
    if (start, end) != (0, None):
        first, last = owned_span(path, start, end, after_blank_line=kind == ".txt" and rules.document_rule != "line")
    blocks = read_blocks(path, on_read, digest=digest, first=first, last=last)
    return _parts(path.name, blocks, rules, skipped, offset=first)


def can_be_cut(name: str, rules: DocumentRules) -> bool:
    """Whether a file can be read in byte ranges: it is plain, and no document begins in the middle of a line."""
    kind, compressions = split_suffix(name)
    if compressions or rules.lines_per_document > 1:
        return False
    return kind == ".txt" or (kind == ".jsonl" and rules.document_rule != "blank_line")


def split_suffix(name: str) -> tuple[str, list[str]]:
    """Return the format of a file and its compressions, outermost first; ValueError for an unknown suffix."""
    compressions = []
    kind = "." + name.rpartition(".")[2]
    while kind in DECOMPRESSORS:
        compressions.append(kind)
        name = name.removesuffix(kind)
        kind = "." + name.rpartition(".")[2]
    if kind not in SUFFIXES:
        raise ValueError(
            f"{name} has no supported suffix ({', '.join(SUFFIXES)}, alone or with {', '.join(DECOMPRESSORS)}); "
            "rename it, convert it or move it away"
        )
    return kind, compressions


def _parts(
    name: str, blocks: Iterator[bytes], rules: DocumentRules, skipped: SkippedRecords, *, offset: int = 0
) -> Parts:
    kind, compressions = split_suffix(name)
    for suffix in compressions:
        blocks = decompressed(skipped.label, blocks, suffix)
    if kind == ".txt":
        return group_lines(read_chunks(blocks, skipped, offset=offset), rules)
    if kind == ".jsonl":
        return group_rows(json_rows(blocks, rules.text_field, skipped, offset=offset), rules)
    if kind == ".parquet":
        return _parts_of_parquet_stream(blocks, rules, skipped)
    return _parts_of_tar(blocks, rules, skipped)


def _parts_of_tar(blocks: Iterator[bytes], rules: DocumentRules, skipped: SkippedRecords) -> Parts:
    for name, content in tar_members(skipped.label, blocks):
        ends_document, inside = True, skipped.inside(name)
        for text, ends_document in _parts(inside.label, content, rules, inside):
            yield text, ends_document
        if not ends_document:
            yield "", True


def _parts_of_parquet_file(path, rules, skipped, on_read, digest) -> Parts:
    if digest is not None:  # parquet is read from its end, and not all of it
        for _ in read_blocks(path, lambda num_bytes: None, digest=digest):
            pass
    with open(path, "rb") as file:
        rows = parquet_rows(file, rules.text_field, skipped, on_read=on_read, num_bytes=path.stat().st_size)
        yield from group_rows(rows, rules)


def _parts_of_parquet_stream(blocks: Iterator[bytes], rules: DocumentRules, skipped: SkippedRecords) -> Parts:
    """Parquet is read from its end, so the whole file must be there first."""
    with tempfile.SpooledTemporaryFile(MOST_BYTES_IN_MEMORY) as file:
        for block in blocks:
            file.write(block)
        rows = parquet_rows(file, rules.text_field, skipped, on_read=lambda num_bytes: None, num_bytes=0)
        yield from group_rows(rows, rules)
