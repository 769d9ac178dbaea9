"""Read the documents of one raw shard: .txt, .jsonl or .parquet, plain or compressed, or a .tar of such files."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from data_prep.documents.archives import tar_members
from data_prep.documents.decompress import DECOMPRESSORS, decompressed, read_blocks
from data_prep.documents.document_rules import DocumentRules, Parts
from data_prep.documents.lines import group_lines
from data_prep.documents.rows import group_rows, json_rows, parquet_rows
from data_prep.documents.skipped import SkippedRecords
from data_prep.documents.text_chunks import read_chunks

SUFFIXES = (".txt", ".jsonl", ".parquet", ".tar")
MOST_BYTES_IN_MEMORY = 2**26  # of a .parquet in a stream; a longer one is written to a temporary file


def read_parts(path: Path, rules: DocumentRules, skipped: SkippedRecords, on_read: Callable[[int], None]) -> Parts:
    """Yield parts of documents in order: (text, whether it ends its document), with LF as line end.

    `on_read` is called with the number of bytes read since its last call. DamagedShard for a file that cannot be read
    to its end, ValueError for an unreadable record if `skipped` is full. Memory holds a chunk of a .txt, one row of a
    .jsonl, one batch of rows of a .parquet.
    """
    kind, compressions = split_suffix(path.name)
    if kind == ".parquet" and not compressions:
        return _parts_of_parquet_file(path, rules, skipped, on_read)
    return _parts(path.name, read_blocks(path, on_read), rules, skipped)


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


def _parts(name: str, blocks: Iterator[bytes], rules: DocumentRules, skipped: SkippedRecords) -> Parts:
    kind, compressions = split_suffix(name)
    for suffix in compressions:
        blocks = decompressed(skipped.label, blocks, suffix)
    if kind == ".txt":
        return group_lines(read_chunks(blocks, skipped), rules)
    if kind == ".jsonl":
        return group_rows(json_rows(blocks, rules.text_field, skipped), rules)
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


def _parts_of_parquet_file(path, rules, skipped, on_read) -> Parts:
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
