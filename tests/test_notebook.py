"""What a notebook shows while jobs run, in a kernel as notebooks have one."""

from collections import Counter
from typing import Any

import nbformat
from nbclient import NotebookClient

EVENTS = 200
CELL = f"""
from rich.console import Console
from bench.screen.events import Event
from bench.screen.view import make_view

with make_view(Console(), {{"er seed 0": 1.0, "ours seed 0": 1.0}}) as view:
    for job in ("er seed 0", "ours seed 0"):
        view.start(job)
        for batch in range({EVENTS}):
            view.event(Event(job, "training", batch, {EVENTS}, step=1, batch=batch, batches={EVENTS}, loss=0.5))
        view.event(Event(job, "evaluated", {EVENTS}, {EVENTS}, step=1, miou=61.25, finished_step=True))
        view.event(Event(job, "", 0, 0, note="slow & <steady>"))
        view.end(job, "KeyError: 'nothing'" if job == "ours seed 0" else None)
"""


class Client(NotebookClient):
    """Counts a kernel's messages by their type."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.messages: Counter[str] = Counter()

    def process_message(self, message: Any, cell: Any, cell_index: int) -> Any:
        self.messages[message["msg_type"]] += 1
        return super().process_message(message, cell, cell_index)


def test_the_jobs_of_a_cell_share_one_output_which_is_replaced_now_and_then() -> None:
    client = Client(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL)]), timeout=120)
    [cell] = client.execute().cells
    [shown] = cell.outputs
    lines = [line.split() for line in shown.data["text/plain"].splitlines()]
    assert [line[-2:] for line in lines[1:3]] == [["done", "61.2"], ["failed", "61.2"]]
    assert [" ".join(line) for line in lines[4:]] == [
        "er seed 0: slow & <steady>",
        "ours seed 0: slow & <steady>",
        "ours seed 0: failed: KeyError: 'nothing'",
    ]
    assert "slow &amp; &lt;steady&gt;" in shown.data["text/html"]
    assert client.messages["display_data"] == 1
    assert 3 < client.messages["update_display_data"] < EVENTS / 4
