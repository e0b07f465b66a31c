"""Continual-learning methods: one method, one file, and in it the paper's equations alone.

`learning/` is what methods are made of and trained by, `networks/` what is trained. Both may change from one version to
the next; `api` is what plug-ins import from, and its names stay.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

_FORMER = {f"strategies.{name}" for name in ("losses", "memory", "method", "network", "protocol", "template")}


class _FormerModules(MetaPathFinder, Loader):
    """Gives `strategies.api` to plug-ins that import from the modules in which its names once were."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(fullname, self) if fullname in _FORMER else None

    def exec_module(self, module: ModuleType) -> None:
        sys.modules[module.__name__] = import_module("strategies.api")


sys.meta_path.insert(0, _FormerModules())
