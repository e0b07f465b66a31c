"""A web server on this machine that gives out archives, and misbehaves as real ones do."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Offer:
    """A file and how it is served."""

    content: bytes
    etag: str | None = '"one"'
    ranges: bool = True
    """Whether `Range` is heeded."""
    heeds_if_range: bool = True
    cuts: list[int] = field(default_factory=list)
    """After how many bytes each of the first connections is cut."""
    missing: int = 0
    """Bytes that are announced and never come."""
    announced: bool = True
    """Whether there is a `Content-Length`."""
    failures: list[int] = field(default_factory=list)
    """The HTTP status of each of the first answers."""
    hold: threading.Event | None = None
    """Nothing more is sent after half of the file until this is set."""


@dataclass(frozen=True)
class Asked:
    """A request as it came: its `Range` and `If-Range`, and what was sent."""

    name: str
    range: str | None
    if_range: str | None
    status: int
    sent: int


class ArchiveServer(ThreadingHTTPServer):
    """Serves `offers` by name and remembers in `log` what was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.offers: dict[str, Offer] = {}
        self.log: list[Asked] = []

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/{name}"

    def asked(self, name: str) -> list[Asked]:
        return [entry for entry in self.log if entry.name == name]


@contextmanager
def serving() -> Iterator[ArchiveServer]:
    server = ArchiveServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: ArchiveServer

    def do_GET(self) -> None:
        name = self.path.lstrip("/")
        offer = self.server.offers.get(name)
        if offer is None:
            self._answer(name, 404, {"Content-Length": "0"}, b"")
        elif offer.failures:
            self._answer(name, offer.failures.pop(0), {"Content-Length": "0"}, b"")
        else:
            self._give(name, offer)

    def _give(self, name: str, offer: Offer) -> None:
        start, whole = self._start(offer), len(offer.content)
        headers = {"ETag": offer.etag} if offer.etag else {}
        if start is not None and start >= whole:
            self._answer(name, 416, {**headers, "Content-Range": f"bytes */{whole}"}, b"")
            return
        body = offer.content[start or 0 :]
        if offer.announced:
            headers["Content-Length"] = str(len(body) + offer.missing)
        if start is not None:
            headers["Content-Range"] = f"bytes {start}-{whole - 1}/{whole}"
        if offer.cuts:
            body = body[: offer.cuts.pop(0)]
        self._answer(name, 200 if start is None else 206, headers, body, offer.hold)

    def _start(self, offer: Offer) -> int | None:
        """Return where the range begins that is to be sent; None for the whole file."""
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if asked is None or not offer.ranges:
            return None
        if offer.heeds_if_range and self.headers.get("If-Range") not in (None, offer.etag):
            return None
        return int(asked[1])

    def _answer(
        self, name: str, status: int, headers: dict[str, str], body: bytes, hold: threading.Event | None = None
    ) -> None:
        asked = Asked(name, self.headers.get("Range"), self.headers.get("If-Range"), status, len(body))
        self.server.log.append(asked)
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()
        half = len(body) // 2
        with suppress(ConnectionError):  # the one who asked has gone
            self.wfile.write(body[:half])
            if hold is not None:
                hold.wait(20)
            self.wfile.write(body[half:])

    def log_message(self, format: str, *args: object) -> None: ...
