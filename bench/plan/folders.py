"""Where things lie: runs and what stands beside their records, base models, and the files of a data set."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.settings.errors import RequestError
from bench.settings.plain_yaml import read_yaml
from benchmarks.cache import NAME, cache_folder
from benchmarks.paths import home, user_path
from benchmarks.sets.registry import image_set_class


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


def data_root_of(dataset: str, given: Path | None) -> Path | None:
    """Return the folder of a data set's files: the one given, else the usual one; an embedded set has none.

    Raises `RequestError` where the user's file is to say it and does not.
    """
    return given if given is not None or image_set_class(dataset).embedded else usual_data_root()


def usual_data_root() -> Path | None:
    """Return BENCH_DATA_ROOT, or `data_root` in XDG_CONFIG_HOME/continual-seg-bench/config.yaml; None without both.

    Raises `RequestError` where the file cannot be read or says something else.
    """
    if chosen := os.environ.get("BENCH_DATA_ROOT"):
        return user_path(chosen)
    file = _user_file()
    if file is None:
        return None
    settings = read_yaml(file)
    for key in settings:
        if key != "data_root":
            raise RequestError(f"{file}: unknown setting {key}; known here: data_root")
    root = settings.get("data_root")
    if not isinstance(root, str):
        problem = f"data_root is {root!r}" if settings else "there is no data_root"
        raise RequestError(f"{file}: {problem}, it is the path of a folder; --data-root DIR does without")
    return user_path(root)


def _user_file() -> Path | None:
    chosen, at_home = os.environ.get("XDG_CONFIG_HOME"), home()
    above = user_path(chosen) if chosen else at_home and at_home / ".config"
    if above is None:
        return None
    file = above / NAME / "config.yaml"
    try:
        return file if file.is_file() else None
    except OSError as error:
        raise RequestError(f"cannot read the settings {file} ({error.strerror})") from None
