"""What a person sees while jobs run: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal, Protocol

from rich.console import Console
from rich.live import Live
from rich.progress import Progress, TaskID
from rich.progress_bar import ProgressBar
from rich.table import Table

from bench.screen.events import Event, Listener, last_line


class View(Listener, Protocol):
    """A listener that shows what it is told, within a `with` block."""

    def __enter__(self) -> View: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def note(self, text: str) -> None:
        """Print a line."""


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
class _Row:
    weight: float
    event: Event | None = None
    state: Literal["waiting", "running", "done", "failed", "stopped"] = "waiting"
    miou: float | None = None
    clock: _Clock = field(default_factory=_Clock)

    @property
    def share(self) -> float:
        if self.state in ("done", "failed"):
            return 1.0
        return self.event.done / max(self.event.total, 1) if self.event else 0.0

    @property
    def seconds_left(self) -> float | None:
        return self.clock.seconds_left(self.share)


class LiveView:
    """A row per job: step, batch, loss, mIoU so far, time left; below them the time left for everything."""

    def __init__(self, console: Console, weights: Mapping[str, float]) -> None:
        """`weights` are the jobs' expected shares of the work, in images."""
        self.rows = {job: _Row(weight) for job, weight in weights.items()}
        self.clock = _Clock()
        self.console = console
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
        """Print a line above the table."""
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

    def _shown(self) -> dict[str, _Row]:
        """All rows where they fit on the screen, else those of running jobs."""
        if len(self.rows) + 4 <= self.console.height:
            return self.rows
        return {job: row for job, row in self.rows.items() if row.state == "running"}

    def _share(self) -> float:
        total = sum(row.weight for row in self.rows.values())
        return sum(row.weight * row.share for row in self.rows.values()) / total if total else 1.0


def _cells(row: _Row) -> list[str]:
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
        self._said[job] = time.monotonic()
        self.note(f"{job}: started")

    def event(self, event: Event) -> None:
        """Say what is worth a line."""
        if event.note:
            self.note(f"{event.job}: {event.note}")
            return
        row = self.rows[event.job]
        row.event = event
        if event.finished_step:
            self.note(f"{event.job}: step {event.step} mIoU {event.miou:.2f}")
        elif time.monotonic() - self._said[event.job] > 10:
            self._said[event.job] = time.monotonic()
            doing = event.phase if event.step is None else f"step {event.step}"
            left = duration(row.seconds_left)
            note = f"{event.job}: {doing}, batch {event.done}/{event.total}, loss {event.loss:.3f}"
            self.note(f"{note}, {left} left" if left else note)

    def end(self, job: str, failure: str | None) -> None:
        """A job has ended."""
        self.note(f"{job}: failed: {last_line(failure)}" if failure else f"{job}: done")

    def stop(self, job: str) -> None:
        """A job was stopped before its end."""
        if job in self._said:
            self.note(f"{job}: stopped")

    def note(self, text: str) -> None:
        """Print a line."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def reading(console: Console) -> Iterator[Callable[[str, int, int], None]]:
    """Give what shows progress: a bar per text on a terminal, elsewhere a line at first and every ten seconds."""
    bars: dict[str, TaskID] = {}
    said: dict[str, float] = {}
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:

        def advance(text: str, done: int, total: int) -> None:
            if text not in bars:
                bars[text] = progress.add_task(text)
            progress.update(bars[text], completed=done, total=total or None)
            if not console.is_terminal and time.monotonic() - said.get(text, -math.inf) > 10:
                said[text] = time.monotonic()
                console.print(f"{text}: {done:,} of {total:,}", markup=False, highlight=False, soft_wrap=True)

        yield advance


def make_view(console: Console, weights: Mapping[str, float]) -> View:
    """Return the view that fits where the output goes; where there is no job there is no table of them."""
    return LiveView(console, weights) if console.is_terminal and weights else LineView(console, weights)


def duration(seconds: float | None) -> str:
    """Return seconds as `m:ss` or `h:mm:ss`, empty for None."""
    if seconds is None:
        return ""
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02}:{s:02}" if hours else f"{m}:{s:02}"
