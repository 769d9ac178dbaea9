"""A web server of a folder, with byte ranges and the faults of real connections."""

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path


@dataclass
class Faults:
    """What the server does wrong."""

    statuses: list[int] = field(default_factory=list)  # of the next answers with a body, instead of their content
    num_cut: int = 0  # the next answers with a body end in the middle, and the connection with them
    ignores_ranges: bool = False
    has_sizes: bool = True
    has_endless_index: bool = False  # each folder has two more
    num_requests: int = 0


@contextmanager
def web_server(folder: Path) -> Iterator[tuple[str, Faults]]:
    """Serve `folder`; yield its URL and the faults, which may be changed while it runs."""
    faults = Faults()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, faults, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", faults
        finally:
            server.shutdown()
            thread.join()


class _Handler(http.server.SimpleHTTPRequestHandler):
    """Lists folders as Python's own server does, and sends the part of a file that is asked for."""

    def __init__(self, faults: Faults, *arguments, **options):
        self._faults = faults
        super().__init__(*arguments, **options)

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        self._faults.num_requests += 1
        if self._faults.statuses:
            self.send_error(self._faults.statuses.pop())
        elif self._faults.has_endless_index:
            self._send_index()
        elif path.is_file():
            self._send(path, with_body=True)
        else:
            super().do_GET()

    def do_HEAD(self) -> None:
        path = Path(self.translate_path(self.path))
        self._send(path, with_body=False) if path.is_file() else super().do_HEAD()

    def _send_index(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'<a href="a/">a</a><a href="b/">b</a>')

    def _send(self, path: Path, *, with_body: bool) -> None:
        content, asked = path.read_bytes(), self.headers.get("Range")
        is_part = asked is not None and not self._faults.ignores_ranges
        if is_part:
            start, end = asked.removeprefix("bytes=").split("-")
            content = content[int(start) : int(end or len(content)) + 1]
        self.send_response(206 if is_part else 200)
        if self._faults.has_sizes:
            self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{path.stat().st_mtime_ns}"')
        self.end_headers()
        if with_body and self._faults.num_cut:
            self._faults.num_cut -= 1
            content = content[: len(content) // 2]
        if with_body:
            self.wfile.write(content)

    def log_message(self, *_) -> None:
        pass
