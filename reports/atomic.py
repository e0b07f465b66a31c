"""Files that are there whole or not at all, whatever happens to who writes them."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

_SCRAP = ".tmp-"
"""In the names of files that are being written; where a process was killed, they stay behind."""


def scratch_path(path: Path) -> Path:
    """Return a hidden name beside `path` that no other process or machine uses; `clear_scraps` knows it."""
    return path.with_name(f".{path.name}{_SCRAP}{secrets.token_hex(8)}")


def clear_scraps(folder: Path, name: str = "") -> None:
    """Delete what writers that were killed left below a folder: of all files, or of one."""
    for scrap in folder.rglob(f".{name}*{_SCRAP}*"):
        scrap.unlink(missing_ok=True)


class SetAside:
    """Files that are taken away for a while: to be put back, the first one last, or deleted for good."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self._moved: list[tuple[Path, Path]] = []
        try:
            for path in paths:
                scratch = scratch_path(path)
                with suppress(FileNotFoundError):
                    path.rename(scratch)
                    self._moved.append((path, scratch))
        except OSError:
            self.restore()
            raise

    def restore(self) -> None:
        """Put the files back, over what has taken their place."""
        while self._moved:
            path, scratch = self._moved[-1]
            scratch.replace(path)
            self._moved.pop()

    def discard(self) -> None:
        """Delete the files; `clear_scraps` deletes those that cannot be now."""
        for _, scratch in self._moved:
            with suppress(OSError):
                scratch.unlink()


def write_atomic(path: Path, text: str) -> None:
    """Write `text` as UTF-8 so that `path` holds either its old content or all of the new."""
    write_atomic_bytes(path, text.encode("utf-8"))


def write_atomic_bytes(path: Path, content: bytes) -> None:
    """Write `content` so that `path` holds either its old content or all of the new; an OSError names `path`."""
    write_atomic_parts(path, [content])


def write_atomic_parts(path: Path, parts: Iterable[bytes | memoryview]) -> None:
    """Write parts one after the other, like `write_atomic_bytes`."""
    temporary = scratch_path(path)
    try:
        with temporary.open("wb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        error.filename = str(path)  # writing names no file, and the temporary one is gone
        raise
    finally:
        temporary.unlink(missing_ok=True)
