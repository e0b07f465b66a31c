"""Plug-ins by name, found through entry-point groups: the built-in methods and networks too."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from importlib.metadata import Distribution, EntryPoint, distribution, distributions
from typing import Any

from strategies.plugins.faults import in_a_line
from strategies.plugins.importing import Importing

OWN_PACKAGE = "continual-seg-bench"
_NAME = re.compile(r"\w[\w.+-]*")
"""What a plug-in may be called: it stands in command lines, settings and names of folders."""


class UnknownPluginError(ValueError):
    """No installed package declares the plug-in, or several do."""


class BrokenPluginError(ValueError):
    """A package declares the plug-in, but it cannot be used: `reason` says why, in one line."""

    def __init__(self, kind: str, point: EntryPoint, reason: str) -> None:
        self.reason = reason
        package = f"{package_of(point)} {point.dist.version}" if point.dist else "unknown"
        super().__init__(f"{kind} '{point.name}' ({point.value} of {package}) {reason}")


@dataclass(frozen=True)
class Plugins:
    """The plug-ins of one entry-point group; `kind` is what messages call one of them."""

    group: str
    kind: str

    def entry_points(self) -> dict[str, EntryPoint]:
        """Return what installed packages declare, from their metadata alone, sorted by what it is asked for by.

        That is its name, or `package:name` where several packages declare the name.
        """
        return _by_name(self.group)

    def built_in_names(self) -> list[str]:
        """Return what the built-in ones are asked for by, whatever else is installed."""
        return [full_name(point) for point in self._declared() if package_of(point) == OWN_PACKAGE]

    def packages_declaring(self, name: str) -> list[str]:
        """Return the distributions that declare a plug-in of this name, sorted."""
        return [package_of(point) for point in self._declared() if point.name == name]

    def entry_point(self, name: str) -> EntryPoint:
        """Return the entry point of what is asked for as `name` or `package:name`; raise `UnknownPluginError`.

        Nothing is imported. A name that several packages declare is refused: none of them is the obvious one.
        """
        known = self.entry_points()
        package, colon, own_name = name.rpartition(":")
        for point in self._declared():
            if point.name == own_name and package_of(point) == _normalised(package):
                return point
        if name in known:
            return known[name]
        if not colon and (packages := self.packages_declaring(name)):
            choices = " or ".join(f"{package}:{name}" for package in packages)
            owners = " and by ".join(packages)
            raise UnknownPluginError(f"{self.kind} '{name}' is declared by {owners}; ask for {choices}")
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
        hint = f"; did you mean {near[0]}?" if near else ""
        names = ", ".join(known) or "none, which `pip install -e .` mends"  # an installation older than the group
        raise UnknownPluginError(f"unknown {self.kind} '{name}'{hint} (known: {names})")

    def load(self, name: str, fault_of: Callable[[object], str | None]) -> Any:
        """Import and return what a name stands for; `fault_of` tells what keeps it from being used.

        Raises `UnknownPluginError`, and `BrokenPluginError` whatever else happens. What the import prints goes to
        stderr, in the error its last line.
        """
        point = self.entry_point(name)
        if not _NAME.fullmatch(point.name):
            raise self.broken(point, "cannot be asked for: a name has letters, digits, '_', '.', '+' and '-' alone")
        if not point.pattern.match(point.value):
            raise self.broken(point, "cannot be imported: its package declares no MODULE:CLASS")
        loaded = self._imported(point)
        if fault := fault_of(loaded):
            raise self.broken(point, fault)
        return loaded

    def broken(self, point: EntryPoint, reason: str) -> BrokenPluginError:
        """Return the error that says why a plug-in cannot be used."""
        return BrokenPluginError(self.kind, point, reason)

    def unreadable_packages(self) -> dict[str, str]:
        """Return why the metadata of packages that seem to declare plug-ins cannot be read, by where they are."""
        return _metadata(self.group)[1]

    def _declared(self) -> list[EntryPoint]:
        return _metadata(self.group)[0]

    def _imported(self, point: EntryPoint) -> Any:
        importing = Importing()
        try:
            with nullcontext() if module_of(point) in sys.modules else importing:
                loaded = point.load()
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # it may end the process, or raise what is no Exception
            said = f"; it prints: {importing.last_line}" if importing.last_line else ""
            raise self.broken(point, f"cannot be imported: {in_a_line(error)}{said}") from error
        if importing.printed:
            print(importing.printed, end="", file=sys.stderr, flush=True)
        return loaded


def full_name(point: EntryPoint) -> str:
    """Return `package:name`, which is one plug-in's alone."""
    return f"{package_of(point)}:{point.name}"


def package_of(point: EntryPoint) -> str:
    """Return the name of the distribution that declares a plug-in; see `package_name`."""
    return package_name(point.dist) if point.dist else "unknown"


def package_name(dist: Distribution) -> str:
    """Return the name of a distribution, normalised as in PEP 503."""
    return _normalised(dist.name)


def module_of(point: EntryPoint) -> str:
    """Return the name of the module that a plug-in is declared to be in."""
    return point.value.partition(":")[0].strip()


def forget_metadata() -> None:
    """Have what is installed looked up anew."""
    _by_name.cache_clear()
    _metadata.cache_clear()


@cache
def _by_name(group: str) -> dict[str, EntryPoint]:
    points = _metadata(group)[0]
    names = [point.name for point in points]
    found = {point.name if names.count(point.name) == 1 else full_name(point): point for point in points}
    return dict(sorted(found.items()))


@cache
def _metadata(group: str) -> tuple[list[EntryPoint], dict[str, str]]:
    """Return each plug-in of each distribution once, and what cannot be read.

    Of two distributions of one name, and of two entries of one name, the first counts.
    """
    points: dict[str, EntryPoint] = {}
    unreadable: dict[str, str] = {}
    for found in distributions():
        try:
            if group in (found.read_text("entry_points.txt") or ""):
                first = distribution(found.name)
                for point in first.entry_points.select(group=group):
                    points.setdefault(full_name(point), point)
        except Exception as error:  # of a package that nobody may have asked for
            unreadable[str(found.locate_file(""))] = in_a_line(error)
    return sorted(points.values(), key=full_name), unreadable


def _normalised(package: str) -> str:
    return re.sub(r"[-_.]+", "-", package).lower()
