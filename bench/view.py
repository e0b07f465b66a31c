"""What a person sees while jobs run: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from bench.events import Event


class View(Protocol):
    """Told when a job starts, how it goes, and when something else is being prepared."""

    def __enter__(self) -> View: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    def start(self, job: str) -> None:
        """A job has started."""

    def event(self, event: Event) -> None:
        """A job has moved on."""

    def note(self, text: str) -> None:
        """Print a line."""


@dataclass
class _Row:
    weight: float
    event: Event | None = None
    started: float | None = None
    miou: float | None = None

    @property
    def share(self) -> float:
        return self.event.done / max(self.event.total, 1) if self.event else 0.0

    @property
    def seconds_left(self) -> float | None:
        if self.started is None or not 0 < self.share < 1:
            return None
        return (time.monotonic() - self.started) * (1 - self.share) / self.share


class LiveView:
    """A row per job: step, batch, loss, mIoU so far, time left; below them the time left for everything."""

    def __init__(self, console: Console, weights: Mapping[str, float]) -> None:
        """`weights` are the jobs' expected shares of the work, in images."""
        self.rows = {job: _Row(weight) for job, weight in weights.items()}
        self.began = time.monotonic()
        self._live = Live(console=console, get_renderable=self.table, refresh_per_second=4)

    def __enter__(self) -> LiveView:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def start(self, job: str) -> None:
        """A job has started."""
        self.rows[job].started = time.monotonic()

    def event(self, event: Event) -> None:
        """A job has moved on."""
        row = self.rows[event.job]
        row.event = event
        row.miou = row.miou if event.miou is None else event.miou

    def note(self, text: str) -> None:
        """Print a line above the table."""
        self._live.console.print(text, markup=False, highlight=False)

    def table(self) -> Table:
        """Return what is shown now."""
        table = Table(box=None, pad_edge=False)
        for name, justify in (
            ("run", "left"), ("", "left"), ("doing", "left"), ("batch", "right"), ("loss", "right"),
            ("mIoU", "right"), ("left", "right"),
        ):  # fmt: skip
            table.add_column(name, justify=justify, no_wrap=True)  # type: ignore[arg-type]
        for job, row in self.rows.items():
            table.add_row(job, ProgressBar(1.0, row.share, width=20), *_cells(row))
        left = self._seconds_left()
        table.add_row("all", ProgressBar(1.0, self._share(), width=20), "", "", "", "", duration(left))
        return table

    def _share(self) -> float:
        total = sum(row.weight for row in self.rows.values())
        return sum(row.weight * row.share for row in self.rows.values()) / total if total else 1.0

    def _seconds_left(self) -> float | None:
        share = self._share()
        return (time.monotonic() - self.began) * (1 - share) / share if share > 0.01 else None


def _cells(row: _Row) -> list[str]:
    event = row.event
    if event is None:
        return ["waiting" if row.started is None else "starting", "", "", "", ""]
    doing = event.phase if event.step is None else f"step {event.step} {event.phase}"
    if event.step is None:
        batch = f"{event.done}/{event.total}"
    else:
        batch = f"{event.batch}/{event.batches}" if event.batches else ""
    loss = "" if event.loss is None else f"{event.loss:.3f}"
    miou = "" if row.miou is None else f"{row.miou:.1f}"
    return [doing, batch, loss, miou, duration(row.seconds_left)]


class LineView:
    """A plain line per start, finished step, and every ten seconds of a base model's training."""

    def __init__(self, console: Console, weights: Mapping[str, float]) -> None:
        self.console = console
        self.rows = {job: _Row(weight) for job, weight in weights.items()}
        self._said: dict[str, float] = {}

    def __enter__(self) -> LineView:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def start(self, job: str) -> None:
        """A job has started."""
        self.rows[job].started = self._said[job] = time.monotonic()
        self.note(f"{job}: started")

    def event(self, event: Event) -> None:
        """Say what is worth a line."""
        row = self.rows[event.job]
        row.event = event
        if event.finished_step:
            self.note(f"{event.job}: step {event.step} mIoU {event.miou:.2f}")
        elif time.monotonic() - self._said[event.job] > 10:
            self._said[event.job] = time.monotonic()
            doing = event.phase if event.step is None else f"step {event.step}"
            left = duration(row.seconds_left)
            self.note(f"{event.job}: {doing}, batch {event.done}/{event.total}, loss {event.loss:.3f}, {left} left")

    def note(self, text: str) -> None:
        """Print a line."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)


def make_view(console: Console, weights: Mapping[str, float]) -> View:
    """Return the view that fits where the output goes."""
    return LiveView(console, weights) if console.is_terminal else LineView(console, weights)


def duration(seconds: float | None) -> str:
    """Return seconds as `m:ss` or `h:mm:ss`, empty for None."""
    if seconds is None:
        return ""
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02}:{s:02}" if hours else f"{m}:{s:02}"
