"""HttpFiles: files on a web server, listed by its index pages and read by byte ranges."""

import http.client
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from urllib.parse import quote, urldefrag, urljoin

import fsspec

TIMEOUT_SECONDS = 60
LARGEST_INDEX = 2**24  # bytes of an index page
MOST_LEVELS = 16  # of folders within the one that is listed
MOST_FOLDERS = 10**5
MOST_FILES = 10**6
_TRANSIENT = (408, 425, 429)  # and all from 500 on


class HttpFiles(fsspec.AbstractFileSystem):
    """http:// and https:// for fsspec, whose own implementation needs another package."""

    protocol = ("https", "http")
    cachable = False  # each of them lists one folder or glob, and knows how much it has found

    def __init__(self, **options: object):
        super().__init__(**options)
        self._folders: dict[str, None] = {}  # in the order of their listing
        self._num_files = 0

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return path  # the host is a part of it

    def unstrip_protocol(self, name: str) -> str:
        return name

    def isdir(self, path: str) -> bool:
        return path.endswith("/")

    def info(self, path: str, **_) -> dict:
        """Return name, size, digest and time of a file; a URL that ends in a slash is a folder."""
        if self.isdir(path):
            return {"name": path, "size": 0, "type": "directory"}
        with _answer(path, method="HEAD") as answer:
            size = answer.headers.get("Content-Length", "")
            versions = {"ETag": answer.headers.get("ETag"), "LastModified": answer.headers.get("Last-Modified")}
        return {"name": path, "size": int(size) if size.isdigit() else None, "type": "file", **versions}

    def ls(self, path: str, detail: bool = True, **_) -> list:
        """List what the index page of a folder links to within the folder."""
        folder = path.rstrip("/") + "/"
        with _answer(folder) as answer:
            page = answer.read(LARGEST_INDEX)
        links = _Links()
        links.feed(page.decode("utf-8", "replace"))
        urls = {urldefrag(urljoin(folder, link)).url.partition("?")[0] for link in links.found}
        inside = {url for url in urls if url.startswith(folder) and "/" not in url[len(folder) : -1]} - {folder}
        self._check_end(folder, sum(not self.isdir(url) for url in inside))
        return [self.info(url) for url in sorted(inside)] if detail else sorted(inside)

    def walk(self, path: str, maxdepth: int | None = None, on_error: str = "raise", **options) -> Iterator[tuple]:
        """Walk as others do, but never leave out a folder that cannot be listed."""
        return super().walk(path, maxdepth, on_error=on_error, **options)

    def _check_end(self, folder: str, num_files: int) -> None:
        """Count a folder and its files; ValueError if there seems to be no end of them."""
        if folder not in self._folders:  # attempts are repeated
            self._folders[folder] = None
            self._num_files += num_files
        first = next(iter(self._folders))
        for num_found, most, what in (
            (folder.removeprefix(first).count("/"), MOST_LEVELS, "levels of folders"),
            (len(self._folders), MOST_FOLDERS, "folders"),
            (self._num_files, MOST_FILES, "files"),
        ):
            if num_found > most:
                raise ValueError(f"{first} has more than {most:,} {what}; give its folders or files one by one")

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_) -> bytes:
        """Return the bytes start..end; ValueError if the server cannot send a part of a file."""
        start = start or 0
        length = None if end is None else end - start
        with _answer(path, headers={"Range": f"bytes={start}-{'' if end is None else end - 1}"}) as answer:
            if start and answer.status != http.client.PARTIAL_CONTENT:
                raise ValueError(f"{path} cannot be read in parts: its server ignores byte ranges; copy it to a disk")
            return answer.read(length)


@contextmanager
def _answer(url: str, **request: object) -> Iterator[http.client.HTTPResponse]:
    """Yield the answer to a request; an error names the URL, and ValueError and its like are final."""
    url = quote(url, safe="%/:=&?~#+!$,;'@()*[]")
    try:
        with urllib.request.urlopen(urllib.request.Request(url, **request), timeout=TIMEOUT_SECONDS) as answer:
            yield answer
    except urllib.error.HTTPError as error:
        error.close()
        raise _kind_of(error.code)(f"{url} cannot be read: HTTP status {error.code}, {error.reason}") from error
    except (urllib.error.URLError, http.client.HTTPException) as error:
        raise ConnectionError(f"{url}: {getattr(error, 'reason', error)}") from error


def _kind_of(status: int) -> type[Exception]:
    if status in (404, 410):
        return FileNotFoundError
    if status in (401, 403):
        return PermissionError
    return ConnectionError if status in _TRANSIENT or status >= 500 else ValueError


class _Links(HTMLParser):
    """The targets of a page's links."""

    def __init__(self):
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attributes if tag == "a" and name == "href" and value]
