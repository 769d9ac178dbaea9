"""Read the documents of one raw file: .txt, .jsonl or .parquet, plain or compressed, or a .tar of such files."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from data_prep.documents.document_rules import DocumentRules, Parts
from data_prep.documents.files.archives import tar_members
from data_prep.documents.files.byte_ranges import owned_span
from data_prep.documents.files.decompress import LARGEST_INNER_WINDOW, LARGEST_WINDOW, DamagedShard, decompressed
from data_prep.documents.files.include import Include, chosen
from data_prep.documents.files.read_blocks import Digest, read_blocks
from data_prep.documents.files.remote_files import RemoteFile
from data_prep.documents.files.suffixes import MOST_LEVELS, PARQUET, ROWS, TEXT, split_suffix
from data_prep.documents.lines import group_lines
from data_prep.documents.parquet_rows import parquet_rows
from data_prep.documents.rows import group_rows, json_rows
from data_prep.documents.skipped import SkippedRecords
from data_prep.documents.text_chunks import read_chunks

MOST_BYTES_IN_MEMORY = 2**26  # of a .parquet in a stream; a longer one is written to a temporary file
SPARED_BYTES = 2**28  # of the temporary files' disk, for other programs
PARQUET_MAGIC = b"PAR1"


@dataclass(frozen=True)
class Reader:
    """Reads raw files by the same rules."""

    rules: DocumentRules
    include: Include = ()  # the members of archives to read

    def file_parts(
        self,
        path: Path | RemoteFile,
        skipped: SkippedRecords,
        on_read: Callable[[int], None],
        *,
        start: int = 0,
        end: int | None = None,
        digest: Digest | None = None,
    ) -> Parts:
        """Yield parts of documents in order: (text, whether it ends its document), with LF as line end.

        start, end: a byte range, if can_be_cut; its borders move as data_prep/documents/files/byte_ranges.py says.
        `on_read` is called with the number of bytes read since its last call; `digest` is updated with all bytes in
        order. DamagedShard for a file that cannot be read to its end, ValueError for an unreadable record if `skipped`
        is full. Memory holds a chunk of a .txt, one row of a .jsonl, one batch of rows of a .parquet.
        """
        kind, compressions = split_suffix(path.name)
        if kind == PARQUET and not compressions:
            return self._parquet_file_parts(path, skipped, on_read, digest)
        first, last = 0, None
        if (start, end) != (0, None):
            ends_at_blank_line = kind == TEXT and self.rules.document_rule != "line"
            first, last = owned_span(path, start, end, after_blank_line=ends_at_blank_line)
        blocks = read_blocks(path, on_read, digest=digest, first=first, last=last)
        return self._parts(path.name, blocks, skipped, offset=first)

    def _parts(
        self, name: str, blocks: Iterator[bytes], skipped: SkippedRecords, *, offset: int = 0, level: int = 0
    ) -> Parts:
        """level: the number of archives and compressions around the file."""
        kind, compressions = split_suffix(name)
        if level + len(compressions) >= MOST_LEVELS:
            raise ValueError(
                f"{skipped.label} lies within {MOST_LEVELS} archives and compressions; extract some of them"
            )
        for suffix in compressions:
            window = LARGEST_INNER_WINDOW if level else LARGEST_WINDOW
            blocks, level = decompressed(skipped.label, blocks, suffix, largest_window=window), level + 1
        if kind == TEXT:
            chunks = read_chunks(blocks, skipped, offset=offset)
            return group_lines(chunks, self.rules, label=skipped.label)
        if kind == ROWS:
            return group_rows(json_rows(blocks, self.rules.text_field, skipped, offset=offset), self.rules)
        if kind == PARQUET:
            return self._parquet_stream_parts(blocks, skipped)
        return self._archive_parts(blocks, skipped, level=level + 1)

    def _archive_parts(self, blocks: Iterator[bytes], skipped: SkippedRecords, *, level: int) -> Parts:
        for name, content in tar_members(skipped.label, blocks):
            include = chosen(name, self.include)
            if include is None:
                continue
            ends_document, inside, reader = True, skipped.inside(name), replace(self, include=include)
            for text, ends_document in reader._parts(inside.label, content, inside, level=level):
                yield text, ends_document
            if not ends_document:
                yield "", True

    def _parquet_file_parts(self, path, skipped, on_read, digest) -> Parts:
        if digest is not None:  # parquet is read from its end, and not all of it
            for _ in read_blocks(path, lambda num_bytes: None, digest=digest):
                pass
        with path.open("rb") as file:
            num_bytes = file.seek(0, os.SEEK_END)
            rows = parquet_rows(file, self.rules.text_field, skipped, on_read=on_read, num_bytes=num_bytes)
            yield from group_rows(rows, self.rules)

    def _parquet_stream_parts(self, blocks: Iterator[bytes], skipped: SkippedRecords) -> Parts:
        """Parquet is read from its end, so the whole file must be there first."""
        with tempfile.SpooledTemporaryFile(MOST_BYTES_IN_MEMORY) as file:
            _copy_parquet(blocks, file, skipped.label)
            rows = parquet_rows(file, self.rules.text_field, skipped, on_read=lambda num_bytes: None, num_bytes=0)
            yield from group_rows(rows, self.rules)


def _copy_parquet(blocks: Iterator[bytes], file: BinaryIO, label: str) -> None:
    """Write the blocks to a temporary file; refuse other formats, and a file that would fill the disk."""
    start, folder, num_bytes = b"", tempfile.gettempdir(), 0
    for block in blocks:
        if len(start) < len(PARQUET_MAGIC):
            start = (start + block)[: len(PARQUET_MAGIC)]
            if not PARQUET_MAGIC.startswith(start):
                raise DamagedShard.near("byte 0 of its content", label, "it is no parquet file")
        num_bytes += len(block)
        if num_bytes > MOST_BYTES_IN_MEMORY and (free := shutil.disk_usage(folder).free) < SPARED_BYTES:
            raise ValueError(
                f"{label} is written to {folder}, which has {free:,} bytes left after {num_bytes:,} of it; extract it "
                "yourself, or name a folder of a larger disk in TMPDIR"
            )
        file.write(block)


def can_be_cut(name: str, rules: DocumentRules) -> bool:
    """Whether a file can be read in byte ranges: it is plain, and every line, or every blank line, ends a document."""
    kind, compressions = split_suffix(name)
    if compressions or rules.lines_per_document > 1 or rules.document_rule == "wikitext":
        return False
    return kind == TEXT or (kind == ROWS and rules.document_rule != "blank_line")
