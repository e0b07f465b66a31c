"""Presets, files and `--set`, merged: the later over the earlier."""

from __future__ import annotations

import copy
import dataclasses
import difflib
import fnmatch
import importlib.resources
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, get_args

from bench.settings.assignments import pair_of, require_once, split_assignments
from bench.settings.checking import Settings
from bench.settings.errors import RequestError
from bench.settings.networks import config_of, without_others
from bench.settings.plain_yaml import read_yaml
from bench.settings.schema import VALID_FRACTION, Config, DataConfig
from bench.settings.usual import PRESETS, usual_preset
from benchmarks.paths import user_path
from strategies.learning.protocol import OfflineProtocol, OnlineProtocol, ProtocolName
from strategies.learning.registry import STRATEGIES
from strategies.networks.settings import OF_INCREMENTS
from strategies.plugins.registry import UnknownPluginError

LAUNCHER_SECTION = "slurm"
"""Settings that stand beside those of a run, and change none of its numbers."""
METHODS_SECTION = "methods"
"""Below it stand names of methods, and below each a section `incremental` for its runs alone."""
_OF_RESIZED_CROPS, _OF_SCALED_CROPS = ("area", "aspect"), ("padding", "fill", "fill_colour")
_WITHOUT_EFFECT: dict[str, dict[str, Any]] = {
    "scale_crop": {key: getattr(DataConfig, key) for key in _OF_RESIZED_CROPS},
    "resized_crop": {"scale": (1.0, 1.0), **{key: getattr(DataConfig, key) for key in _OF_SCALED_CROPS}},
}
"""By the kind of augmentation what settings of the other kind must be: as if they were not set."""


def resolve_config(
    scenario: str,
    preset: str | None = None,
    file: Path | None = None,
    assignments: Sequence[str] = (),
    evaluate_on: str | None = None,
) -> Config:
    """Return the settings: the presets, then the file, then each `key=value`, checked.

    `preset` may name several, `mib,small`: the later over the earlier, and over all what one says for when the other is
    chosen too. Without one it is the usual one of the
    scenario's data set on a CPU. `evaluate_on` is as for `resolve`. In a preset or file, settings below
    `scenarios: PATTERN:` hold for the scenarios that match, those below `protocols: NAME:` where that protocol is
    chosen, over the others; those below `methods: NAME:` are checked, and left out. Raises `RequestError` for an
    unknown preset, key or strategy and for a value outside its range.
    """
    chosen = usual_preset(scenario.partition("-")[0], "cpu") if preset is None else preset
    return resolve(scenario, chosen, settings_said(scenario, file, assignments), evaluate_on)


def settings_said(scenario: str, file: Path | None, assignments: Sequence[str]) -> list[Settings]:
    """Return what a file and each `key=value` say for a scenario, unchecked; the later holds over the earlier."""
    of_file = [_for_scenario(read_yaml(file), scenario)] if file is not None else []
    return [*of_file, assigned(assignments)]


def resolve(
    scenario: str, preset: str, said: Sequence[Settings], evaluate_on: str | None = None, method: Sequence[str] = ()
) -> Config:
    """Return the settings of presets with what was said over them, checked.

    `evaluate_on` chooses the stream over all of them; `valid` holds out `VALID_FRACTION` where no fraction is set. What
    is said for one of the names of a `method` alone is over the rest, the first name's over the others'.
    """
    settings = by_protocol([*_of_presets(preset.split(","), scenario), *said])
    settings.pop(LAUNCHER_SECTION, None)
    of_methods = _of_methods(settings.pop(METHODS_SECTION, {}))
    settings = merged(settings, *(of_methods.get(name, {}) for name in reversed(method)))
    if evaluate_on is not None:
        settings = merged(settings, {"evaluation": {"stream": evaluate_on}})
    if evaluate_on == "valid" and not settings["evaluation"].get("valid_fraction"):
        settings = merged(settings, {"evaluation": {"valid_fraction": VALID_FRACTION}})
    config = _with_absolute_list(config_of(settings))
    _require_known("strategies", config.strategies)
    _require_known(METHODS_SECTION, of_methods)
    _check_together(config)
    return config


def _require_known(section: str, names: Iterable[str]) -> None:
    """Raise `RequestError` for a name below a section that is no strategy's."""
    for name in names:
        try:
            if not STRATEGIES.packages_declaring(name):
                STRATEGIES.entry_point(name)
        except UnknownPluginError as error:
            raise RequestError(f"{section}.{name}: {error}") from None


def _of_methods(section: Any) -> Settings:
    """Return what is said for the runs of single methods; raise `RequestError` for more than their increments."""
    told = f"{METHODS_SECTION}: below it stand names of strategies, and below each a section incremental alone"
    if not isinstance(section, dict):
        raise RequestError(told)
    for of_one in section.values():
        if not isinstance(of_one, dict) or of_one.keys() - {"incremental"}:
            raise RequestError(told)
        if not isinstance(of_one.get("incremental", {}), dict):
            raise RequestError(told)
    return section


def launcher_section(said: Sequence[Settings]) -> Settings:
    """Return the settings that tell how jobs are submitted, unchecked."""
    section = by_protocol(said).get(LAUNCHER_SECTION, {})
    if not isinstance(section, dict):
        raise RequestError(f"{LAUNCHER_SECTION}={section!r}: a section of settings is a mapping")
    return section


def network_name(said: Sequence[Settings]) -> str | None:
    """Return which network the settings name over the preset's, unchecked and without importing it."""
    network = by_protocol(said).get("network")
    name = network.get("name") if isinstance(network, dict) else None
    return name if isinstance(name, str) else None


def _with_absolute_list(config: Config) -> Config:
    """Return the settings with a training list that jobs find whatever folder they start in."""
    if config.data.train_list is None:
        return config
    file = str(user_path(config.data.train_list).absolute())
    return dataclasses.replace(config, data=dataclasses.replace(config.data, train_list=file))


def preset_settings(preset: str, scenario: str) -> Settings:
    """Return what a preset says for a scenario, unchecked; raise `RequestError` for an unknown one."""
    if preset not in PRESETS:
        near = difflib.get_close_matches(preset, PRESETS, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise RequestError(f"unknown preset '{preset}'{hint} (known: {', '.join(PRESETS)})")
    return _for_scenario(copy.deepcopy(_in_file(preset)), scenario)


@cache
def _in_file(preset: str) -> Settings:
    return read_yaml(importlib.resources.files("bench.settings") / "presets" / f"{preset}.yaml")


def _of_presets(names: Sequence[str], scenario: str) -> list[Settings]:
    """What presets say, and over it what each says for when another of them is chosen too (`presets: NAME:`)."""
    layers = [preset_settings(name, scenario) for name in names]
    beside = [layer.pop("presets", {}) for layer in layers]
    return [*layers, *(special[name] for special in beside for name in names if name in special)]


def assigned(assignments: Sequence[str]) -> Settings:
    """Return what each `key=value` says, unchecked; the later holds over the earlier."""
    settings: Settings = {}
    for given in assignments:
        pairs = [pair_of(text, "--set") for text in split_assignments(given)]
        require_once([key for key, _ in pairs], f"--set {given}")
        for key, value in pairs:
            nested: Any = value
            for part in reversed(key.split(".")):
                nested = {part: nested}
            settings = merged(settings, nested)
    return settings


def by_protocol(layers: Sequence[Settings]) -> Settings:
    """Return merged settings, those below `protocols: NAME:` over the others of their layer where it is chosen."""
    chosen, known = merged(*layers).get("protocol", "online"), get_args(ProtocolName)
    if chosen not in known:
        raise RequestError(f"protocol={chosen!r}: input should be {' or '.join(map(repr, known))}")
    taken = []
    for layer in layers:
        protocols = layer.get("protocols", {})
        if not isinstance(protocols, dict) or not set(protocols) <= set(known):
            raise RequestError(f"protocols: below it stand {' and '.join(known)}, below each sections")
        plain = {key: value for key, value in layer.items() if key != "protocols"}
        taken.append(merged(plain, protocols.get(chosen, {})))
    return merged(*taken)


def _check_together(config: Config) -> None:
    _check_augmentation(config.data)
    if config.data.jpeg_draft and config.data.size is None:
        raise RequestError("data.jpeg_draft=true needs data.size: only images that are squeezed are decoded smaller")
    if config.data.size is not None and config.evaluation.short_side is not None:
        raise RequestError("evaluation.short_side is for images as they are; data.size squeezes them to one size")
    if config.data.size is None and config.evaluation.short_side is None and config.evaluation.batch_size > 1:
        raise RequestError("evaluation.batch_size must be 1 where images differ in size (data.size is null)")
    if config.data.crop is None and (config.data.size is None or config.data.scale != (1.0, 1.0)):
        raise RequestError("data.crop must be set where data.size is null or data.scale varies: images differ in size")
    if config.protocol == "online" and config.memory.size == 0:
        raise RequestError("memory.size=0: the online protocol replays images; protocol=offline needs none")
    if config.protocol == "offline" and config.base.devices > 1 and config.memory.size:
        raise RequestError(f"memory.size={config.memory.size}: increments on several devices (base.devices) have none")
    _check_shares(config.incremental)
    for key in ("lr_factors", "weight_decays"):
        if absent := getattr(config.base, key).keys() & OF_INCREMENTS:
            raise RequestError(
                f"base.{key}.{min(absent)}: of increments alone; in the base step outputs are 'classifier'"
            )
    _check_updates("base", config.base, config)
    _check_updates("incremental", config.incremental, config)
    if config.evaluation.stream == "valid" and config.evaluation.valid_fraction == 0:
        raise RequestError("evaluation.stream=valid needs evaluation.valid_fraction above 0")


def _check_updates(where: str, section: Any, config: Config) -> None:
    """Raise `RequestError` where a section's updates cannot be made as it says."""
    parts = getattr(section, "accumulate", 1)
    if config.base.devices > 1 and parts > 1:
        raise RequestError(f"{where}.accumulate and base.devices both divide a batch: one of them must be 1")
    if parts > section.batch_size:
        raise RequestError(f"{where}.accumulate={parts}: a batch has {where}.batch_size={section.batch_size} images")
    if getattr(section, "weights", "last") == "best" and config.evaluation.valid_fraction == 0:
        raise RequestError(f"{where}.weights=best needs evaluation.valid_fraction above 0, never test images")


def _check_shares(incremental: OnlineProtocol | OfflineProtocol) -> None:
    """Raise `RequestError` where an update has fewer images than there are devices to share them."""
    if isinstance(incremental, OnlineProtocol) and incremental.devices > 2 * incremental.batch_size:
        raise RequestError(
            f"incremental.devices={incremental.devices}: an update has {incremental.batch_size} incoming images and as "
            f"many from memory to share; base.devices alone shares the base training"
        )


def _check_augmentation(data: DataConfig) -> None:
    for key in ("scale", "area", "aspect"):
        low, high = getattr(data, key)
        if low > high:
            raise RequestError(f"data.{key} {[low, high]}: the first value is above the second")
    for key, unset in _WITHOUT_EFFECT[data.augmentation].items():
        if (value := getattr(data, key)) != unset:
            given, rest = (list(each) if isinstance(each, tuple) else each for each in (value, unset))
            with_ = f"with data.augmentation={data.augmentation}"
            raise RequestError(f"data.{key}={given} has no effect {with_}; leave it at {rest}")


def _for_scenario(settings: Settings, scenario: str) -> Settings:
    """Return the settings with those of the matching `scenarios` patterns over them."""
    patterns = settings.pop("scenarios", {})
    if not isinstance(patterns, dict) or not all(isinstance(value, dict) for value in patterns.values()):
        raise RequestError("scenarios: below it stand patterns of scenario names, and below each a mapping of sections")
    for pattern, special in patterns.items():
        if fnmatch.fnmatchcase(scenario, pattern):
            settings = merged(settings, special)
    return settings


def merged(*layers: Settings) -> Settings:
    """Return settings, the later over the earlier; a network that another one replaces leaves none of its own."""
    result: Settings = {}
    for layer in layers:
        result = _over(result, layer)
    return result


def _over(under: Mapping[str, Any], over: Mapping[str, Any]) -> Settings:
    result = dict(under)
    for key, value in over.items():
        below = result.get(key)
        if isinstance(below, Mapping) and isinstance(value, Mapping):
            value = _over(without_others(below, value) if key == "network" else below, value)
        result[key] = value
    return result
