"""A device's clock and memory, and what times a template's updates."""

from __future__ import annotations

import time
from typing import Any

import torch
from avalanche.core import SupervisedPlugin

WARM_UP = 3
"""Updates before those that are measured."""


class Enough(Exception):
    """As many updates as are measured have been made."""


class UpdateClock(SupervisedPlugin):
    """Times a template's updates between two looks at the device, and how long the host waits for their images.

    It ends the training by `Enough`.
    """

    def __init__(self, device: torch.device, updates: int) -> None:
        super().__init__()
        self.device, self.updates = device, updates
        self.losses: list[torch.Tensor] = []
        self._waited = self._left = self._started = self._ended = 0.0

    def before_training_iteration(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """The images have come."""
        if len(self.losses) > WARM_UP:
            self._waited += time.perf_counter() - self._left

    def after_training_iteration(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """The update is made."""
        self.losses.append(strategy.loss.detach())
        if len(self.losses) == WARM_UP:
            reset_peak(self.device)
            self._started = now(self.device)
        if len(self.losses) == WARM_UP + self.updates:
            self._ended = now(self.device)
            raise Enough
        self._left = time.perf_counter()

    @property
    def seconds(self) -> float:
        """What an update took."""
        return (self._ended - self._started) / self.updates

    @property
    def waiting(self) -> float:
        """The share of the time in which the host waited for images."""
        return self._waited / (self._ended - self._started)


def now(device: torch.device) -> float:
    """Return the time, everything that was launched being done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def reset_peak(device: torch.device) -> None:
    """Forget what was held so far."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak(device: torch.device) -> float:
    """Return the most gigabytes that torch has held on a GPU since; 0 on a CPU."""
    return torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else 0.0
