"""Read the documents of raw shards: .txt and .jsonl, plain or compressed with gz, xz or zst, and .parquet."""

import codecs
import json
from collections.abc import Callable, Iterator
from pathlib import Path

from data_prep.decompress import DECOMPRESSORS, DamagedShard, read_blocks
from data_prep.parquet_documents import parquet_documents

__all__ = ["DOCUMENT_RULES", "DamagedShard", "find_inputs", "read_documents"]

DOCUMENT_RULES = ("auto", "blank_line", "line")
SUFFIXES = (*(kind + compression for kind in (".txt", ".jsonl") for compression in ("", *DECOMPRESSORS)), ".parquet")


def find_inputs(paths: list[str | Path]) -> list[Path]:
    """Return the raw shards among files and folders (searched to any depth), each once.

    The order of `paths` is kept, a folder's files are sorted by relative path; hidden files are left out. ValueError
    where a folder holds none or a file has an unknown suffix: text must not go missing because of its name.
    """
    found: dict[Path, Path] = {}  # where a file really is -> the name it was given by
    for path in map(Path, paths):
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist; give raw shards or folders of them")
        files = _files_in(path) if path.is_dir() else [path]
        for file in files:
            _suffix(file)
            found.setdefault(file.resolve(), file)
    return list(found.values())


def read_documents(
    path: str | Path,
    *,
    text_field: str = "text",
    document_rule: str = "auto",
    on_read: Callable[[int], None] | None = None,
) -> Iterator[str]:
    """Yield the documents of one raw shard, empty ones left out, lines ended by LF.

    `document_rule` concerns .txt alone: "blank_line" (and "auto") ends a document at a blank line, as CC100 does,
    "line" at every line. .jsonl and .parquet hold one document per line or row, in `text_field`. `on_read` is told
    how many bytes of the file were read. Raises DamagedShard for a file that cannot be read to its end, ValueError
    for a row without the field. Holds one document in memory, not the file.
    """
    path, on_read = Path(path), on_read or (lambda num_bytes: None)
    if document_rule not in DOCUMENT_RULES:
        raise ValueError(f"document_rule {document_rule!r} is not one of {', '.join(DOCUMENT_RULES)}")
    suffix = _suffix(path)
    if suffix == ".parquet":
        documents = parquet_documents(path, text_field, on_read)
    elif suffix.startswith(".jsonl"):
        documents = _json_documents(path, text_field, _lines(path, on_read))
    elif document_rule == "line":
        documents = _lines(path, on_read)
    else:
        documents = _paragraph_groups(_lines(path, on_read))
    return (document.replace("\r\n", "\n") for document in documents if document)


def _files_in(folder: Path) -> list[Path]:
    relative = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    visible = [path for path in relative if not any(part.startswith(".") for part in path.parts)]
    if not visible:
        raise ValueError(f"{folder} holds no files; supported are {', '.join(SUFFIXES)}")
    return [folder / path for path in sorted(visible, key=Path.as_posix)]


def _suffix(path: Path) -> str:
    for suffix in SUFFIXES:
        if path.name.endswith(suffix):
            return suffix
    raise ValueError(f"{path} has no supported suffix ({', '.join(SUFFIXES)}); rename, convert or move it away")


def _lines(path: Path, on_read: Callable[[int], None]) -> Iterator[str]:
    """Yield lines without their ends; DamagedShard where one is not UTF-8."""
    offset = 0
    for raw in _split_lines(read_blocks(path, on_read=on_read)):
        line = raw.removeprefix(codecs.BOM_UTF8) if offset == 0 else raw
        try:
            yield line.removesuffix(b"\r").decode()
        except UnicodeDecodeError as error:
            position = offset + len(raw) - len(line) + error.start
            raise DamagedShard.near(f"byte {position} of its text", path, f"invalid UTF-8 ({error.reason})") from error
        offset += len(raw) + 1


def _split_lines(blocks: Iterator[bytes]) -> Iterator[bytes]:
    pending: list[bytes] = []  # the pieces of a line that goes on in the next block
    for block in blocks:
        first, *others = block.split(b"\n")
        pending.append(first)
        for line in others:
            yield b"".join(pending)
            pending = [line]
    yield b"".join(pending)


def _paragraph_groups(lines: Iterator[str]) -> Iterator[str]:
    paragraphs: list[str] = []
    for line in lines:
        if line.strip():
            paragraphs.append(line)
        else:
            yield "\n".join(paragraphs)
            paragraphs = []
    yield "\n".join(paragraphs)


def _json_documents(path: Path, text_field: str, lines: Iterator[str]) -> Iterator[str]:
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield _json_text(line, text_field, where=f"{path}, line {number}")


def _json_text(line: str, text_field: str, *, where: str) -> str:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where} is not JSON: {error}; repair or remove the line") from error
    if not isinstance(row, dict) or not isinstance(row.get(text_field), str):
        fields = ", ".join(row) if isinstance(row, dict) else f"a {type(row).__name__}"
        raise ValueError(f"{where} has no text in field {text_field!r} (it has {fields}); choose with --text_field")
    return row[text_field]
