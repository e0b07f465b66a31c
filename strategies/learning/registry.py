"""Methods by name, found through the entry-point group `bench.strategies`: the built-in ones too."""

from __future__ import annotations

import dataclasses
from typing import Any

from strategies.learning.protocol import PROTOCOLS
from strategies.plugins.registry import Plugins

STRATEGIES = Plugins("bench.strategies", "strategy")


def method_class(name: str) -> type[Any]:
    """Import and return the method's class, a `strategies.learning.method.Method`; raises as `Plugins.load` does."""
    kind: type[Any] = STRATEGIES.load(name, _fault)
    return kind


def _fault(kind: object) -> str | None:
    """Return what keeps an object from being a method's class."""
    from strategies.learning.method import Method

    if not isinstance(kind, type) or not issubclass(kind, Method):
        return "is no class derived from strategies.api.Method"
    if not dataclasses.is_dataclass(getattr(kind, "Parameters", None)):
        return "has no Parameters, a dataclass of its hyper-parameters"
    if missing := getattr(kind, "__abstractmethods__", None):
        return f"lacks {', '.join(sorted(missing))}"
    if getattr(kind, "offline", False):
        return "says offline, which is protocols = ('joint',) now"
    if not isinstance(kind.protocols, tuple) or not kind.protocols or not set(kind.protocols) <= set(PROTOCOLS):
        return f"names as its protocols {kind.protocols!r}; there are {', '.join(PROTOCOLS)}"
    return None
