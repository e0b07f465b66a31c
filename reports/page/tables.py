"""Tables on the page that are files elsewhere too: the paper's, the differences and the ranks."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from markupsafe import Markup

from reports.conventions import require_one_convention
from reports.files import RecordError
from reports.grids import grid, memory_of, need_of, needed
from reports.numbered import write_numbered
from reports.page.parts import boxed, note, or_note, subsection, tables_of
from reports.records import Run, runs_on, scenarios_of
from reports.rows import REFERENCES, method_of
from reports.statistics_tables import write_statistics
from reports.templating import joined


def paper_tables_html(runs: Sequence[Run]) -> Markup:
    """Return those of the paper's tables that have runs, on the real data sets beside the published numbers."""
    return joined(_paper_tables(runs))


def _paper_tables(runs: Sequence[Run]) -> Iterable[Markup]:
    for number in (1, 2, 3, 4):
        for on in ("voc", "shapes"):
            chosen = grid(number, on)
            wanted = set(needed(number, on))
            own = [run for run in runs if need_of(run) in wanted]
            if own:
                title = f"Table {number} on {chosen.dataset}"
                yield subsection(title, *_paper_table(number, own, on, compare=not chosen.embedded))


def _paper_table(number: int, runs: Sequence[Run], on: str, compare: bool) -> Iterable[Markup]:
    yield or_note(lambda: _numbered(number, runs, on, compare=False))
    if compare:
        yield or_note(lambda: _numbered(number, runs, on, compare=True))


def _numbered(number: int, runs: Sequence[Run], on: str, compare: bool) -> Markup:
    with tempfile.TemporaryDirectory() as folder:
        (path,) = write_numbered([number], runs, Path(folder), ["html"], on, compare)
        (table,) = tables_of(path.read_text(encoding="utf-8"))
    label = f"Table {number}{' beside the published numbers' if compare else ''}"
    return boxed(table, label, sortable=not compare)  # a method's three rows belong together


def statistics_html(runs: Sequence[Run]) -> Markup:
    """Return differences and ranks over the scenarios whose runs share their conventions."""
    sound: list[Run] = []
    left_out: list[str] = []
    for scenario in scenarios_of(runs):
        own = runs_on(scenario, runs)
        try:
            require_one_convention(own)
            sound += own
        except RecordError as error:
            left_out.append(note(f"{scenario} is left out: {error}"))
    return joined([*left_out, or_note(lambda: _differences(sound)), or_note(lambda: _ranks(sound))])


def _differences(runs: Sequence[Run]) -> Markup:
    """Of the scenarios and memories that have a run of ours."""
    having = {(run.spec["scenario"], memory_of(run)) for run in runs if run.spec["strategy"] == "ours"}
    own = [run for run in runs if (run.spec["scenario"], memory_of(run)) in having]
    return subsection("Paired differences to ours", *_statistics_tables(own, "differences"))


def _ranks(runs: Sequence[Run]) -> Markup:
    plain = {run.spec["strategy"] for run in runs if run.spec["strategy"] == method_of(run.spec["strategy"])}
    if len(plain.difference(REFERENCES)) < 2:
        return Markup()
    return subsection("Mean ranks", *_statistics_tables(runs, "ranks"))


def _statistics_tables(runs: Sequence[Run], kind: str) -> Iterable[Markup]:
    with tempfile.TemporaryDirectory() as folder:
        for path in write_statistics(runs, Path(folder), ["html"]):
            if path.stem.startswith(kind):
                for table in tables_of(path.read_text(encoding="utf-8")):
                    yield boxed(table, path.stem.replace("-", " "))
