"""Networks by name, found through the entry-point group `bench.networks`: the built-in ones too."""

from __future__ import annotations

import dataclasses
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from strategies.networks.settings import NetworkSettings
from strategies.plugins.registry import BrokenPluginError, Plugins

if TYPE_CHECKING:
    from strategies.networks.backbone import Backbone

NETWORKS = Plugins("bench.networks", "network")


class MissingPackageError(BrokenPluginError):
    """A network needs a package that is not installed; `reason` says how it is."""


def network_class(name: str) -> type[Backbone]:
    """Import and return the network's class.

    Raises `UnknownPluginError`, `MissingPackageError`, and `BrokenPluginError` whatever else happens.
    """
    kind: type[Backbone] = NETWORKS.load(name, _fault)
    for package, requirement in kind.packages.items():
        try:
            version(package)
        except PackageNotFoundError:
            reason = f'needs {package}: pip install "{requirement}"'
            raise MissingPackageError(NETWORKS.kind, NETWORKS.entry_point(name), reason) from None
    return kind


def _fault(kind: Any) -> str | None:
    """Return what keeps an object from being a network's class."""
    from strategies.networks.backbone import Backbone

    if not isinstance(kind, type) or not issubclass(kind, Backbone):
        return "is no class derived from strategies.api.Backbone"
    settings = kind.Settings
    if not isinstance(settings, type) or not issubclass(settings, NetworkSettings):
        return "has Settings that do not derive from strategies.api.NetworkSettings"
    if kind.forward is Backbone.forward:
        return "lacks forward"
    added = dataclasses.fields(settings)[len(dataclasses.fields(NetworkSettings)) :]
    for field in added:
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            return f"has a setting without a default: {field.name}"
    return None
