"""The user's cache folder: generated data, class presence, packed images, base models."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from benchmarks.errors import DataError
from benchmarks.paths import home, user_path

NAME = "continual-seg-bench"
"""Of our folder below those that programs share."""
ABANDONED_SECONDS = 24 * 3600.0
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""A file cannot be written, or not any further: no space, or no more than a quota or a file may have."""


def cache_folder(*parts: str, write: bool = False) -> Path:
    """Return a folder of the cache, made if needed; raise `DataError` where it cannot be read, or written to.

    `BENCH_CACHE` names the cache; without it `XDG_CACHE_HOME/continual-seg-bench` or
    `~/.cache/continual-seg-bench` is used.
    """
    folder = _top().joinpath(*parts)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        os.scandir(folder).close()  # another user's, say
        if write:
            with tempfile.TemporaryFile(dir=folder):
                pass
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise DataError(
                f"cannot use the cache folder {folder} ({error.strerror}); BENCH_CACHE names another"
            ) from None
        if not folder.is_dir():
            raise
    return folder


def _top() -> Path:
    if chosen := os.environ.get("BENCH_CACHE"):
        return user_path(chosen)
    if chosen := os.environ.get("XDG_CACHE_HOME"):
        return user_path(chosen) / NAME
    if (at_home := home()) is None:
        raise DataError("there is no place for the cache, as HOME is not set and the user has no home; set BENCH_CACHE")
    return at_home / ".cache" / NAME


def kept_text(folder: str, name: str, make: Callable[[], str]) -> str:
    """Return a short text that was made once and is kept in the cache."""
    path = cache_folder(folder) / name
    text = text_in(path)
    if text is None:
        cache_folder(folder, write=True)
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
    """Write a file of the cache; it appears by one rename, and an OSError names it."""
    scratch = _scratch(path)
    try:
        scratch.write_bytes(content)
        scratch.replace(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
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
