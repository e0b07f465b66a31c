"""The cost table: what each strategy takes per incoming batch, and what it holds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from reports.atomic import write_atomic
from reports.conventions import require_one_convention
from reports.markup import MARKUP, Cell, Table, require_table_formats
from reports.notes import origin_notes, settings_note, unfinished_note
from reports.records import Run, Unfinished, runs_on, scenarios_of
from reports.rows import NO_RUN, embedded_note, file_stem, row_name
from reports.tables import frame, group_breaks, summary

COLUMNS: dict[str, tuple[str, Callable[[float], str]]] = {
    "seconds_per_batch": ("ms", lambda value: f"{1000 * value:.1f}"),
    "forward_per_batch": ("forward", lambda value: f"{value:.2f}"),
    "backward_per_batch": ("backward", lambda value: f"{value:.2f}"),
    "images_per_batch": ("images", lambda value: f"{value:.1f}"),
    "memory_images": ("kept", lambda value: f"{value:.0f}"),
    "memory_bytes": ("memory MB", lambda value: f"{value / 1e6:.2f}"),
    "peak_ram_bytes": ("RAM MB", lambda value: f"{value / 1e6:.0f}"),
    "peak_gpu_bytes": ("GPU MB", lambda value: f"{value / 1e6:.0f}"),
}
"""Columns of the summary: the header, and a value in print."""


def write_costs(
    runs: Sequence[Run],
    out: Path,
    formats: Sequence[str] = ("csv", "latex"),
    scenarios: Sequence[str] | None = None,
    unfinished: Sequence[Unfinished] = (),
) -> list[Path]:
    """Write each scenario's cost table `<scenario>-costs.*` into the folder `out` and return the files, in order.

    The CSV holds the summary's columns as they are; the others are rounded and name their units and the `unfinished`
    runs. Raises ValueError for an unknown format, RecordError if the runs of a scenario differ in their conventions
    (`require_one_convention`).
    """
    require_table_formats(formats)
    for scenario in scenarios_of(runs):
        require_one_convention(runs_on(scenario, runs))
    rows = summary(frame(runs))
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for scenario in scenarios_of(runs) if scenarios is None else scenarios:
        own = rows[rows["scenario"] == scenario]
        measured = runs_on(scenario, runs)
        notes = _notes(measured, unfinished_note(scenario, unfinished, len(measured)))
        for name in formats:
            suffix, text = _text(name, scenario, own, notes)
            path = out / f"{file_stem(scenario)}-costs{suffix}"
            write_atomic(path, text)
            written.append(path)
    return written


def _notes(runs: Sequence[Run], missing: str) -> str:
    return "".join(f" {note}" for note in (missing, settings_note(runs), *origin_notes(runs)) if note)


def _text(name: str, scenario: str, rows: pd.DataFrame, notes: str) -> tuple[str, str]:
    """The end of a file's name, and what it holds."""
    if name == "csv":
        return ".csv", _csv(rows)
    suffix, markup = MARKUP[name]
    return suffix, markup(_table(scenario, rows, notes))


def _csv(rows: pd.DataFrame) -> str:
    chosen = rows[["scenario", "strategy", "variant", "n", "seeds", *COLUMNS]]
    return str(chosen.to_csv(index=False, float_format="%.6g", lineterminator="\n"))


def _table(scenario: str, rows: pd.DataFrame, notes: str) -> Table:
    note = embedded_note(scenario)
    return cost_table(
        rows,
        list(COLUMNS),
        label=f"tab:{file_stem(scenario)}-costs",
        caption=(
            f"Costs on `{scenario}`{f' ({note})' if note else ''}: milliseconds, forward and backward passes and "
            "images passed forward per incoming batch, mean over batches and seeds; the most images and MB in memory; "
            "the peak RAM of the process and the peak GPU memory of a step, over all steps and seeds."
            f"{notes}"
        ),
    )


def cost_table(rows: pd.DataFrame, columns: Sequence[str], label: str, caption: str) -> Table:
    """Return the table of these of `COLUMNS`, a row for each row of `reports.tables.summary`."""
    return Table(
        label=label,
        header=["Methods", *(COLUMNS[column][0] for column in columns)],
        rows=[
            [Cell(row_name(row["strategy"], row["variant"])), *(_cell(row[column], column) for column in columns)]
            for row in rows.to_dict("records")
        ],
        gap=NO_RUN,
        caption=caption,
        breaks=group_breaks(rows),
    )


def _cell(value: float, column: str) -> Cell:
    return Cell("--" if math.isnan(value) else COLUMNS[column][1](value))
