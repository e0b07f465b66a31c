"""The section `network`: which network, and that network's own settings."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from bench.settings.checking import Settings, checked
from bench.settings.errors import RequestError
from bench.settings.schema import Config
from benchmarks.paths import user_path
from strategies.learning.protocol import OfflineProtocol, OnlineProtocol
from strategies.networks.registry import network_class
from strategies.networks.settings import NetworkSettings
from strategies.plugins.registry import BrokenPluginError, UnknownPluginError

COMMON = tuple(field.name for field in dataclasses.fields(NetworkSettings))
"""Settings that every network has."""


def config_of(settings: Settings) -> Config:
    """Return checked settings, the network's by what the network takes; imports it. Raises `RequestError`."""
    network, incremental = settings.get("network"), settings.get("incremental")
    if isinstance(network, Mapping):
        settings = {**settings, "network": network_settings(network)}
    if isinstance(incremental, Mapping):
        settings = {**settings, "incremental": _incremental(incremental, settings.get("protocol", "online"))}
    return checked(Config, settings)


def _incremental(section: Mapping[str, Any], protocol: object) -> OnlineProtocol | OfflineProtocol:
    """Return the checked settings of a section `incremental`, by what the protocol has."""
    kinds = {"online": OnlineProtocol, "offline": OfflineProtocol}
    kind = kinds.get(protocol if isinstance(protocol, str) else "", OnlineProtocol)
    own = {field.name for field in dataclasses.fields(kind)}
    for other, known in kinds.items():
        for key in section.keys() & {field.name for field in dataclasses.fields(known)} - own:
            raise RequestError(f"incremental.{key} is a setting of protocol={other}, and the protocol is {protocol}")
    return checked(kind, section, "incremental", Config)


def network_settings(section: Mapping[str, Any]) -> NetworkSettings:
    """Return the checked settings of a section `network`; imports the network. Raises `RequestError`."""
    from strategies.networks.weights import is_file_name, weights_fault

    common = checked(NetworkSettings, {key: section[key] for key in COMMON if key in section}, "network")
    try:
        kind = network_class(common.name)
    except (BrokenPluginError, UnknownPluginError) as error:
        raise RequestError(f"network.name={common.name}: {error}") from error
    settings = checked(kind.Settings, section, "network")
    if is_file_name(settings.weights):
        settings = dataclasses.replace(settings, weights=str(user_path(settings.weights).absolute()))
    if fault := kind.fault(settings) or weights_fault(kind, settings):
        raise RequestError(f"network.{fault}")
    return settings


def without_others(section: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return a section `network` without what is another network's own where the one over it names another."""
    same = "name" not in section or over.get("name", section["name"]) == section["name"]
    return dict(section) if same else {key: value for key, value in section.items() if key in COMMON}
