"""Jobs that do nothing of use, for what carries jobs out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bench.screen.events import Event, Report


@dataclass(frozen=True)
class IdleJob:
    """A job that is never made, does nothing, and takes down its failure."""

    key: str
    folder: Path
    devices: int = 1

    @property
    def claim(self) -> Path:
        return self.folder / f"{self.key}.claim"

    def made(self) -> bool:
        return False

    def execute(self, report: Report) -> None: ...

    def record_failure(self, failure: str) -> None:
        (self.folder / f"{self.key}.error").write_text(failure)


class Listener:
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.ended: dict[str, bool] = {}
        self.stopped: list[str] = []
        self.notes: list[str] = []

    def start(self, job: str) -> None:
        self.started.append(job)

    def event(self, event: Event) -> None:
        if event.note:
            self.notes.append(event.note)

    def end(self, job: str, failure: str | None) -> None:
        self.ended[job] = failure is not None

    def stop(self, job: str) -> None:
        self.stopped.append(job)
