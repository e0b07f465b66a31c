"""Where a data set lies that nobody named a folder for: the environment or the user's file says it."""

from __future__ import annotations

import os
from pathlib import Path

from bench.settings.errors import RequestError
from bench.settings.merging import read_yaml
from benchmarks.cache import NAME
from benchmarks.paths import home, user_path
from benchmarks.sets.registry import image_set_class


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
