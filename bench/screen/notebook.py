"""The live table in a notebook: one output of the cell, which is replaced as jobs move on."""

from __future__ import annotations

import io
from collections.abc import Mapping
from types import TracebackType

from IPython.display import DisplayHandle, display
from rich.console import Console, Group
from rich.text import Text

from bench.screen.events import Event, Throttle
from bench.screen.table import TableView

_HTML = '<pre style="white-space:pre;overflow-x:auto;line-height:normal">{code}</pre>'


class NotebookView(TableView):
    """The table, and below it what was noted, as one output whatever the number of jobs and events.

    rich's own live display would need ipywidgets, and adds an output for each line that is printed.
    """

    def __init__(self, console: Console, weights: Mapping[str, float]) -> None:
        super().__init__(console, weights)
        self._notes: list[str] = []
        self._throttle = Throttle(interval=0.5)
        self._output: DisplayHandle | None = None

    def __enter__(self) -> NotebookView:
        self._output = display(self._content(), raw=True, display_id=True)
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
        if self._output is not None:
            self._output.update(self._content(), raw=True)

    def _content(self) -> dict[str, str]:
        """What is shown now, by MIME type."""
        paper = Console(
            file=io.StringIO(),
            width=self.console.width,
            record=True,
            force_terminal=True,
            force_jupyter=False,
            color_system="truecolor",
        )
        paper.print(Group(self.table(), *map(Text, self._notes)))
        html = paper.export_html(clear=False, inline_styles=True, code_format=_HTML)
        return {"text/html": html, "text/plain": paper.export_text()}
