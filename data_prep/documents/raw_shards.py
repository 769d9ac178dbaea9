"""Raw shards: files, parts of files, or parts of Hugging Face data sets, which become token shards."""

import glob
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from data_prep.documents.document_rules import DocumentRules, Parts
from data_prep.documents.files.byte_ranges import divide_bytes
from data_prep.documents.files.include import Include, chosen
from data_prep.documents.files.local_files import find_local_files, true_path
from data_prep.documents.files.read_blocks import Digest
from data_prep.documents.files.remote_files import RemoteFile, find_remote_files, is_remote
from data_prep.documents.files.suffixes import format_of, unsupported
from data_prep.documents.hub_datasets import PREFIX, DatasetShard, find_dataset_shards
from data_prep.documents.pieces import cut_documents
from data_prep.documents.readers import Reader, can_be_cut
from data_prep.documents.skipped import SkippedRecords


@dataclass(frozen=True)
class RawFile:
    """A file of documents, or a byte range of one: the documents that begin in it, as files/byte_ranges.py says."""

    path: Path | RemoteFile
    start: int = 0
    end: int | None = None  # None: the file's end
    include: Include = ()  # the members of an archive to read; () is all of them

    @property
    def label(self) -> str:
        return str(self.path)

    @property
    def name(self) -> str:
        return self.path.name.split(".")[0]

    @property
    def source(self) -> str:
        """Folder and name, which stay the same if the folder is moved."""
        parts = self.path.parts if isinstance(self.path, RemoteFile) else self.path.absolute().parts
        return "/".join(parts[-2:])

    @property
    def num_bytes(self) -> int:
        if self.end is not None:
            return self.end - self.start
        return self.path.num_bytes if isinstance(self.path, RemoteFile) else self.path.stat().st_size

    def identity(self) -> dict:
        """Return what distinguishes it from others, and from itself after a change."""
        if isinstance(self.path, RemoteFile):
            identity = self.path.identity()
        else:
            status = self.path.stat()
            identity = {"path": str(self.path.absolute()), "num_bytes": status.st_size, "mtime_ns": status.st_mtime_ns}
        included = {"include": list(self.include)} if self.include else {}
        return identity | included | ({} if self.end is None else {"start": self.start, "end": self.end})

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
        reader = Reader(rules, self.include)
        return reader.file_parts(self.path, skipped, on_read, start=self.start, end=self.end, digest=digest)


RawShard = RawFile | DatasetShard


class NothingIncluded(ValueError):
    """An input of which `include` leaves nothing."""

    def __init__(self, given: str, message: str):
        super().__init__(message)
        self.given = given


def find_raw_shards(
    inputs: list[str | Path],
    *,
    text_field: str = "text",
    include: Include = (),
    leave_out: Path | None = None,
) -> list[RawShard]:
    """Return the raw shards in files, folders (at any depth), globs, URLs and `hf:` data sets, each raw shard once.

    The order of `inputs` is kept; the files of a folder are sorted by relative path. Hidden files are skipped, links
    are followed. `include`: patterns; of folders, globs and archives, only files that match one of them are read.
    leave_out: a folder that is not read, such as the output.
    NothingIncluded if `include` leaves nothing of an input. ValueError if a folder or glob has no files or files have
    unknown suffixes, FileNotFoundError for a broken link: no text may go missing because of its name.
    """
    found: dict[str, RawShard] = {}  # true path of a file -> the first raw shard with that path
    true_folders: dict[Path, str] = {}
    for each in (str(each).removeprefix("file://") for each in inputs):
        if each.startswith(PREFIX) and not is_remote(each):
            shards = find_dataset_shards(each, text_field=text_field)
            found |= {shard.label: shard for shard in shards if shard.label not in found}
            continue
        files = find_remote_files(each) if is_remote(each) else find_local_files(each, leave_out=leave_out)
        for raw_file in _included(each, files, include):
            local = isinstance(raw_file.path, Path)
            found.setdefault(true_path(raw_file.path, true_folders) if local else raw_file.label, raw_file)
    unknown = [shard.label for shard in found.values() if isinstance(shard, RawFile) and not format_of(shard.path.name)]
    if unknown:
        raise unsupported(unknown)
    return list(found.values())


def input_in(raw: str | Path, given: str) -> str:
    """Return an input that is given relative to `raw`, a folder or the URL of one; a URL or `hf:` data set as it is."""
    if given.startswith(PREFIX) or is_remote(given):
        return given
    if is_remote(str(raw)):
        return f"{str(raw).rstrip('/')}/{given}"
    return str(Path(glob.escape(str(raw)) if glob.has_magic(given) else raw, given))


def read_documents(
    raw_shard: RawShard,
    rules: DocumentRules = DocumentRules(),
    *,
    max_bad_records: int = 0,
) -> Iterator[str]:
    """Yield the documents of a raw shard, each whole; documents without text are skipped."""
    parts = raw_shard.read_parts(rules, SkippedRecords(raw_shard.label, max_bad_records), lambda num_bytes: None)
    return (document for document, _ in cut_documents(parts, None))


def _included(given: str, files: list[Path] | list[RemoteFile], include: Include) -> list[RawFile]:
    """Return the files that `include` chooses; a file that is named itself is always one."""
    choices = [(file, chosen(str(file), include)) for file in files]
    raw_files = [RawFile(file, include=choice) for file, choice in choices if choice is not None]
    if not raw_files and len(files) == 1 and str(files[0]) in (given, str(Path(given))):
        return [RawFile(files[0])]
    if not raw_files:
        raise NothingIncluded(
            given, f"none of the {len(files):,} files in {given} matches --include {' '.join(include)}"
        )
    return raw_files
