"""The field's offline table: methods by rows, and for each scenario old, new, all classes and the mean over steps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from reports.atomic import write_atomic
from reports.conventions import require_one_convention
from reports.markup import FORMATS, MARKUP, Cell, Table, require_table_formats
from reports.notes import code, origin_notes, settings_note, unfinished_note
from reports.records import Run, Unfinished, runs_on
from reports.rows import EMBEDDED, NO_RUN, row_name, row_order
from reports.scenario_tables import cells, conventions_note
from reports.tables import MEASURES, frame, ranked_groups, summary

_SPLITS = {
    **dict.fromkeys(("voc", "shapes"), ("15-5", "15-1", "10-1", "19-1")),
    **dict.fromkeys(("ade", "scenes"), ("100-50", "100-10", "50-50")),
}
_COLUMNS = ("old", "new", "miou", "avg")
_SETUP = "overlapped"


def offline_splits(on: str) -> tuple[str, ...]:
    """Return the divisions of a data set's classes that papers of the offline protocol report, as `15-5`."""
    return _SPLITS[on]


def offline_scenarios(on: str, splits: Sequence[str] | None = None) -> list[str]:
    """Return the scenarios of the table on a data set, by default all of `offline_splits`."""
    return [f"{on}-{split}-{_SETUP}" for split in _SPLITS[on] if splits is None or split in splits]


def write_offline(
    runs: Sequence[Run],
    out: Path,
    formats: Sequence[str] = FORMATS,
    on: str = "voc",
    unfinished: Sequence[Unfinished] = (),
    splits: Sequence[str] | None = None,
) -> list[Path]:
    """Write the table of a data set, `offline-<set>.*`, from finished runs into the folder `out`; return the files.

    `splits` are those of `offline_splits` that it has, by default all.
    The CSV has a row per method and scenario with mean and deviation over seeds; in the others methods are the rows.
    What has no run is a marked gap. Raises ValueError for an unknown format, RecordError if the runs of a scenario
    differ in their conventions.
    """
    require_table_formats(formats)
    scenarios = offline_scenarios(on, splits)
    chosen = [run for run in runs if run.spec["scenario"] in scenarios]
    for scenario in scenarios:
        require_one_convention(runs_on(scenario, chosen))
    rows = summary(frame(chosen))
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for name in formats:
        suffix, text = (".csv", _csv(rows)) if name == "csv" else (MARKUP[name][0], "")
        path = out / f"offline-{on}{suffix}"
        write_atomic(path, text or MARKUP[name][1](_table(on, scenarios, rows, chosen, unfinished)))
        written.append(path)
    return written


def _csv(rows: pd.DataFrame) -> str:
    spread = [f"{column}_{kind}" for column in _COLUMNS for kind in ("mean", "std")]
    chosen = rows[["scenario", "strategy", "variant", "n", "seeds", *spread]]
    return str(chosen.to_csv(index=False, float_format="%.4f", lineterminator="\n"))


def _table(
    on: str, scenarios: Sequence[str], rows: pd.DataFrame, runs: Sequence[Run], unfinished: Sequence[Unfinished]
) -> Table:
    labels = {(row["strategy"], row["variant"]) for row in rows.to_dict("records")}
    names = sorted(labels, key=lambda label: row_order(*label))
    columns = [column for name in scenarios for column in _block(rows[rows["scenario"] == name], names)]
    return Table(
        label=f"tab:offline-{on}",
        header=["Methods", *[MEASURES[column] for column in _COLUMNS] * len(scenarios)],
        rows=[[Cell(row_name(*name)), *line] for name, line in zip(names, zip(*columns, strict=True), strict=True)],
        gap=NO_RUN,
        caption=" ".join(filter(None, _caption(on, scenarios, runs, unfinished))),
        headings=[[Cell(""), *(Cell(name.removeprefix(f"{on}-"), span=len(_COLUMNS)) for name in scenarios)]],
        wide=True,
    )


def _block(rows: pd.DataFrame, names: Sequence[tuple[str, str]]) -> list[list[Cell]]:
    """A scenario's columns, with a gap for each row that has no run of it."""
    there = {(row["strategy"], row["variant"]): place for place, row in enumerate(rows.to_dict("records"))}
    groups = ranked_groups(rows)
    found = [cells(rows, column, groups) for column in _COLUMNS]
    return [[column[there[name]] if name in there else Cell("--") for name in names] for column in found]


def _caption(on: str, scenarios: Sequence[str], runs: Sequence[Run], unfinished: Sequence[Unfinished]) -> list[str]:
    note = f" (embedded data set {code(on)}, not VOC/ADE results)" if on in EMBEDDED else ""
    missing = [run for run in unfinished if run.spec["scenario"] in scenarios]
    return [
        f"The offline protocol on {code(on)}{note}, {_SETUP}: mean IoU (%) of old, new and all classes after the last "
        "step, and `avg`, the mean of that of all after steps 0..T; mean and standard deviation over seeds.",
        *(unfinished_note(name, missing, len(runs_on(name, runs))) for name in scenarios),
        conventions_note(runs),
        settings_note(runs),
        *origin_notes(runs),
    ]
