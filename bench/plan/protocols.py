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
        batch = config.incremental.batch_size
        updates = sum(math.ceil(len(part) / batch) for part in parts[1:])
        return Extent(1, updates, 3.0 * updates * batch)


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


PROTOCOLS: dict[str, Protocol] = {"online": Online(), "joint": Joint()}


def base_extent(config: Config, images: Iterable[int]) -> Extent:
    """Return how much work base trainings are, each on so many images."""
    updates = sum(epochs_updates(config, count) for count in images)
    return Extent(config.base.devices, updates, float(updates * config.base.batch_size))


def epochs_updates(config: Config, images: int) -> int:
    """Return the number of updates of a base training."""
    return epochs_of(config, images) * _epoch_updates(config, images)


def epochs_of(config: Config, images: int) -> int:
    """Return the number of epochs of a base training: on few images more than `base.epochs`."""
    return max(config.base.epochs, math.ceil(config.base.min_updates / _epoch_updates(config, images)))


def _epoch_updates(config: Config, images: int) -> int:
    return math.ceil(images / config.base.batch_size)
