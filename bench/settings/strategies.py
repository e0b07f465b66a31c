"""Strategies as they are asked for: `er`, `ours(delta=0.7)`, a grid, and their parameters."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from bench.settings.assignments import pair_of, require_once
from bench.settings.checking import checked, first_problem
from bench.settings.errors import RequestError
from bench.settings.schema import Config
from strategies.learning.protocol import BaseRecipe
from strategies.learning.registry import STRATEGIES, method_class
from strategies.plugins.faults import in_a_line
from strategies.plugins.registry import OWN_PACKAGE, UnknownPluginError, full_name, package_of

GRIDS: dict[str, tuple[str, ...]] = {
    "ablation": (
        "ours(memory=reservoir,loss=cross-entropy,head=linear,sampling=uniform)",
        "ours(loss=cross-entropy,head=linear,sampling=uniform)",
        "ours(head=linear,sampling=uniform)",
        "ours(sampling=uniform)",
        "ours",
    ),
}
"""Lists of strategies by name. `ablation`: the rows of Table 4, from er to ours, one part more in each."""


@dataclass(frozen=True)
class StrategyRequest:
    """A strategy as asked for: its name and the parameters given with it, as in `ours(head=linear)`."""

    name: str
    """`er`, or `package:er`: what `strategies.learning.registry` knows it by."""
    parameters: tuple[tuple[str, Any], ...] = ()

    @property
    def title(self) -> str:
        """The name in results and settings: that of a built-in method has no package."""
        return self.name.removeprefix(f"{OWN_PACKAGE}:")

    @property
    def label(self) -> str:
        """The name of its rows and, as far as a file system allows it, of its folder."""
        given = ",".join(f"{k}={'null' if v is None else v}" for k, v in self.parameters)
        return f"{self.title}({given})" if given else self.title


def parse_strategies(text: str | Sequence[str]) -> list[StrategyRequest]:
    """Parse `er,ours(sampling=uniform)`, or the name of a grid; raise `RequestError` where it is wrong."""
    requests = [_parse_strategy(part) for part in _strategy_parts(text)]
    if not requests:
        raise RequestError("--strategies is empty; `bench strategies` lists what there is")
    asked = [(full_name(STRATEGIES.entry_point(r.name)), r.parameters) for r in requests]
    for one, request in zip(asked, requests, strict=True):
        if asked.count(one) > 1:
            raise RequestError(f"--strategies names '{request.label}' more than once")
    return requests


def strategy_labels(text: str) -> list[str]:
    """Return the labels of the strategies that `parse_strategies` reads, be their packages installed or not."""
    return [StrategyRequest(*_read_strategy(part)).label for part in _strategy_parts(text)]


def _split_outside_brackets(text: str) -> list[str]:
    return re.split(r",(?![^(]*\))", text)


def _strategy_parts(text: str | Sequence[str]) -> list[str]:
    """Each strategy's text, a grid's one by one."""
    given = _split_outside_brackets(text) if isinstance(text, str) else list(text)
    parts = [strategy.strip() for part in given for strategy in GRIDS.get(part.strip(), (part,))]
    return [part for part in parts if part]


def _parse_strategy(text: str) -> StrategyRequest:
    name, parameters = _read_strategy(text)
    try:
        point = STRATEGIES.entry_point(name)
    except UnknownPluginError as error:
        raise RequestError(str(error)) from None
    return StrategyRequest(full_name(point) if ":" in name else name, parameters)


def _read_strategy(text: str) -> tuple[str, tuple[tuple[str, Any], ...]]:
    """A strategy's name and parameters."""
    match = re.fullmatch(r"([^()\s]+)(?:\((.*)\))?", text)
    if match is None:
        raise RequestError(f"cannot read the strategy '{text}'; it is NAME or NAME(parameter=value,...)")
    pairs = [pair_of(p, f"strategy '{text}'") for p in (match[2] or "").split(",") if p.strip()]
    require_once([key for key, _ in pairs], f"strategy '{text}'")
    return match[1], tuple(sorted(pairs))


def method_parameters(request: StrategyRequest, config: Config | None = None) -> Any:
    """Import the method and return its checked hyper-parameters: the settings', and over them the given ones.

    Raises `RequestError` for what was given, `BrokenPluginError` for what the method makes of it.
    """
    settings = dict(request.parameters)
    for section in setting_sections(request.name):
        settings = {**(config.strategies.get(section, {}) if config else {}), **settings}
    kind = method_class(request.name).Parameters
    try:
        parameters = checked(kind, settings, f"strategies.{request.title}")
        json.dumps(dataclasses.asdict(parameters))  # a run's record holds them
    except RequestError:
        raise
    except Exception as error:
        point = STRATEGIES.entry_point(request.name)
        raise STRATEGIES.broken(point, f"refuses its Parameters: {in_a_line(error)}") from error
    return parameters


def require_void_known(request: StrategyRequest, config: Config) -> None:
    """Raise `RequestError` where void is to be a negative of every class and the method's losses do not take it so."""
    if config.data.void != "negative" or method_class(request.name).void_is_negative:
        return
    built_in = map(StrategyRequest, STRATEGIES.built_in_names())
    known = [method.title for method in built_in if method_class(method.name).void_is_negative]
    raise RequestError(
        f"data.void=negative: the losses of {request.title} take no void pixel as a negative of every class; "
        f"those of {', '.join(known)} do"
    )


def memory_notes(request: StrategyRequest, config: Config) -> list[str]:
    """Return what is to be said of a memory of images that a method of ours is given offline and does not keep."""
    import numpy as np

    from strategies.learning.method import Replay

    size, method = config.memory.size, method_class(request.name)
    own = package_of(STRATEGIES.entry_point(request.name)) == OWN_PACKAGE
    if not (own and size and config.protocol == "offline" and "offline" in method.protocols):
        return []
    made = method(method_parameters(request, config), size, np.random.default_rng(0))
    told = f"memory.size={size}: offline {request.label} keeps no memory of that size"
    return [] if isinstance(made, Replay) else [told]


def base_recipe(request: StrategyRequest, parameters: Any) -> BaseRecipe:
    """Return what a method asks of the base model; raise `BrokenPluginError` where that is no recipe."""
    method, point = method_class(request.name), STRATEGIES.entry_point(request.name)
    try:
        recipe = method.recipe(parameters)
    except ValidationError as error:
        raise STRATEGIES.broken(point, f"asks for a base model that is unknown: {first_problem(error)}") from error
    except Exception as error:
        raise STRATEGIES.broken(point, f"does not say which base model it needs: {in_a_line(error)}") from error
    if type(recipe) is not BaseRecipe:
        raise STRATEGIES.broken(point, f"asks for a base model by {recipe!r}, which is no BaseRecipe")
    return recipe


def setting_sections(name: str) -> list[str]:
    """Return the sections below `strategies` and `methods` that hold for a method, the one that counts most first.

    `strategies.er` is the built-in method's, or that of the one package which declares the name.
    """
    point = STRATEGIES.entry_point(name)
    own = package_of(point) == OWN_PACKAGE
    return (
        [full_name(point), point.name]
        if own or len(STRATEGIES.packages_declaring(point.name)) == 1
        else [full_name(point)]
    )
