"""A table of jobs and how far they are: what the live views show."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from rich.console import Console
from rich.progress_bar import ProgressBar
from rich.table import Table

from bench.screen.events import Event, last_line


@dataclass
class _Clock:
    """Time left at the pace since the first progress: what a job needs to start does not count."""

    first: tuple[float, float] | None = None

    def seconds_left(self, share: float) -> float | None:
        """Return the seconds that the rest of the work, 1 - `share`, takes; None while nothing tells."""
        now = time.monotonic()
        if self.first is None and share > 0:
            self.first = now, share
        if self.first is None or not self.first[1] < share < 1:
            return None
        return (now - self.first[0]) * (1 - share) / (share - self.first[1])


@dataclass
class Row:
    """A job, its share of all work, and the last that it told."""

    weight: float
    event: Event | None = None
    state: Literal["waiting", "running", "done", "failed", "stopped"] = "waiting"
    miou: float | None = None
    clock: _Clock = field(default_factory=_Clock)

    @property
    def share(self) -> float:
        """Of the job's work, how much is done."""
        if self.state in ("done", "failed"):
            return 1.0
        return self.event.done / max(self.event.total, 1) if self.event else 0.0

    @property
    def seconds_left(self) -> float | None:
        """What the rest takes; None while nothing tells."""
        return self.clock.seconds_left(self.share)


class TableView:
    """A row per job: step, batch, loss, mIoU so far, time left; below them the time left for everything."""

    def __init__(self, console: Console, weights: Mapping[str, float]) -> None:
        """`weights` are the jobs' expected shares of the work, in images."""
        self.rows = {job: Row(weight) for job, weight in weights.items()}
        self.clock = _Clock()
        self.console = console

    def start(self, job: str) -> None:
        """A job has started."""
        self.rows[job].state = "running"

    def event(self, event: Event) -> None:
        """A job has moved on."""
        if event.note:
            self.note(f"{event.job}: {event.note}")
            return
        row = self.rows[event.job]
        row.event = event
        row.miou = row.miou if event.miou is None else event.miou

    def end(self, job: str, failure: str | None) -> None:
        """A job has ended."""
        self.rows[job].state = "failed" if failure else "done"
        if failure:
            self.note(f"{job}: failed: {last_line(failure)}")

    def stop(self, job: str) -> None:
        """A job was stopped before its end."""
        self.rows[job].state = "stopped"

    def note(self, text: str) -> None:
        """Print a line."""
        self.console.print(text, markup=False, highlight=False)

    def table(self) -> Table:
        """Return what is shown now."""
        table = Table(box=None, pad_edge=False)
        for name in ("run", "", "doing"):
            table.add_column(name, no_wrap=True)
        for name in ("batch", "loss", "mIoU", "left"):
            table.add_column(name, justify="right", no_wrap=True)
        for job, row in self._shown().items():
            table.add_row(job, ProgressBar(1.0, row.share, width=20), *_cells(row))
        share = self._share()
        left = duration(self.clock.seconds_left(share))
        finished = sum(row.state == "done" for row in self.rows.values())
        done = f"{finished} of {len(self.rows)} done"
        table.add_row("all", ProgressBar(1.0, share, width=20), done, "", "", "", left)
        return table

    def _shown(self) -> dict[str, Row]:
        """All rows where they fit on the screen, else those of running jobs."""
        if len(self.rows) + 4 <= self.console.height:
            return self.rows
        return {job: row for job, row in self.rows.items() if row.state == "running"}

    def _share(self) -> float:
        total = sum(row.weight for row in self.rows.values())
        return sum(row.weight * row.share for row in self.rows.values()) / total if total else 1.0


def _cells(row: Row) -> list[str]:
    event = row.event
    miou = "" if row.miou is None else f"{row.miou:.1f}"
    if event is None or row.state != "running":
        return ["starting" if row.state == "running" else row.state, "", "", miou, ""]
    doing = event.phase if event.step is None else f"step {event.step} {event.phase}"
    if event.step is None:
        batch = f"{event.done}/{event.total}"
    else:
        batch = f"{event.batch}/{event.batches}" if event.batches else ""
    loss = "" if event.loss is None else f"{event.loss:.3f}"
    return [doing, batch, loss, miou, duration(row.seconds_left)]


def duration(seconds: float | None) -> str:
    """Return seconds as `m:ss` or `h:mm:ss`, empty for None."""
    if seconds is None:
        return ""
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02}:{s:02}" if hours else f"{m}:{s:02}"
