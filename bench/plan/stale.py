"""Finished runs that other code, other packages or other plug-ins made than would make them here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bench.plan.spec import COMPUTING, PACKAGES
from reports.spec import Spec
from strategies.learning.registry import STRATEGIES
from strategies.plugins.registry import OWN_PACKAGE, UnknownPluginError

AGAIN = "`--overwrite stale` makes them again"
SHOWN_REASONS = 5
_PLUGINS = {"plugins": "method", "network_plugins": "network"}
"""Where a spec records by which packages what was made."""
_KEYS = {"distribution", "version", "code"}
_COMPARED = ("avalanche-lib", *COMPUTING)
_OF_ALL = ("python", *PACKAGES)


def made_otherwise(spec: Spec, here: Mapping[str, Any]) -> list[str]:
    """Return by what a run was made that is not what it would be made by here (`bench.plan.spec.made_by`); [] if equal.

    Code that decides no number of the run is not compared, nor are the versions of Python and of the packages
    whose code is compared itself.
    """
    found = []
    if not isinstance(spec.get("versions"), dict) or not _plugins(spec, "plugins"):
        return ["older code"]
    if spec.get("numbers_code") != here["numbers_code"]:
        found.append(f"other code ({_short(spec.get('numbers_code'))})")
    for package in (*_COMPARED, *network_packages(here)):
        if (version := spec["versions"].get(package)) != here["versions"][package]:
            found.append(f"{package} {version}")
    for key in _PLUGINS:
        there, now = _plugins(spec, key), _plugins(here, key)
        if there and there.keys() != now.keys():
            found += [text for plugin, text in there.items() if plugin not in now] or ["fewer plug-ins"]
    return found


def staleness(spec: Spec, made_here: Callable[[str, str | None, tuple[str, ...]], Mapping[str, Any]]) -> list[str]:
    """Return what `made_otherwise` does, by what the run would be made by here (`bench.plan.spec.made_by`).

    [] where its method or its network is not installed.
    """
    network = spec["config"].get("network")
    name = str(network["name"]) if isinstance(network, dict) and "name" in network else None
    try:
        return made_otherwise(spec, made_here(method_of(spec), name, network_packages(spec)))
    except UnknownPluginError:
        return []


def network_packages(made_by: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the packages whose versions are recorded for the network's sake."""
    versions = made_by.get("versions")
    return tuple(package for package in versions if package not in _OF_ALL) if isinstance(versions, dict) else ()


def method_of(spec: Spec) -> str:
    """Return what a run's method is asked for by, whatever else is installed by now."""
    return _with_package(spec["method"]["name"], spec)


def label_of(spec: Spec) -> str:
    """Return what a run's strategy, its parameters with it, is asked for by, whatever else is installed by now."""
    return _with_package(spec["strategy"], spec)


def stale_text(reasons: Sequence[Sequence[str]], finished: int) -> str:
    """Return one line on stale runs, of which each has its reasons, among so many finished ones."""
    every = list(dict.fromkeys(reason for own in reasons for reason in own))
    if len(every) > SHOWN_REASONS:
        every = [*every[: SHOWN_REASONS - 1], f"{len(every) - SHOWN_REASONS + 1} others"]
    one_of = every[0] if len(every) == 1 else f"{', '.join(every[:-1])} or {every[-1]}"
    return f"{len(reasons)} of {finished} finished runs were made by {one_of}: {AGAIN}"


def _with_package(name: str, spec: Spec) -> str:
    built_in = any(distribution == OWN_PACKAGE for distribution, _ in _plugins(spec, "plugins"))
    others = len(STRATEGIES.packages_declaring(name.partition("(")[0])) > 1
    return f"{OWN_PACKAGE}:{name}" if built_in and others else name


def _plugins(made_by: Mapping[str, Any], key: str) -> dict[tuple[str, str], str]:
    """Return plug-ins by their names and digests, each as text; {} where they are not recorded."""
    recorded = made_by.get(key)
    if not isinstance(recorded, list) or not all(isinstance(one, dict) and one.keys() >= _KEYS for one in recorded):
        return {}
    return {(str(one["distribution"]), str(one["code"])): _plugin_text(one, _PLUGINS[key]) for one in recorded}


def _plugin_text(plugin: Mapping[str, Any], of: str) -> str:
    if plugin["distribution"] == OWN_PACKAGE:
        return f"other code of the {of} ({_short(plugin['code'])})"
    return f"{plugin['distribution']} {plugin['version']} ({_short(plugin['code'])})"


def _short(digest: object) -> str:
    return str(digest)[:12]
