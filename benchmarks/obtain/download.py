"""Downloads that go on where they were cut and end with the published checksum."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from benchmarks.cache import DISK_FULL
from benchmarks.errors import FetchError
from benchmarks.obtain.sources import Archive

Note = Callable[[str], None]
"""Told in a line what happens."""
Progress = Callable[[str, int, int], None]
"""Told what is being done, how much is done, and how much there is (0: unknown)."""

TRIES = 8
"""Tries in a row without a new byte after which a download is given up: half a minute of waiting."""
FIRST_WAIT = 0.25
"""Seconds before the second try; each further wait is twice as long."""
DOUBLINGS = 8
"""How often the wait grows: to about a minute."""
TIMEOUT = 30.0
"""Seconds without a byte after which a connection counts as cut."""
CHUNK = 1 << 16
TRANSIENT = (408, 429, 500, 502, 503, 504)
"""HTTP answers after which another try makes sense."""


class _CutError(Exception):
    """The connection could not be made or has ended too early."""


def download(archive: Archive, path: Path, tries: int, note: Note, progress: Progress) -> None:
    """Leave the verified archive at `path`; an earlier `path`.part of the same archive is gone on with.

    Raises `FetchError` where the server, the connection or the disk fails, or where the bytes are not the published
    ones. All but the last leave `path`.part, from which the next call goes on; wrong bytes are removed.
    """
    if path.exists():
        verify(path, archive, progress)
        return
    part = _Part(archive, path)
    _fetch(part, tries, note, progress)
    verify(part.path, archive, progress)
    with disk_errors(path.parent):
        part.path.replace(path)
        part.about.unlink()


def verify(path: Path, archive: Archive, progress: Progress) -> None:
    """Raise `FetchError`, and remove the file, where its checksum is another than the archive's."""
    algorithm = archive.checksum.partition(":")[0]
    digest = hashlib.new(algorithm, usedforsecurity=False)
    done, total = 0, path.stat().st_size
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            done += len(chunk)
            progress(f"checking {archive.name}", done, total)
    found = f"{algorithm}:{digest.hexdigest()}"
    if found != archive.checksum:
        path.unlink()
        raise FetchError(
            f"{archive.name}: expected {archive.checksum}, found {found} in the {total:,} bytes from {archive.url}; "
            "the file was removed, the next try starts anew"
        )


def require_space(folder: Path, needed: int, what: str) -> None:
    """Raise `FetchError` where a folder's disk has less than `needed` bytes left."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise FetchError(f"{what} needs {needed:,} bytes, the disk of {folder} has {free:,} left")


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turn what the operating system says about writing below a folder into a `FetchError` of one line."""
    try:
        yield
    except BrokenPipeError:
        raise  # whoever read what is printed has gone
    except OSError as error:
        if error.errno in DISK_FULL:
            raise FetchError(
                f"the disk of {folder} is full ({error.strerror}); with more space the same command goes on from here"
            ) from error
        raise FetchError(f"cannot read or write below {folder} ({error.strerror or error})") from error


class _Part:
    """The first bytes of an archive, and beside them which archive and which version of it they belong to."""

    def __init__(self, archive: Archive, path: Path) -> None:
        self.archive = archive
        self.path = path.with_name(f"{path.name}.part")
        self.about = path.with_name(f"{path.name}.part.json")

    @property
    def size(self) -> int:
        """Bytes that can be gone on with: 0 where they belong to an archive of another checksum."""
        if self._known().get("checksum") != self.archive.checksum or not self.path.exists():
            return 0
        return self.path.stat().st_size

    @property
    def validator(self) -> str | None:
        """The ETag or time of the version that the bytes are of, where this URL gave one."""
        known = self._known()
        return known.get("validator") if known.get("url") == self.archive.url else None

    def start_anew(self, validator: str | None) -> None:
        """Drop the bytes and remember which version comes now."""
        self.path.unlink(missing_ok=True)
        known = {"url": self.archive.url, "checksum": self.archive.checksum, "validator": validator}
        self.about.write_text(json.dumps(known), encoding="utf-8")

    def _known(self) -> dict[str, str | None]:
        try:
            known = json.loads(self.about.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}  # not there, or cut while it was written
        return known if isinstance(known, dict) else {}


def _fetch(part: _Part, tries: int, note: Note, progress: Progress) -> None:
    """Receive all bytes; a cut connection is made again unless `tries` in a row brought nothing new."""
    name, most, failed = part.archive.name, part.size, 0
    while True:
        try:
            _receive(part, progress)
            return
        except _CutError as error:
            failed = 0 if part.size > most else failed + 1
            most = max(most, part.size)
            if failed >= tries:
                raise FetchError(
                    f"{name}: {error} ({part.archive.url}); {part.size:,} bytes are kept for the next try"
                ) from error
            wait = FIRST_WAIT * 2 ** min(failed, DOUBLINGS)
            note(f"{name}: {error}; next try in {wait:g} s")
            time.sleep(wait)


def _receive(part: _Part, progress: Progress) -> None:
    """Make one request for what is missing and append what comes."""
    have = part.size
    try:
        response: HTTPResponse = urlopen(_request(part, have), timeout=TIMEOUT)
    except HTTPError as error:
        error.close()
        if error.code == 416 and have:
            if _whole_size(error.headers.get("Content-Range")) != have:
                _receive_anew(part, progress)
            return
        if error.code in TRANSIENT:
            raise _CutError(f"the server answers {error.code} {error.reason}") from error
        raise FetchError(f"{part.archive.name}: {part.archive.url} answers {error.code} {error.reason}") from error
    except (OSError, HTTPException, UnicodeError) as error:  # the last for a host that cannot be a name
        raise _CutError(f"no connection ({_reason(error)})") from error
    with response:
        if response.status != 206 or not have:
            with disk_errors(part.path.parent):
                part.start_anew(_validator(response))
            _append(part, response, 0, progress)
        elif _continues(response, part, have):
            _append(part, response, have, progress)
        else:
            _receive_anew(part, progress)


def _receive_anew(part: _Part, progress: Progress) -> None:
    """Drop bytes that are of another version of the file; without them the whole of it is asked for."""
    with disk_errors(part.path.parent):
        part.start_anew(None)
    _receive(part, progress)


def _request(part: _Part, have: int) -> Request:
    headers = {"User-Agent": "continual-seg-bench"}
    if have:
        headers["Range"] = f"bytes={have}-"
        if part.validator:
            headers["If-Range"] = part.validator
    return Request(part.archive.url, headers=headers)


def _validator(response: HTTPResponse) -> str | None:
    """Return what names this version of the file; a weak ETag does not name its bytes (RFC 9110, 13.1.5)."""
    etag = response.headers.get("ETag")
    if etag and not etag.startswith("W/"):
        return str(etag)
    return response.headers.get("Last-Modified")


def _continues(response: HTTPResponse, part: _Part, have: int) -> bool:
    """Whether the range is the one asked for and of the same version: not every server heeds If-Range."""
    start = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    same = _validator(response) in (part.validator, None) or part.validator is None
    return start is not None and int(start[1]) == have and same


def _whole_size(content_range: str | None) -> int | None:
    size = re.search(r"/(\d+)$", content_range or "")
    return int(size[1]) if size else None


def _append(part: _Part, response: HTTPResponse, have: int, progress: Progress) -> None:
    """Write a response's bytes behind the first `have`, once there is room for them and for what is in the archive."""
    length = response.headers.get("Content-Length", "")
    rest = int(length) if length.isdecimal() else None
    total = 0 if rest is None else have + rest
    folder, name = part.path.parent, part.archive.name
    require_space(folder, total - have + total, f"{name}: {total - have:,} bytes to download, and to unpack them,")
    size = have
    with disk_errors(folder), part.path.open("ab") as file:
        for chunk in _chunks(response, rest):
            file.write(chunk)
            file.flush()
            size += len(chunk)
            progress(f"downloading {name}", size, total)
    if rest is not None and size < total:
        raise _CutError(f"the connection was cut after {size:,} of {total:,} bytes")


def _chunks(response: HTTPResponse, rest: int | None) -> Iterator[bytes]:
    """Yield what comes as it comes, at most `rest` bytes."""
    while rest is None or rest > 0:
        try:
            chunk = response.read1(CHUNK if rest is None else min(CHUNK, rest))
        except (OSError, HTTPException) as error:
            raise _CutError(f"the connection was cut ({_reason(error)})") from error
        if not chunk:
            return
        rest = None if rest is None else rest - len(chunk)
        yield chunk


def _reason(error: Exception) -> str:
    reason = error.reason if isinstance(error, URLError) else error
    return " ".join(str(getattr(reason, "strerror", None) or reason or type(error).__name__).split())
