"""Write raw shards of every supported format, and archives of them."""

import gzip
import io
import json
import lzma
import tarfile
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
        path.write_bytes(parquet(documents))
        return path
    text = jsonl(documents) if ".jsonl" in path.name else blank_line_separated(documents)
    path.write_bytes(COMPRESSORS.get(path.suffix, bytes)(text.encode()))
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
