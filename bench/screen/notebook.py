"""What a notebook shows while jobs run: outputs of a cell that are replaced, no line after line.

rich's own live displays would need ipywidgets there, and add an output for each line that is printed.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from types import TracebackType

from IPython.display import DisplayHandle, display
from rich.console import Console, Group, RenderableType
from rich.text import Text

from bench.screen.events import Event, Throttle
from bench.screen.table import TableView

_HTML = '<pre style="white-space:pre;overflow-x:auto;line-height:normal">{code}</pre>'


class Output:
    """One output of a cell; what is shown takes the place of what was."""

    def __init__(self, console: Console) -> None:
        self._width = console.width
        self._handle: DisplayHandle | None = None

    def show(self, content: RenderableType) -> None:
        """Show this from now on."""
        paper = Console(
            file=io.StringIO(),
            width=self._width,
            record=True,
            force_terminal=True,
            force_jupyter=False,
            color_system="truecolor",
        )
        paper.print(content)
        html = paper.export_html(clear=False, inline_styles=True, code_format=_HTML)
        data = {"text/html": html, "text/plain": paper.export_text()}
        if self._handle is None:
            self._handle = display(data, raw=True, display_id=True)
        else:
            self._handle.update(data, raw=True)


class NotebookView(TableView):
    """The table of jobs, and below it what was noted, as one output whatever the number of jobs and events."""

    def __init__(self, console: Console, weights: Mapping[str, float]) -> None:
        super().__init__(console, weights)
        self._notes: list[str] = []
        self._throttle = Throttle(interval=0.5)
        self._output = Output(console)

    def __enter__(self) -> NotebookView:
        self._show()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._show()

    def event(self, event: Event) -> None:
        """A job has moved on."""
        super().event(event)
        if self._throttle.due():
            self._show()

    def note(self, text: str) -> None:
        """Show a line below the table."""
        self._notes.append(text)
        self._show()

    def _show(self) -> None:
        self._output.show(Group(self.table(), *map(Text, self._notes)))
