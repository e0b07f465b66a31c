"""What is tuned of a strategy, and a strategy with settings that were chosen for it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bench.plan.planning import Wanted
from bench.plan.protocols import protocol_of
from bench.settings.errors import RequestError
from bench.settings.strategies import method_parameters, setting_sections
from strategies.learning.registry import method_class
from strategies.learning.search import Search, search_space
from strategies.plugins.registry import BrokenPluginError

OF_INCREMENTS = "incremental."
"""What the names of settings begin with that are no parameters of the method."""
DIGITS = 4
"""Of a chosen number that are kept: what is printed is what was tried."""

Chosen = Mapping[str, float]
"""By name, as in `Space.ranges`."""


@dataclass(frozen=True)
class Space:
    """What is tuned of a strategy: `ranges` by name (`delta`, `incremental.lr`), and what these have else."""

    wanted: Wanted
    ranges: dict[str, Search]
    default: dict[str, float]

    @property
    def label(self) -> str:
        """The strategy, as in results."""
        return self.wanted.strategy.label

    def with_chosen(self, chosen: Chosen) -> Wanted:
        """Return the strategy with settings that were chosen, in the place of what it has else."""
        config, section = self.wanted.config, setting_sections(self.wanted.strategy.name)[0]
        own, rates = divided(chosen)
        tuned = dataclasses.replace(
            config,
            incremental=dataclasses.replace(config.incremental, **rates),
            strategies={**config.strategies, section: {**config.strategies.get(section, {}), **own}},
        )
        return dataclasses.replace(self.wanted, config=tuned)

    def described(self) -> dict[str, dict[str, Any]]:
        """Return the ranges and what they stand for, as plain data."""
        return {
            name: {
                "low": search.low,
                "high": search.high,
                "log": search.log,
                "default": self.default[name],
                "source": search.source,
            }
            for name, search in self.ranges.items()
        }


def divided(chosen: Chosen) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what was chosen of the method's own parameters, and of its increments' settings."""
    rates = {k.removeprefix(OF_INCREMENTS): value for k, value in chosen.items() if k.startswith(OF_INCREMENTS)}
    return {k: value for k, value in chosen.items() if not k.startswith(OF_INCREMENTS)}, rates


def space_of(wanted: Wanted) -> Space:
    """Return what is tuned of a strategy: what its parameters and its increments declare, less what was asked for.

    Raises `RequestError` where that is nothing, or what it has else is outside of it.
    """
    method, config, label = method_class(wanted.strategy.name), wanted.config, wanted.strategy.label
    try:
        trained = protocol_of(method.protocols, config.protocol)
    except ValueError as error:
        raise RequestError(f"strategy {label} is {error}") from None
    if trained == "joint":
        raise RequestError(f"--strategies {label}: it has no search space, as it is not trained in increments")
    try:
        values = dataclasses.asdict(method_parameters(wanted.strategy, config))
    except BrokenPluginError as error:
        raise RequestError(str(error)) from error
    given = dict(wanted.strategy.parameters)
    own = {key: each for key, each in search_space(method.Parameters, values).items() if key not in given}
    steps = search_space(type(config.incremental), dataclasses.asdict(config.incremental))
    default = {key: values[key] for key in own} | {
        f"{OF_INCREMENTS}{key}": getattr(config.incremental, key) for key in steps
    }
    ranges = own | {f"{OF_INCREMENTS}{key}": each for key, each in steps.items()}
    for name, search in ranges.items():
        if not search.low <= default[name] <= search.high:
            tuned = f"what is tuned, {search.low} to {search.high}"
            raise RequestError(f"--strategies {label}: {name}={default[name]} is outside of {tuned}")
    return Space(wanted, ranges, default)
