"""Methods by name, found through the entry-point group `bench.strategies`: the built-in ones too."""

from __future__ import annotations

import difflib
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

GROUP = "bench.strategies"


class UnknownStrategyError(ValueError):
    """No installed package declares the strategy."""


class BrokenStrategyError(ValueError):
    """A package declares the strategy, but importing it fails."""


@cache
def strategy_entry_points() -> dict[str, EntryPoint]:
    """Return what installed packages declare, by name, from their metadata alone."""
    return {point.name: point for point in sorted(entry_points(group=GROUP), key=lambda p: p.name)}


def method_class(name: str) -> type[Any]:
    """Import and return the method's class; raise `UnknownStrategyError` or `BrokenStrategyError`."""
    point = entry_point(name)
    try:
        kind: type[Any] = point.load()
    except Exception as error:
        raise BrokenStrategyError(
            f"strategy '{name}' ({point.value}) cannot be imported: {type(error).__name__}: {error}"
        ) from error
    return kind


def entry_point(name: str) -> EntryPoint:
    """Return a method's entry point without importing it; raise `UnknownStrategyError`."""
    known = strategy_entry_points()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UnknownStrategyError(f"unknown strategy '{name}'{hint} (known: {', '.join(known)})")
    return known[name]
