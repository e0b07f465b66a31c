"""Folders to write to, and what stands in a run's directory beside its records."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.settings.errors import RequestError
from benchmarks.cache import cache_folder


def claim_of(run: Path) -> Path:
    """Return the file that is claimed while a run is made."""
    return run / "claim"


def base_file(base_hash: str) -> Path:
    """Return the file in which the base model of a hash is kept."""
    return cache_folder("bases") / f"{base_hash}.base"


def walk_runs(
    folder: Path, unreadable: Callable[[OSError], object] | None = None
) -> Iterator[tuple[Path, frozenset[str]]]:
    """Yield every run's directory below a folder, or that is it, with the names of its files.

    `unreadable` is told of each folder that cannot be looked into.
    """
    for place, folders, files in os.walk(folder, onerror=unreadable):
        folders[:] = [name for name in folders if not name.startswith(".")]
        if "spec.yaml" in files:
            folders.clear()
            yield Path(place), frozenset(files)


def run_folders(folder: Path) -> list[Path]:
    """Return the directories of all runs below a folder, or of the one that it is."""
    return sorted(place for place, _ in walk_runs(folder))


def out_of(run: Path) -> Path:
    """Return the folder of all runs that a run's directory belongs to: OUT/SCENARIO/STRATEGY/HASH-seedN."""
    return run.parents[min(2, len(run.parents) - 1)]


def finished_at(run: Path) -> int | None:
    """Return when a run was finished, in ns since the epoch; None if it is not, or nobody here may know."""
    try:
        return (run / "done").stat().st_mtime_ns
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return None


def require_writable(out: Path) -> None:
    """Raise `RequestError` where nothing could be written below `out`; leaves nothing behind."""
    there = out.resolve()
    try:
        if out.is_symlink() and not there.exists():
            raise RequestError(f"--out {out}: it is a link to {there}, which is not there")
        while not there.exists():
            there = there.parent
        with tempfile.TemporaryDirectory(dir=there):
            pass
    except OSError as error:
        raise RequestError(f"--out {out}: cannot write to {there} ({error.strerror})") from None
