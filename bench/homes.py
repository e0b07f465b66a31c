"""Places for what libraries keep in the user's home, where there is none that can be written to."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path

from benchmarks.cache import cache_folder
from benchmarks.errors import DataError
from benchmarks.paths import can_write, home

_KEPT_AT_HOME = {
    "MPLCONFIGDIR": ("XDG_CONFIG_HOME", ".config", "matplotlib"),
    "TORCH_HOME": ("XDG_CACHE_HOME", ".cache", "torch"),
    "WANDB_CACHE_DIR": ("XDG_CACHE_HOME", ".cache", "wandb"),
    "WANDB_CONFIG_DIR": ("XDG_CONFIG_HOME", ".config", "wandb"),
    "WANDB_DATA_DIR": ("XDG_DATA_HOME", ".local/share", "wandb-data"),
}
"""By the variable that names a library's folder: the one above it, or that below the home, and its name."""
_READ = ("TORCH_HOME", "WANDB_CONFIG_DIR")
"""What is of use where it can only be read: weights, settings."""


def give_homes() -> None:
    """Name folders of our cache by the libraries' variables, and by TMPDIR, where their own cannot be written to."""
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        _give("TMPDIR", "tmp")
    at_home = home()
    for variable, (above, usual, name) in _KEPT_AT_HOME.items():
        if variable in os.environ:
            continue
        parent = Path(os.environ[above]) if os.environ.get(above) else at_home and at_home / usual
        if parent and (can_write(parent / name) or (variable in _READ and (parent / name).is_dir())):
            continue
        _give(variable, "libraries", name)


def _give(variable: str, *parts: str) -> None:
    with suppress(DataError, OSError):  # what needs the cache says so, or finds another place
        os.environ[variable] = str(cache_folder(*parts))
