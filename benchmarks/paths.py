"""Paths as people write them, and whether a folder can be written to."""

from __future__ import annotations

import os
from pathlib import Path

from benchmarks.errors import DataError


def user_path(given: str | os.PathLike[str]) -> Path:
    """Return a path with `~` or `~name` at its beginning expanded, as in a shell: a `~name` of nobody stays.

    Raises `DataError` where the home of who runs this is not known.
    """
    path = Path(given)
    try:
        return path.expanduser()
    except RuntimeError:
        if path.parts[0] != "~":
            return path
        raise DataError(f"{path}: HOME is not set and the user has no home; give the whole path") from None


def home() -> Path | None:
    """Return the home of who runs this; None where HOME is not set and a user id has no name."""
    try:
        return Path.home()
    except RuntimeError:
        return None


def can_write(folder: Path) -> bool:
    """Return whether files can be written into a folder, which may have to be made first."""
    there = folder.absolute()
    while not os.path.lexists(there) and there != there.parent:
        there = there.parent
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)
