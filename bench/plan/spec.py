"""What determines a run, written out: the content of `spec.yaml`, its hash, and its seeds."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import platform
from collections.abc import Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any, get_type_hints

from bench.plan.code import code_digest, git_revision
from bench.plan.deciding import BASE_TRAINING, RUN, deciding_digest
from bench.plan.plugins import plugins_of
from bench.settings.schema import Config, DataConfig
from bench.settings.strategies import StrategyRequest
from benchmarks.saliency import maps_digest, require_saliency
from benchmarks.scenarios import Scenario
from reports.spec import SCHEMA
from strategies.learning.protocol import BaseRecipe
from strategies.learning.registry import STRATEGIES
from strategies.networks.registry import NETWORKS, network_class
from strategies.networks.settings import NO_WEIGHTS, Later, NetworkSettings
from strategies.plugins.registry import OWN_PACKAGE, Plugins

_BLANK = ("workers", "ram_gb", "train_list", "shared_ids")
INDIFFERENT = (*_BLANK, "max_megapixels")
"""Settings below `data` that change how fast images are read, or which: of that the fingerprint tells.

In a run's hash the first stand without their value, the others not at all: older runs have none of these.
"""
_OLD_RECIPE = ("head", "loss", "tau")
_TOLD = ("keep", "study")
"""Settings that change no number, and stand in no hash."""
_FIRST = ("protocol", "online")
"""The one that there was before there were several."""
_PRINTED = {"future_classes": "background", "images": "known"}
"""Settings below `evaluation` that only choose how the counts are printed, as they stand in every run's hash.

In those of older runs they stand as they were set.
"""
_HASHED = 1
"""What a hash is made of; the records' schema is no part of it: written in an older one a run is the same run."""
_OLDER_WEIGHTS = {NO_WEIGHTS: False, "IMAGENET1K_V1": True}
COMPUTING = ("torch", "torchvision", "numpy", "pillow")
"""Packages whose versions may change the numbers of a base model."""
PACKAGES = ("continual-seg-bench", "avalanche-lib", *COMPUTING)


def digest(content: Any) -> str:
    """Return the SHA-256 of plain data, written canonically as JSON."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def base_inputs(scenario: Scenario, config: Config, recipe: BaseRecipe, seed: int, device: str) -> dict[str, Any]:
    """Return exactly what determines a base model: never the strategy, nor the later steps."""
    return {
        "data": scenario.imageset.fingerprint,
        "classes": list(scenario.steps[0].classes),
        "train_sha256": scenario.train_sha256(0),
        "valid_fraction": config.evaluation.valid_fraction,
        "valid_seed": config.evaluation.valid_seed if config.evaluation.valid_fraction else None,
        "preparation": _deciding(config.data),
        "network": _network(config.network),
        "weights": _weights(config.network),
        "network_plugins": _plugins(config.network.name, NETWORKS),
        "recipe": _recipe(recipe),
        **_saliency(scenario, recipe),
        "protocol": dataclasses.asdict(config.base),
        "runtime": told_in_hashes(config.runtime),
        "device": device,
        "versions": {p: _version(p) for p in (*COMPUTING, *_packages(config.network))},
        "code": deciding_digest(BASE_TRAINING),
        "seed": seed,
    }


def run_spec(
    scenario: Scenario,
    request: StrategyRequest,
    parameters: Any,
    recipe: BaseRecipe,
    config: Config,
    seed: int,
    device: str,
    from_base: bool = True,
    older_hash: bool = False,
) -> dict[str, Any]:
    """Return everything that determines a run and everything needed to trace it, as plain data.

    With `older_hash` it is that of a run made when conventions were no choice at printing.
    """
    settings = dataclasses.asdict(config)
    del settings["strategies"]
    if config.study is None:
        del settings["study"]
    settings = json.loads(json.dumps(settings))
    settings["runtime"]["device"] = device
    method = {"name": request.title, "parameters": json.loads(json.dumps(dataclasses.asdict(parameters)))}
    base = base_inputs(scenario, config, recipe, seed, device)
    described = scenario.as_dict()
    decided = {key: value for key, value in settings.items() if key not in _TOLD and (key, value) != _FIRST}
    determining = {
        "schema": _HASHED,
        "split_hash": described["split_hash"],
        "data": scenario.imageset.fingerprint,
        "method": {**method, "parameters": _without_later(parameters)},
        "recipe": _recipe(recipe),
        **_saliency(scenario, recipe),
        "config": {
            **decided,
            "evaluation": {**settings["evaluation"], **({} if older_hash else _PRINTED)},
            "network": _network(config.network),
            "base": told_in_hashes(config.base),
            "incremental": _without_later(config.incremental),
            "runtime": {**told_in_hashes(config.runtime), "device": device},
            "data": {**dict.fromkeys(_BLANK), **_deciding(config.data)},
        },
    }
    return {
        "schema": SCHEMA,
        "scenario": described["name"],
        "asked": str(scenario.asked),
        "strategy": request.label,
        "seed": seed,
        "hash": digest(determining)[:12],
        "method": method,
        "config": settings,
        "conventions": conventions_of(config),
        "class_names": scenario.class_names,
        "steps": described["steps"],
        "split_hash": described["split_hash"],
        "division": described["division"],
        "published_train_images": described["published_train_images"],
        "data": {
            "name": scenario.asked.dataset,
            "root": str(scenario.imageset.root.resolve()) if scenario.imageset.root else None,
            "fingerprint": scenario.imageset.fingerprint,
        },
        "base": {"hash": digest(base), "inputs": base} if from_base else None,
        **made_by(request.name, config.network.name, _packages(config.network)),
    }


def _recipe(recipe: BaseRecipe) -> dict[str, Any]:
    """Return a recipe as hashes have it: what is younger than they are stands there where it is asked for alone."""
    return {key: value for key, value in dataclasses.asdict(recipe).items() if key in _OLD_RECIPE or value}


def _saliency(scenario: Scenario, recipe: BaseRecipe) -> dict[str, str]:
    """Return the digest of the saliency maps where training reads files of them; raise `DataError` where it cannot."""
    if recipe.saliency is None:
        return {}
    require_saliency(recipe.saliency, scenario.imageset)
    return {"saliency_maps": maps_digest(scenario.imageset)} if recipe.saliency == "maps" else {}


def _deciding(data: DataConfig) -> dict[str, Any]:
    return {key: value for key, value in told_in_hashes(data).items() if key not in INDIFFERENT}


def told_in_hashes(section: Any) -> dict[str, Any]:
    """Return a section of settings as plain data, less those that are optional and at their defaults.

    Every setting that older runs do not have is one of these: as without it.
    """
    unset = {field.name: _default(field) for field in dataclasses.fields(section)}
    return {key: value for key, value in dataclasses.asdict(section).items() if value != unset[key]}


def _without_later(parameters: Any) -> dict[str, Any]:
    """Return a method's parameters, or settings, as plain data, less those that are `Later` and at their defaults."""
    hints = get_type_hints(type(parameters), include_extras=True)
    unset = {
        field.name: _default(field)
        for field in dataclasses.fields(parameters)
        if Later() in getattr(hints[field.name], "__metadata__", ())
    }
    told = json.loads(json.dumps(dataclasses.asdict(parameters)))
    return {key: value for key, value in told.items() if key not in unset or value != unset[key]}


def _default(field: dataclasses.Field[Any]) -> Any:
    made = field.default_factory
    return field.default if made is dataclasses.MISSING else made()


def _network(network: NetworkSettings) -> dict[str, Any]:
    """Return what hashes are made of, in the words of older runs, whose weights were ImageNet's or none.

    A file of weights stands there by its digest, wherever it lies. Raises `WeightsError`.
    """
    from strategies.networks.weights import is_file_name

    told = dataclasses.asdict(network)
    weights = told.pop("weights")
    named = _OLDER_WEIGHTS.get(weights, weights)
    told["name"] = network.name.removeprefix(f"{OWN_PACKAGE}:")
    told["pretrained"] = _weights(network) if is_file_name(weights) else named
    return told


def _weights(network: NetworkSettings) -> str | None:
    """Return the digest of a network's weights; see `weights_digest`."""
    from strategies.networks.weights import weights_digest

    return weights_digest(network_class(network.name), network)


def _packages(network: NetworkSettings) -> list[str]:
    """Return the packages beside `COMPUTING` whose versions may change the network's numbers."""
    return list(network_class(network.name).packages)


def made_by(method: str, network: str | None = None, packages: Iterable[str] = ()) -> dict[str, Any]:
    """Return what a run of a method on a network would be made by here: versions, code, plug-ins.

    `code` is the digest of all of the harness, `numbers_code` that of what decides the numbers of every run; what
    decides those of the method's alone stands in `plugins`, of the network's in `network_plugins`. The versions of
    `packages` stand among those of every run. Raises `UnknownPluginError`.
    """
    return {
        "versions": {"python": platform.python_version(), **{p: _version(p) for p in (*PACKAGES, *packages)}},
        "code": code_digest(),
        "numbers_code": deciding_digest(RUN),
        "plugins": _plugins(method, STRATEGIES),
        "network_plugins": _plugins(network, NETWORKS) if network else [],
        "git": git_revision(),
    }


def _plugins(name: str, kind: Plugins) -> list[dict[str, Any]]:
    """Return `plugins_of` as a list of its own: YAML writes what stands in two places as a reference."""
    return [dict(plugin) for plugin in plugins_of(name, kind)]


def conventions_of(config: Config) -> dict[str, Any]:
    """Return by which conventions a run is evaluated, as its spec has them."""
    return {
        "future_classes": config.evaluation.future_classes,
        "test_images": config.evaluation.images,
        "background_in_mean": config.evaluation.background_in_mean,
        "resolution": _resolution(config),
        "evaluate_on": config.evaluation.stream,
    }


def _resolution(config: Config) -> str:
    """Return at which resolution the images are evaluated."""
    if config.data.size:
        return f"{config.data.size} x {config.data.size}"
    side = config.evaluation.short_side
    return f"short side {side}, centre crop" if side else "native"


@cache
def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
