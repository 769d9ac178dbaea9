"""Write raw shards of every supported format from a list of documents."""

import gzip
import json
import lzma
from pathlib import Path

import pyarrow
import pyarrow.parquet
import zstandard

COMPRESSORS = {
    "": bytes,
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.ZstdCompressor(write_checksum=True).compress,
}
FORMATS = [kind + compression for kind in (".txt", ".jsonl") for compression in COMPRESSORS] + [".parquet"]


def write_raw_shard(path: Path, documents: list[str]) -> Path:
    """Write `documents` in the format that the suffix of `path` names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.table({"text": documents}), path)
        return path
    text = jsonl(documents) if ".jsonl" in path.name else blank_line_separated(documents)
    path.write_bytes(COMPRESSORS.get(path.suffix, bytes)(text.encode()))
    return path


def blank_line_separated(documents: list[str]) -> str:
    return "".join(f"{document}\n\n" for document in documents)


def jsonl(documents: list[str]) -> str:
    return "".join(json.dumps({"text": document}) + "\n" for document in documents)
