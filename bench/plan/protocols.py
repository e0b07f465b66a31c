"""How the steps of a run are trained, as far as planning needs to know; `bench.train` has a file for each.

A method names those that it is defined for (`Method.protocols`).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np

from bench.settings.schema import Config
from strategies.learning.protocol import OfflineProtocol, OnlineProtocol


class Extent(NamedTuple):
    """How much work a job is."""

    devices: int
    """On how many it is computed."""
    units: int
    """Updates."""
    weight: float
    """Images trained on, as expected."""


class Protocol(ABC):
    """What is trained when, from what, and how much work that is."""

    from_base: ClassVar[bool]
    """Whether a run starts from the base model that all runs of its recipe share."""

    @abstractmethod
    def steps(self, parameters: Any, count: int) -> list[int]:
        """Return at which of `count` steps a network is evaluated."""

    @abstractmethod
    def extent(self, parameters: Any, config: Config, parts: Sequence[np.ndarray]) -> Extent:
        """Return how much work a run is.

        `parts` are the places int (n,) of each step's training images among all.
        """


class Online(Protocol):
    """From the base model, one pass over each increment: one update per incoming batch."""

    from_base = True

    def steps(self, parameters: Any, count: int) -> list[int]:
        """Return all."""
        return list(range(count))

    def extent(self, parameters: Any, config: Config, parts: Sequence[np.ndarray]) -> Extent:
        """Return the updates of all increments; memory and passes without gradient make three images of one."""
        assert isinstance(config.incremental, OnlineProtocol)
        batch = config.incremental.batch_size
        updates = sum(math.ceil(len(part) / batch) for part in parts[1:])
        return Extent(config.incremental.devices, updates, 3.0 * updates * batch)


class Joint(Protocol):
    """From scratch, as a base model is trained, on the union of the steps so far."""

    from_base = False

    def steps(self, parameters: Any, count: int) -> list[int]:
        """Return all with `every_step`, else the last."""
        return list(range(count)) if getattr(parameters, "every_step", False) else [count - 1]

    def extent(self, parameters: Any, config: Config, parts: Sequence[np.ndarray]) -> Extent:
        """Return that of the trainings on each union."""
        unions = [
            set[int]().union(*(part.tolist() for part in parts[: t + 1])) for t in self.steps(parameters, len(parts))
        ]
        return base_extent(config, map(len, unions))


class Offline(Protocol):
    """From the base model, epochs over each increment."""

    from_base = True

    def steps(self, parameters: Any, count: int) -> list[int]:
        """Return all."""
        return list(range(count))

    def extent(self, parameters: Any, config: Config, parts: Sequence[np.ndarray]) -> Extent:
        """Return the updates of all increments; the previous model's pass makes four thirds of an image."""
        protocol = config.incremental
        assert isinstance(protocol, OfflineProtocol)
        beside = min(getattr(parameters, "images_beside", 0), len(parts[0]))
        updates = sum(protocol.updates_over(len(part) + beside) for part in parts[1:])
        return Extent(config.base.devices, updates, 4 / 3 * updates * protocol.batch_size)


PROTOCOLS: dict[str, Protocol] = {"online": Online(), "offline": Offline(), "joint": Joint()}


def protocol_of(protocols: Sequence[str], chosen: str) -> str:
    """Return how a method that is defined for `protocols` is trained where one is chosen; ValueError if it cannot be.

    Joint training knows no increments: it is the same whichever is chosen.
    """
    found = "joint" if "joint" in protocols else chosen
    if found not in protocols:
        raise ValueError(f"defined for protocol={' and '.join(protocols)}, not {chosen}")
    return found


def base_extent(config: Config, images: Iterable[int]) -> Extent:
    """Return how much work base trainings are, each on so many images."""
    updates = sum(config.base.updates_over(count) for count in images)
    return Extent(config.base.devices, updates, float(updates * config.base.batch_size))
