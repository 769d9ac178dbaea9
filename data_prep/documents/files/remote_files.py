"""Files in remote stores, such as s3://, gs://, https:// and hf://: found, identified and read through fsspec.

A file is read in parts. A part that fails, or comes short, is fetched again a few times; after that it is an error, so
that a broken connection never makes a document shorter.
"""

import io
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from data_prep.documents.files.retries import with_retries

PART_BYTES = 2**23  # fetched at a time; memory holds one part
# The package that opens each kind of URL and that this project does not need otherwise.
PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs"}
# What stores call the version of a file, the best first: a digest, or the time of its last change.
VERSIONS = ("ETag", "etag", "md5Hash", "blob_id", "last_modified", "LastModified", "mtime", "updated", "created")


@dataclass(frozen=True)
class RemoteFile:
    """A file in a remote store, as it was found; where a local file has a Path, it has this."""

    url: str
    num_bytes: int
    version: str  # of its content

    @property
    def name(self) -> str:
        return _path(self.url).name

    @property
    def parts(self) -> tuple[str, ...]:
        return _path(self.url).parts

    def __str__(self) -> str:
        return self.url

    def identity(self) -> dict:
        """Ask the store what distinguishes the file from others, and from itself after a change."""
        now = _remote_file(self.url, _ask(self.url))
        return {"path": now.url, "num_bytes": now.num_bytes, "version": now.version}

    def open(self, mode: str = "rb") -> io.BufferedReader:
        """Open the file for reading; reading raises OSError if the store does not answer."""
        return io.BufferedReader(_Parts(self), PART_BYTES)


def is_remote(given: str) -> bool:
    return "://" in given


def find_remote_files(given: str) -> list[RemoteFile]:
    """Return the file `given`, or all files of a folder or glob, at any depth, sorted by path; hidden ones are skipped.

    FileNotFoundError or ValueError if there is none, or if a package for this kind of URL is missing.
    """
    store, path = _store(given)
    is_glob = "*" in given or "[" in given  # a question mark begins the query of a URL
    if not is_glob and not with_retries(partial(store.isdir, path), of=given):
        return [_remote_file(given, _ask(given))]
    listed = with_retries(partial(store.glob if is_glob else store.find, path, detail=True), of=given)
    files = {name: info for name, info in sorted(listed.items()) if info["type"] == "file" and _is_visible(name, path)}
    if not files:
        raise ValueError(f"{given} has no files; correct it, or quote it if the shell changes it")
    return [_remote_file(store.unstrip_protocol(name), info) for name, info in files.items()]


def _is_visible(name: str, given: str) -> bool:
    """Whether no part of the path that was not given begins with a dot."""
    return not any(part.startswith(".") for part in name.split("/")[given.count("/") :])


class _Parts(io.RawIOBase):
    """A remote file whose reads are requests, repeated if they fail."""

    def __init__(self, file: RemoteFile):
        self._file, self._position = file, 0
        self._store, self._path = _store(file.url)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._file.num_bytes}[whence]
        self._position = max(0, base + offset)
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        end = min(self._position + min(len(buffer), PART_BYTES), self._file.num_bytes)
        if end <= self._position:
            return 0
        fetch = partial(self._fetch, self._position, end)
        part = with_retries(fetch, of=f"{self._file.url}, from byte {self._position} to {end},")
        buffer[: len(part)] = part
        self._position = end
        return len(part)

    def _fetch(self, start: int, end: int) -> bytes:
        part = self._store.cat_file(self._path, start=start, end=end)
        if len(part) != end - start:
            raise ConnectionError(f"only {len(part)} of {end - start} bytes came")
        return part


def _store(url: str) -> tuple[Any, str]:
    """Return the store, for fsspec, and the path in it; ValueError if its package is missing or its kind is unknown."""
    import fsspec  # takes a tenth of a second, which local files do not need

    from data_prep.documents.files.http_files import HttpFiles

    scheme = urlsplit(url).scheme
    if scheme in ("http", "https"):
        return HttpFiles(), url
    try:
        return fsspec.url_to_fs(url)
    except ImportError as error:
        package = PACKAGES.get(scheme)
        install = f"the package {package}; run `pip install {package}`" if package else f"another package: {error}"
        raise ValueError(f"{url} needs {install}, or copy the files to a disk") from error
    except ValueError as error:
        raise ValueError(f"{url} cannot be opened: {error}; use s3://, gs://, https://, hf:// or a path") from error


def _ask(url: str) -> dict:
    """Return what the store knows of a file now, not what it listed before."""
    store, path = _store(url)
    store.invalidate_cache()
    return with_retries(partial(store.info, path), of=url)


def _remote_file(url: str, info: dict) -> RemoteFile:
    version = next((str(info[key]) for key in VERSIONS if info.get(key)), None)
    if not isinstance(info.get("size"), int) or version is None:
        raise ValueError(
            f"{url} has no size, or neither a digest nor a time, so that a broken connection or a change would go "
            "unnoticed; copy it to a disk"
        )
    return RemoteFile(url, info["size"], version)


def _path(url: str) -> PurePosixPath:
    split = urlsplit(url)
    return PurePosixPath(split.netloc + split.path)
