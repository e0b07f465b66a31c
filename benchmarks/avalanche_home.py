"""Avalanche without a home: when it is imported it writes `~/.avalanche/config.json`, which nothing here needs."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType

from benchmarks.paths import home

_WRITES_AT_HOME = "avalanche.benchmarks.datasets.dataset_utils"


def let_avalanche_do_without_home() -> None:
    """Have Avalanche be imported where its folder in the user's home cannot be made or read."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    """Finds the one module of Avalanche that writes, and gives it another loader."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != _WRITES_AT_HOME:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


class _Loader(SourceFileLoader):
    """Executes the module, with a home that lasts as long where the user's will not do."""

    def exec_module(self, module: ModuleType) -> None:
        if home():  # where there is none, Avalanche makes a folder of that name
            try:
                return super().exec_module(module)
            except (OSError, ValueError):  # not to be written to; or its file cut off, by a full disk say
                pass
        with _passing_home():
            super().exec_module(module)


@contextmanager
def _passing_home() -> Iterator[None]:
    before = os.environ.get("HOME")
    with tempfile.TemporaryDirectory(prefix="avalanche-") as folder:
        os.environ["HOME"] = folder
        try:
            yield
        finally:
            del os.environ["HOME"]
            if before is not None:
                os.environ["HOME"] = before
