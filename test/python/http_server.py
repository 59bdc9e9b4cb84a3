"""A web server on this machine that notes what was asked of it."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Site:
    """The files of a server, how it behaves, and what it was asked.

    Args:
        files: by path.
        ranges: whether it knows ranges; without, it sends whole files.
        sizes: whether it says how long they are.
        says_zero: whether it says to HEAD that they are empty.
        delay: seconds that each range takes.
        breaks_at: the connection ends where this byte of a file would be sent.
        statuses: what it answers for some paths.
    """

    files: dict[str, bytes]
    ranges: bool = True
    sizes: bool = True
    says_zero: bool = False
    delay: float = 0.0
    breaks_at: int | None = None
    statuses: dict[str, int] = field(default_factory=dict)

    url: str = ""
    #: Method, path and range (begin, end) of each request.
    requests: list[tuple[str, str, tuple[int, int] | None]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    most_at_once: int = 0
    _at_once: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def asked(self) -> list[tuple[int, int]]:
        """The ranges, in the order of their requests."""
        return [range_ for _, _, range_ in self.requests if range_ is not None]

    @contextlib.contextmanager
    def noted(self, method: str, path: str, range_: tuple[int, int] | None, headers: dict[str, str]) -> Iterator[None]:
        with self._lock:
            self.requests.append((method, path, range_))
            self.headers.append(headers)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            yield
        finally:
            with self._lock:
                self._at_once -= 1


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    site: Site

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, *, with_body: bool) -> None:
        path = self.path.partition("?")[0]
        match = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        asked = (int(match[1]), int(match[2]) + 1) if match else None
        with self.site.noted(self.command, self.path, asked, dict(self.headers)):
            if asked is not None and self.site.delay:
                time.sleep(self.site.delay)
            status = self.site.statuses.get(path, 200 if path in self.site.files else 404)
            if status != 200:
                self._send(status, b"", with_body=False)
            elif asked is not None and self.site.ranges:
                begin, end = asked
                self._send(206, self.site.files[path][begin:end], with_body=with_body, offset=begin)
            else:
                self._send(200, self.site.files[path], with_body=with_body)

    def _send(self, status: int, body: bytes, *, with_body: bool, offset: int = 0) -> None:
        self.send_response(status)
        if self.site.sizes:
            is_zero = self.site.says_zero and not with_body
            self.send_header("Content-Length", "0" if is_zero else str(len(body)))
        else:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        breaks_at = self.site.breaks_at
        if breaks_at is not None and offset <= breaks_at < offset + len(body):
            body = body[: breaks_at - offset]
            self.close_connection = True
        if with_body:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self.wfile.write(body)  # a client may have read enough

    def log_message(self, format: str, *args: object) -> None:
        """Nothing is printed."""


@contextlib.contextmanager
def serving(files: dict[str, bytes], **behaviour: object) -> Iterator[Site]:
    """Serves ``files`` until the end of the context."""
    site = Site(files, **behaviour)  # type: ignore[arg-type]
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("SiteHandler", (Handler,), {"site": site}))
    server.daemon_threads = True
    site.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
