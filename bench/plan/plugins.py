"""The packages that the code of a method or of a network comes from, as they are installed here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from importlib.metadata import Distribution
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bench.plan.deciding import RUN, Files, deciding_modules, digest_of, imported_modules, module_files, own_modules
from strategies.learning.registry import STRATEGIES
from strategies.networks.registry import NETWORKS
from strategies.plugins.registry import OWN_PACKAGE, Plugins, module_of, package_name, package_of

_KINDS = (STRATEGIES, NETWORKS)


@cache
def plugins_of(name: str, kind: Plugins) -> list[dict[str, Any]]:
    """Return distribution, version and digest of the code of each package that a method's or network's code comes from.

    The first is the one that declares it, which may be the harness; others are plug-ins that this one imports. The code
    of a plug-in is all of its files, that of a built-in one its module; with it goes what it imports of the harness and
    other runs do not. Raises `UnknownPluginError`.
    """
    point = kind.entry_point(name)
    if point.dist and package_of(point) == OWN_PACKAGE:
        return [_plugin(point.dist, [], [module_of(point)])]
    return [_plugin(dist, _files(dist), _imports(dist)) for dist in _distributions(point.dist)]


def _plugin(dist: Distribution, files: Files, imports: Iterable[str]) -> dict[str, Any]:
    alone = set(deciding_modules(own_modules(imports))) - set(deciding_modules(RUN))
    return {
        "distribution": package_name(dist),
        "version": dist.version,
        "code": digest_of([*files, *module_files(sorted(alone))]),
    }


def _distributions(first: Distribution | None) -> list[Distribution]:
    """Return a plug-in's distribution and those of plug-ins whose modules it imports, directly or not."""
    found: list[Distribution] = []
    waiting = [first] if first else []
    while waiting:
        dist = waiting.pop(0)
        if dist.name not in [other.name for other in found]:
            found.append(dist)
            imported = {name.partition(".")[0] for name in _imports(dist)}
            waiting += [other for other in _plugins() if imported & _top_modules(other)]
    return [*found[:1], *sorted(found[1:], key=lambda dist: dist.name)]


def _plugins() -> list[Distribution]:
    """Return the distributions, other than the harness, that declare methods or networks."""
    points = [point for kind in _KINDS for point in kind.entry_points().values()]
    return [point.dist for point in points if point.dist and package_of(point) != OWN_PACKAGE]


def _top_modules(dist: Distribution) -> set[str]:
    """Return the names of a distribution's top-level modules and packages; `__main__` is whatever was started."""
    points = [point for kind in _KINDS for point in dist.entry_points.select(group=kind.group)]
    declared = {module_of(point).partition(".")[0] for point in points}
    listed = set((dist.read_text("top_level.txt") or "").split())
    recorded = {file.parts[0].removesuffix(".py") for file in dist.files or () if file.suffix == ".py"}
    return {name for name in declared | listed | recorded if name and not name.startswith((".", "__"))}


def _files(dist: Distribution) -> Files:
    """Return the files of a distribution's modules and packages, wherever it is installed, each with its name."""
    return sorted(found for top in _top_modules(dist) for found in _module_files(top))


def _module_files(top: str) -> Iterator[tuple[str, Path]]:
    spec = find_spec(top)
    if spec is None:
        return
    if spec.submodule_search_locations is None and spec.origin:
        yield Path(spec.origin).name, Path(spec.origin)
    for folder in map(Path, spec.submodule_search_locations or ()):
        files = (file for file in folder.rglob("*") if file.is_file() and file.suffix != ".pyc")
        yield from ((f"{top}/{file.relative_to(folder).as_posix()}", file) for file in files)


def _imports(dist: Distribution) -> set[str]:
    found: set[str] = set()
    for name, file in _files(dist):
        if name.endswith(".py"):
            try:
                found.update(imported_modules(file.read_bytes()))
            except (SyntaxError, ValueError):  # a template perhaps; importing the method tells
                continue
    return found
