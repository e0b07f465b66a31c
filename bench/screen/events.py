"""What a job tells while it works: plain data that crosses process boundaries."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

Report = Callable[["Event"], None]


@dataclass(frozen=True)
class Event:
    """A job's progress.

    `done` of `total` are base iterations or incoming batches over all steps; `batch` of `batches` those of
    the step, or its epoch, under way; `step` is None while a base model is trained; `miou` is the last evaluation's, in
    per cent; `finished_step` marks the event that ends a step.
    """

    job: str
    phase: str
    done: int
    total: int
    step: int | None = None
    batch: int = 0
    batches: int = 0
    loss: float | None = None
    miou: float | None = None
    finished_step: bool = False
    note: str = ""
    """Something to be said in a line of its own; such an event tells nothing else."""

    @property
    def doing(self) -> str:
        """What is trained, in words."""
        if self.step is None:
            return self.phase
        return f"step {self.step}" if self.phase == "training" else f"step {self.step} {self.phase}"


class Listener(Protocol):
    """Told when a job starts, how it goes, and how it ends."""

    def start(self, job: str) -> None:
        """A job has started."""

    def event(self, event: Event) -> None:
        """A job has moved on."""

    def end(self, job: str, failure: str | None) -> None:
        """A job has ended."""

    def stop(self, job: str) -> None:
        """A job was stopped before its end; it can go on another time."""


@dataclass
class Throttle:
    """Lets an event through at most every `interval` seconds."""

    interval: float = 0.2
    _last: float = 0.0

    def due(self) -> bool:
        """Return whether it is time again."""
        now = time.monotonic()
        if now - self._last < self.interval:
            return False
        self._last = now
        return True


def last_line(failure: str) -> str:
    """Return what went wrong without the traceback above it."""
    return failure.strip().splitlines()[-1]
