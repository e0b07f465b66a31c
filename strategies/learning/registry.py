"""Methods by name, found through the entry-point group `bench.strategies`: the built-in ones too."""

from __future__ import annotations

import dataclasses
import difflib
import re
import sys
from contextlib import nullcontext
from functools import cache
from importlib.metadata import Distribution, EntryPoint, distribution, distributions
from typing import Any

from strategies.learning.faults import in_a_line
from strategies.learning.importing import Importing
from strategies.learning.protocol import PROTOCOLS

GROUP = "bench.strategies"
OWN_PACKAGE = "continual-seg-bench"
_NAME = re.compile(r"\w[\w.+-]*")
"""What a method may be called: it stands in command lines, settings and names of folders."""


class UnknownStrategyError(ValueError):
    """No installed package declares the strategy, or several do."""


class BrokenStrategyError(ValueError):
    """A package declares the strategy, but it cannot be used: `reason` says why, in one line."""

    def __init__(self, point: EntryPoint, reason: str) -> None:
        self.reason = reason
        package = f"{package_of(point)} {point.dist.version}" if point.dist else "unknown"
        super().__init__(f"strategy '{point.name}' ({point.value} of {package}) {reason}")


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


def built_in_names() -> list[str]:
    """Return what the built-in methods are asked for by, whatever else is installed."""
    return [full_name(point) for point in _declared() if package_of(point) == OWN_PACKAGE]


def packages_declaring(name: str) -> list[str]:
    """Return the distributions that declare a method of this name, sorted."""
    return [package_of(point) for point in _declared() if point.name == name]


def module_of(point: EntryPoint) -> str:
    """Return the name of the module that a method is declared to be in."""
    return point.value.partition(":")[0].strip()


def method_class(name: str) -> type[Any]:
    """Import and return the method's class, a `strategies.learning.method.Method`.

    Raises `UnknownStrategyError`, and `BrokenStrategyError` whatever else happens. What the import prints goes to
    stderr, in the error its last line.
    """
    point = entry_point(name)
    if not _NAME.fullmatch(point.name):
        raise BrokenStrategyError(point, "cannot be asked for: a name has letters, digits, '_', '.', '+' and '-' alone")
    if not point.pattern.match(point.value):
        raise BrokenStrategyError(point, "cannot be imported: its package declares no MODULE:CLASS")
    kind: type[Any] = _loaded(point)
    if fault := _fault(kind):
        raise BrokenStrategyError(point, fault)
    return kind


def _loaded(point: EntryPoint) -> Any:
    importing = Importing()
    try:
        with nullcontext() if module_of(point) in sys.modules else importing:
            kind = point.load()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # it may end the process, or raise what is no Exception
        said = f"; it prints: {importing.last_line}" if importing.last_line else ""
        raise BrokenStrategyError(point, f"cannot be imported: {in_a_line(error)}{said}") from error
    if importing.printed:
        print(importing.printed, end="", file=sys.stderr, flush=True)
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


def unreadable_packages() -> dict[str, str]:
    """Return why the metadata of packages that seem to declare methods cannot be read, by where they are."""
    return _metadata()[1]


def _declared() -> list[EntryPoint]:
    return _metadata()[0]


@cache
def _metadata() -> tuple[list[EntryPoint], dict[str, str]]:
    """Return each method of each distribution once, and what cannot be read.

    Of two distributions of one name, and of two entries of one name, the first counts.
    """
    points: dict[str, EntryPoint] = {}
    unreadable: dict[str, str] = {}
    for found in distributions():
        try:
            if GROUP in (found.read_text("entry_points.txt") or ""):
                first = distribution(found.name)
                for point in first.entry_points.select(group=GROUP):
                    points.setdefault(full_name(point), point)
        except Exception as error:  # of a package that nobody may have asked for
            unreadable[str(found.locate_file(""))] = in_a_line(error)
    return sorted(points.values(), key=full_name), unreadable


def _normalised(package: str) -> str:
    return re.sub(r"[-_.]+", "-", package).lower()
