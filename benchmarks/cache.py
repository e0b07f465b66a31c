"""The user's cache folder: generated data, class presence, packed images, base models."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from benchmarks.errors import DataError

ABANDONED_SECONDS = 24 * 3600.0
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


def cache_folder(*parts: str) -> Path:
    """Return a folder of the cache, made if needed.

    `BENCH_CACHE` names the cache; without it `XDG_CACHE_HOME/continual-seg-bench` or
    `~/.cache/continual-seg-bench` is used.
    """
    chosen = os.environ.get("BENCH_CACHE")
    if chosen:
        top = Path(chosen)
    else:
        top = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "continual-seg-bench"
    folder = top.joinpath(*parts)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if error.errno in DISK_FULL:
            raise
        raise DataError(f"cannot use the cache folder {folder} ({error.strerror}); BENCH_CACHE names another") from None
    return folder


def kept_text(folder: str, name: str, make: Callable[[], str]) -> str:
    """Return a short text that was made once and is kept in the cache."""
    path = cache_folder(folder) / name
    text = text_in(path)
    if text is None:
        text = make()
        keep(path, sealed(text.encode()))
    return text


def text_in(path: Path) -> str | None:
    """Return the text that a file of the cache holds; None where there is none or it is damaged."""
    try:
        return unsealed(path.read_bytes()).decode()
    except (OSError, ValueError):
        return None


def sealed(content: bytes) -> bytes:
    """Return content below a line with its SHA-256."""
    return _seal(content) + content


def unsealed(file: bytes) -> bytes:
    """Return what was sealed; raise ValueError where any of it is another."""
    seal, content = file[:_SEAL_LENGTH], file[_SEAL_LENGTH:]
    if seal != _seal(content):
        raise ValueError("its content has not the SHA-256 in its first line")
    return content


def _seal(content: bytes) -> bytes:
    return f"{hashlib.sha256(content).hexdigest()}\n".encode()


_SEAL_LENGTH = len(_seal(b""))


def keep(path: Path, content: bytes) -> None:
    """Write a file of the cache; it appears by one rename, and the OSError of a full disk names it."""
    scratch = _scratch(path)
    with full_disk_names(path):
        try:
            scratch.write_bytes(content)
            scratch.replace(path)
        finally:
            scratch.unlink(missing_ok=True)


def _scratch(path: Path) -> Path:
    """Return a hidden name beside `path` that no other process or machine uses."""
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}")


@contextmanager
def full_disk_names(path: Path) -> Iterator[None]:
    """Name what the block makes in the OSError of a full disk: that of `write` names nothing."""
    try:
        yield
    except OSError as error:
        if error.errno in DISK_FULL:
            error.filename = str(path)
        raise


@contextmanager
def appearing_folder(final: Path) -> Iterator[Path]:
    """Give a scratch folder that becomes `final` by one rename, or vanishes if the block fails.

    Of two processes that make the same folder the first wins and the second's work is dropped. What one left that
    was killed is deleted when it is old.
    """
    for left in final.parent.glob(f".{final.name}.*"):
        with suppress(FileNotFoundError):  # its maker has just finished
            if time.time() - left.stat().st_mtime > ABANDONED_SECONDS:
                shutil.rmtree(left, ignore_errors=True)
    scratch = _scratch(final)
    scratch.mkdir()
    try:
        yield scratch
        try:
            scratch.rename(final)
        except OSError:
            if not final.is_dir():
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
