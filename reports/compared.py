"""Runs beside the published numbers of their scenario that were made by the same protocol, and beside no others."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from reports.conventions import UNKNOWN, convention_text, require_one_convention
from reports.grids import memory_of
from reports.literature import NOT_KNOWN, WITH, WITHOUT, Published, published_rows, published_scenarios
from reports.literature_tables import MEANING, csv_of, marks_of, table_of, write_files
from reports.markup import require_table_formats
from reports.notes import code, origin_notes, settings_note
from reports.records import Run, runs_on, scenarios_of
from reports.rows import count_text, file_stem, method_of, row_name
from reports.tables import CONVENTIONS, frame, summary

OURS = "this harness"
_COLUMNS = {"old": "old", "new": "new", "all": "miou", "avg": "avg", "imiou": "imiou"}
"""By a published column that of a summary."""


def comparable_scenarios(runs: Sequence[Run]) -> list[str]:
    """Return the scenarios of these runs of which there are published numbers."""
    known = published_scenarios()
    return [scenario for scenario in scenarios_of(runs) if scenario in known]


def write_compared(runs: Sequence[Run], out: Path, formats: Sequence[str], scenarios: Sequence[str]) -> list[Path]:
    """Write `SCENARIO-compared` of each scenario into the folder `out`, in these formats; return the files, in order.

    Its runs stand beside the published numbers of their protocol, with the background in the mean and without it, each
    beside its like. The caption says how many of another protocol are left out. A scenario whose runs compare with
    nothing published (`obstacle`) gets no file. Raises ValueError for an unknown format; RecordError, one line, for a
    scenario of which nothing is published, and as `write_tables` for runs that cannot stand in one table.
    """
    require_table_formats(formats)
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for scenario in scenarios:
        own = runs_on(scenario, runs)
        if obstacle(own):
            continue
        require_one_convention(own)
        groups = _groups(own, _comparable(scenario, own))
        rows = [row for group in groups for row in group]
        breaks = [sum(map(len, groups[:place])) for place in range(1, len(groups))]
        caption = _caption(scenario, own, rows)
        stem = f"{file_stem(scenario)}-compared"
        written += write_files(stem, csv_of(rows), table_of(stem, rows, caption, breaks), out, formats)
    return written


def protocol_of(run: Run) -> str:
    """Return by which of `reports.literature.PROTOCOLS` a run was trained."""
    return "joint" if method_of(run.spec["strategy"]) == "joint" else str(run.spec["config"].get("protocol", "online"))


def obstacle(runs: Sequence[Run]) -> str:
    """Return why runs of one scenario compare with nothing published, '' where they do.

    Their training images are other ones than the published lists', or they are not evaluated on the test images.
    """
    for run in runs:
        published, sizes = run.spec.get("published_train_images"), [s.get("train_images") for s in run.spec["steps"]]
        if published and sizes != published:
            return f"{run.path} has {sizes} training images a step, published are {published}"
        stream = run.spec["conventions"].get("evaluate_on", "test")
        if stream != "test":
            return f"{run.path} is evaluated on {stream}, not on the test images"
    return ""


def left_out_note(scenario: str, runs: Sequence[Run]) -> str:
    """Return what is said of the published numbers that do not stand beside these runs; '' where all do."""
    theirs = {protocol_of(run) for run in runs}
    others = Counter(row.protocol for row in published_rows(scenario) if row.protocol not in theirs)
    if not others:
        return ""
    counts = " and ".join(f"{count} {protocol}" for protocol, count in sorted(others.items()))
    made = " and ".join(sorted(theirs)) or "not there"
    return (
        f"{code(scenario)}: {counts} rows of the literature are left out, not comparable with these runs, which are "
        f"{made} ones; {code(f'bench tables published --scenario {scenario}')} lists them."
    )


def compared_notes(runs: Sequence[Run], scenarios: Sequence[str] | None = None) -> list[str]:
    """Return a line for each scenario, by default those of the runs, of which anything published is left out."""
    compared = comparable_scenarios(runs) if scenarios is None else scenarios
    others = [scenario for scenario in scenarios_of(runs) if scenario not in published_scenarios()]
    notes = [_note(scenario, runs_on(scenario, runs)) for scenario in compared]
    if scenarios is None:
        notes += [f"{code(scenario)}: nothing is published of it, --compare leaves it out" for scenario in others]
    return list(filter(None, notes))


def _note(scenario: str, runs: Sequence[Run]) -> str:
    told = obstacle(runs)
    return (
        f"{code(scenario)}: nothing published stands beside its runs: {told}" if told else left_out_note(scenario, runs)
    )


def _comparable(scenario: str, runs: Sequence[Run]) -> list[Published]:
    protocols = {protocol_of(run) for run in runs}
    return [row for row in published_rows(scenario) if row.protocol in protocols]


def _groups(runs: Sequence[Run], theirs: Sequence[Published]) -> list[list[Published]]:
    """The rows by their background, of each method ours first; groups in which nothing is published left out."""
    ours = {WITH: _measured(runs, True), WITHOUT: _measured(runs, False), NOT_KNOWN: []}
    groups = []
    for background, own in ours.items():
        published = [row for row in theirs if row.background.split(" ")[0] == background]
        if published:
            groups.append(sorted([*own, *published], key=_by_method([*own, *published])))
    return groups or [ours[WITH], ours[WITHOUT]]


def _by_method(rows: Sequence[Published]) -> Any:
    places = {method: place for place, method in reversed([*enumerate(method_of(row.method) for row in rows)])}
    return lambda row: places[method_of(row.method)]


def _measured(runs: Sequence[Run], background: bool) -> list[Published]:
    """The rows of runs, as those of the literature, their means with or without the background."""
    if not runs:
        return []
    steps = frame(runs).assign(background_in_mean=background)
    return list(_rows(steps, runs, WITH if background else WITHOUT))


def _rows(steps: pd.DataFrame, runs: Sequence[Run], background: str) -> Iterator[Published]:
    by_path = {str(run.path): run for run in runs}
    one = {(row["strategy"], row["variant"]): by_path[row["run"]] for row in steps.to_dict("records")}
    for record in summary(steps).to_dict("records"):
        run = one[record["strategy"], record["variant"]]
        yield Published(
            scenario=record["scenario"],
            method=row_name(record["strategy"], record["variant"]),
            source=f"{OURS}, {count_text(record['seeds'])}",
            where=OURS,
            protocol=protocol_of(run),
            backbone=str(run.spec["config"].get("network", {}).get("name", UNKNOWN)),
            background=background,
            memory=_memory(run),
            values=_numbers(record, "mean"),
            deviations=_numbers(record, "std"),
        )


def _memory(run: Run) -> int | None:
    """The size of a run's memory in images: what the setting says, or what a method with a memory of its own kept."""
    size: int | None = memory_of(run)
    return int(max(cost.get("memory_images", 0) for cost in run.costs)) if size == 0 else size


def _numbers(record: dict[Any, Any], kind: str) -> dict[str, float]:
    found = {column: float(record[f"{own}_{kind}"]) for column, own in _COLUMNS.items()}
    return {column: value for column, value in found.items() if not math.isnan(value)}


def _caption(scenario: str, runs: Sequence[Run], rows: Sequence[Published]) -> list[str]:
    about = f"Runs of {code(scenario)} beside what is published of it under the same protocol: mean IoU (%)."
    if all(row.where == OURS for row in rows):
        about += " Nothing is."
    conventions = runs[0].spec["conventions"] if runs else {}
    kept = {key: words for key, words in CONVENTIONS.items() if key != "background_in_mean"}
    told = "; ".join(f"{words} {code(convention_text(conventions.get(key, UNKNOWN)))}" for key, words in kept.items())
    ours = [f"Conventions of the runs: {told}.", settings_note(runs), *origin_notes(runs)] if runs else []
    return list(filter(None, [about, left_out_note(scenario, runs), MEANING, *ours, *marks_of(rows)]))
