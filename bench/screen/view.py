"""What a person sees while jobs run: a live table on a terminal and in a notebook, plain lines elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from types import TracebackType
from typing import Protocol

from rich.console import Console
from rich.live import Live
from rich.progress import Progress, TaskID

from bench.screen.events import Event, Listener, Throttle, last_line
from bench.screen.table import Row, TableView, duration


class View(Listener, Protocol):
    """A listener that shows what it is told, within a `with` block."""

    def __enter__(self) -> View: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def note(self, text: str) -> None:
        """Print a line."""


class LiveView(TableView):
    """The table on a terminal, drawn anew four times a second; what is noted stands above it."""

    def __init__(self, console: Console, weights: Mapping[str, float]) -> None:
        super().__init__(console, weights)
        self._live = Live(console=console, get_renderable=self.table, refresh_per_second=4)

    def __enter__(self) -> LiveView:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()


class LineView:
    """A plain line per start, finished step, and every ten seconds of a base model's training."""

    def __init__(self, console: Console, weights: Mapping[str, float]) -> None:
        self.console = console
        self.rows = {job: Row(weight) for job, weight in weights.items()}
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
            left = duration(row.seconds_left)
            note = f"{event.job}: {event.doing}, batch {event.done}/{event.total}, loss {event.loss:.3f}"
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
    """Give what shows progress: a bar per text on a terminal and in a notebook, elsewhere a line every ten seconds."""
    bars: dict[str, TaskID] = {}
    terminal = console.is_terminal and not console.is_jupyter
    progress = Progress(console=console, transient=True, disable=not terminal)
    with progress if terminal else nullcontext():
        show = _shown_in_notebook(progress) if console.is_jupyter else _lines(console)

        def advance(text: str, done: int, total: int) -> None:
            if text not in bars:
                bars[text] = progress.add_task(text)
            progress.update(bars[text], completed=done, total=total or None)
            if not terminal:
                show(text, done, total)

        yield advance


def _lines(console: Console) -> Callable[[str, int, int], None]:
    """Print a line at first and every ten seconds."""
    said: dict[str, float] = {}

    def show(text: str, done: int, total: int) -> None:
        if time.monotonic() - said.get(text, -math.inf) > 10:
            said[text] = time.monotonic()
            console.print(f"{text}: {done:,} of {total:,}", markup=False, highlight=False, soft_wrap=True)

    return show


def _shown_in_notebook(progress: Progress) -> Callable[[str, int, int], None]:
    """Show all bars in one output of the cell, twice a second and where one is full."""
    from bench.screen.notebook import Output

    output, throttle = Output(progress.console), Throttle(interval=0.5)

    def show(text: str, done: int, total: int) -> None:
        if throttle.due() or done == total:
            output.show(progress.get_renderable())

    return show


def make_view(console: Console, weights: Mapping[str, float]) -> View:
    """Return the view that fits where the output goes; where there is no job there is no table of them."""
    if console.is_jupyter and weights:
        from bench.screen.notebook import NotebookView

        return NotebookView(console, weights)
    return LiveView(console, weights) if console.is_terminal and weights else LineView(console, weights)
