"""Write raw shards of every supported format, and archives of them, and read their documents."""

import bz2
import gzip
import io
import json
import lzma
import tarfile
import tracemalloc
from pathlib import Path

import pyarrow
import pyarrow.parquet
import zstandard

from data_prep.documents.document_rules import DocumentRules
from data_prep.documents.raw_shards import RawFile, read_documents

COMPRESSORS = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.ZstdCompressor(write_checksum=True).compress,
}
COMPRESSED = [suffix for suffix in COMPRESSORS if suffix]
FORMATS = [kind + compression for kind in (".txt", ".jsonl") for compression in COMPRESSORS] + [".parquet"]


def write_raw_shard(path: Path, documents: list[str]) -> Path:
    """Write `documents` in the format that the suffix of `path` names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        path.write_bytes(parquet(documents))
        return path
    rows = any(suffix in path.name.lower() for suffix in (".json", ".ndjson"))
    text = jsonl(documents) if rows else blank_line_separated(documents)
    path.write_bytes(COMPRESSORS.get(path.suffix.lower(), bytes)(text.encode()))
    return path


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    """Write an archive, compressed as the suffix of `path` says."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for name, member in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(member)
            archive.addfile(entry, io.BytesIO(member))
    path.write_bytes(COMPRESSORS.get(path.suffix, bytes)(content.getvalue()))
    return path


def parquet(documents: list[str | None]) -> bytes:
    content = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"text": documents}), content)
    return content.getvalue()


def blank_line_separated(documents: list[str]) -> str:
    return "".join(f"{document}\n\n" for document in documents)


def jsonl(documents: list[str]) -> str:
    return "".join(json.dumps({"text": document}) + "\n" for document in documents)


def documents_of(path: Path, **rules) -> list[str]:
    """Read the documents of a raw shard by DocumentRules(**rules)."""
    return list(read_documents(RawFile(path), DocumentRules(**rules)))


def count_characters(raw_file: RawFile) -> tuple[int, int]:
    """Read a whole raw shard; return its number of characters, and the peak memory in bytes that reading took."""
    tracemalloc.start()
    num_characters = sum(len(document) for document in read_documents(raw_file))
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return num_characters, peak_bytes
