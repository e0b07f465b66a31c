"""Methods by name, found through the entry-point group `bench.strategies`: the built-in ones too."""

from __future__ import annotations

import difflib
import re
from functools import cache
from importlib.metadata import Distribution, EntryPoint, entry_points
from typing import Any

GROUP = "bench.strategies"
OWN_PACKAGE = "continual-seg-bench"


class UnknownStrategyError(ValueError):
    """No installed package declares the strategy, or several do."""


class BrokenStrategyError(ValueError):
    """A package declares the strategy, but importing it fails."""


@cache
def strategy_entry_points() -> dict[str, EntryPoint]:
    """Return what installed packages declare, from their metadata alone, sorted by what it is asked for by.

    That is its name, or `package:name` where several packages declare the name.
    """
    points = _declared()
    names = [point.name for point in points]
    found = {point.name if names.count(point.name) == 1 else full_name(point): point for point in points}
    return dict(sorted(found.items()))


def full_name(point: EntryPoint) -> str:
    """Return `package:name`, which is one method's alone."""
    return f"{package_of(point)}:{point.name}"


def package_of(point: EntryPoint) -> str:
    """Return the name of the distribution that declares a method; see `package_name`."""
    return package_name(point.dist) if point.dist else "unknown"


def package_name(dist: Distribution) -> str:
    """Return the name of a distribution, normalised as in PEP 503."""
    return _normalised(dist.name)


def packages_declaring(name: str) -> list[str]:
    """Return the distributions that declare a method of this name, sorted."""
    return [package_of(point) for point in _declared() if point.name == name]


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
    """Return the entry point of a method asked for as `name` or `package:name`; raise `UnknownStrategyError`.

    Nothing is imported. A name that several packages declare is refused: none of them is the obvious one.
    """
    known = strategy_entry_points()
    package, colon, own_name = name.rpartition(":")
    for point in _declared():
        if point.name == own_name and package_of(point) == _normalised(package):
            return point
    if name in known:
        return known[name]
    if not colon and (packages := packages_declaring(name)):
        choices = " or ".join(f"{package}:{name}" for package in packages)
        raise UnknownStrategyError(f"strategy '{name}' is declared by {' and by '.join(packages)}; ask for {choices}")
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise UnknownStrategyError(f"unknown strategy '{name}'{hint} (known: {', '.join(known)})")


@cache
def _declared() -> list[EntryPoint]:
    """Return each method of each distribution once; of two entries of one distribution metadata has the first."""
    points = {full_name(point): point for point in reversed(list(entry_points(group=GROUP)))}
    return sorted(points.values(), key=full_name)


def _normalised(package: str) -> str:
    return re.sub(r"[-_.]+", "-", package).lower()
