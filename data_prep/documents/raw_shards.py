"""Raw shards: files, or parts of Hugging Face data sets, each of which becomes one token shard."""

import glob
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from data_prep.documents.document_rules import DocumentRules, Parts
from data_prep.documents.files.byte_ranges import divide_bytes
from data_prep.documents.files.read_blocks import Digest
from data_prep.documents.hub_datasets import PREFIX, DatasetShard, find_dataset_shards
from data_prep.documents.pieces import cut_documents
from data_prep.documents.readers import can_be_cut, read_parts, split_suffix
from data_prep.documents.skipped import SkippedRecords


@dataclass(frozen=True)
class RawFile:
    """A file of documents, or a byte range of one: the documents that begin in it, as files/byte_ranges.py says."""

    path: Path
    start: int = 0
    end: int | None = None  # None: the file's end

    @property
    def label(self) -> str:
        return str(self.path)

    @property
    def name(self) -> str:
        return self.path.name.split(".")[0]

    @property
    def source(self) -> str:
        """Folder and name, which stay the same if the folder is moved."""
        return "/".join(self.path.absolute().parts[-2:])

    @property
    def num_bytes(self) -> int:
        return self.path.stat().st_size if self.end is None else self.end - self.start

    def identity(self) -> dict:
        """Return what distinguishes it from others, and from itself after a change."""
        status = self.path.stat()
        identity = {"path": str(self.path.absolute()), "num_bytes": status.st_size, "mtime_ns": status.st_mtime_ns}
        return identity if self.end is None else identity | {"start": self.start, "end": self.end}

    def cut(self, range_bytes: int, rules: DocumentRules) -> list["RawFile"]:
        """Return byte ranges of at most `range_bytes` that hold each document once; only itself if it cannot be cut."""
        if not can_be_cut(self.path.name, rules) or self.num_bytes <= range_bytes:
            return [self]
        return [replace(self, start=start, end=end) for start, end in divide_bytes(self.num_bytes, range_bytes)]

    def read_parts(
        self,
        rules: DocumentRules,
        skipped: SkippedRecords,
        on_read: Callable[[int], None],
        *,
        digest: Digest | None = None,
    ) -> Parts:
        """Yield parts of documents; see data_prep/documents/readers.py."""
        return read_parts(self.path, rules, skipped, on_read, start=self.start, end=self.end, digest=digest)


RawShard = RawFile | DatasetShard


def find_raw_shards(inputs: list[str | Path], *, text_field: str = "text") -> list[RawShard]:
    """Return the raw shards in files, folders (at any depth), globs and `hf:` data sets, each raw shard once.

    The order of `inputs` is kept; the files of a folder are sorted by relative path. Hidden files are skipped, links
    are followed. ValueError if a folder or glob has no files or a file has an unknown suffix, FileNotFoundError for a
    broken link: no text may go missing because of its name.
    """
    found: dict[Path | str, RawShard] = {}  # resolved path of a file -> the first raw shard with that path
    for each in map(str, inputs):
        if each.startswith(PREFIX):
            shards = find_dataset_shards(each, text_field=text_field)
            found |= {shard.label: shard for shard in shards if shard.label not in found}
            continue
        for file in _files(each):
            if not file.exists():
                raise FileNotFoundError(f"{file} is a link to {os.readlink(file)}, which does not exist; repair it")
            split_suffix(file.name)
            found.setdefault(file.resolve(), RawFile(file))
    return list(found.values())


def read_documents(
    raw_shard: RawShard,
    rules: DocumentRules = DocumentRules(),
    *,
    max_bad_records: int = 0,
) -> Iterator[str]:
    """Yield the documents of a raw shard, each whole; documents without text are skipped."""
    parts = raw_shard.read_parts(rules, SkippedRecords(raw_shard.label, max_bad_records), lambda num_bytes: None)
    return (document for document, _ in cut_documents(parts, None))


def _files(given: str) -> list[Path]:
    path = Path(given)
    if path.is_dir():
        return _files_in(path)
    if path.exists():
        return [path]
    if not glob.has_magic(given):
        raise FileNotFoundError(f"{path} does not exist; give raw shards, folders or globs of them, or {PREFIX}NAME")
    found = sorted(map(Path, glob.glob(given, recursive=True)))
    files = [file for path in found for file in (_visible_files(path) if path.is_dir() else [path])]
    if not files:
        raise ValueError(f"{given} matches no file; correct it, or quote it if the shell changes it")
    return files


def _files_in(folder: Path) -> list[Path]:
    files = _visible_files(folder)
    if not files:
        raise ValueError(f"{folder} has no files; give a folder with raw shards")
    return files


def _visible_files(folder: Path) -> list[Path]:
    """Return the files at any depth of a folder, following links, sorted by relative path."""
    found: list[Path] = []
    for parent, folders, names in os.walk(folder, onerror=_raise, followlinks=True):
        above = {os.path.realpath(path) for path in (Path(parent), *Path(parent).parents)}
        # Links may form a circle.
        folders[:] = [name for name in folders if os.path.realpath(os.path.join(parent, name)) not in above]
        found += [Path(parent, name).relative_to(folder) for name in names]
    visible = [path for path in found if not any(part.startswith(".") for part in path.parts)]
    return [folder / path for path in sorted(visible, key=Path.as_posix)]


def _raise(error: OSError) -> None:
    """A folder that cannot be read must not count as empty."""
    raise error
