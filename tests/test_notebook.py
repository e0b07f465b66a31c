"""What a notebook shows while jobs run, in a kernel as notebooks have one."""

from collections import Counter
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

EVENTS = 200
JOBS = f"""
from rich.console import Console
from bench.screen.events import Event
from bench.screen.view import make_view, reading

with make_view(Console(), {{"er seed 0": 1.0, "ours seed 0": 1.0}}) as view:
    for job in ("er seed 0", "ours seed 0"):
        view.start(job)
        for batch in range({EVENTS}):
            view.event(Event(job, "training", batch, {EVENTS}, step=1, batch=batch, batches={EVENTS}, loss=0.5))
        view.event(Event(job, "evaluated", {EVENTS}, {EVENTS}, step=1, miou=61.25, finished_step=True))
        view.event(Event(job, "", 0, 0, note="slow & <steady>"))
        view.end(job, "KeyError: 'nothing'" if job == "ours seed 0" else None)
"""

READING = """
with reading(Console()) as advance:
    for done in range(1, 3001):
        advance("shapes: reading the train images", done, 3000)
    for done in range(1, 401):
        advance("shapes: reading the test images", done, 400)
"""


class Client(NotebookClient):
    """Counts a kernel's messages by their type."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.messages: Counter[str] = Counter()

    def process_message(self, message: Any, cell: Any, cell_index: int) -> Any:
        self.messages[message["msg_type"]] += 1
        return super().process_message(message, cell, cell_index)


@pytest.fixture(scope="module")
def executed() -> tuple[list[Any], Counter[str]]:
    """The outputs of the cells JOBS and READING, one each, and the kernel's messages."""
    client = Client(nbformat.v4.new_notebook(cells=[*map(nbformat.v4.new_code_cell, (JOBS, READING))]), timeout=120)
    outputs = [cell.outputs for cell in client.execute().cells]
    assert [len(each) for each in outputs] == [1, 1]
    return [each[0].data for each in outputs], client.messages


def test_the_jobs_of_a_cell_share_one_output_that_ends_with_how_they_ended(executed: Any) -> None:
    jobs = executed[0][0]
    lines = [line.split() for line in jobs["text/plain"].splitlines()]
    assert [line[-2:] for line in lines[1:3]] == [["done", "61.2"], ["failed", "61.2"]]
    assert [" ".join(line) for line in lines[4:]] == [
        "er seed 0: slow & <steady>",
        "ours seed 0: slow & <steady>",
        "ours seed 0: failed: KeyError: 'nothing'",
    ]
    assert "slow &amp; &lt;steady&gt;" in jobs["text/html"]


def test_the_bars_of_what_is_read_share_one_output_that_ends_full(executed: Any) -> None:
    lines = executed[0][1]["text/plain"].splitlines()
    assert [line.split()[:5] + line.split()[-2:-1] for line in lines] == [
        ["shapes:", "reading", "the", "train", "images", "100%"],
        ["shapes:", "reading", "the", "test", "images", "100%"],
    ]


def test_outputs_are_replaced_now_and_then_not_at_every_event(executed: Any) -> None:
    messages = executed[1]
    assert messages["display_data"] == 2 and not messages["stream"]
    assert 5 < messages["update_display_data"] < EVENTS / 4
