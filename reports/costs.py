"""The cost table: what each strategy takes per incoming batch, and what it holds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from reports.by_scenario import write_by_scenario
from reports.markup import Cell, Table, require_table_formats
from reports.notes import origin_notes, settings_note, unfinished_note
from reports.records import Run, Unfinished
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

    def table_of(scenario: str, rows: pd.DataFrame, own: Sequence[Run]) -> Table:
        return _table(scenario, rows, _notes(own, unfinished_note(scenario, unfinished, len(own))))

    rows = summary(frame(runs))
    return write_by_scenario(runs, rows, out, formats, scenarios, "-costs", lambda _, own: _csv(own), table_of)


def _notes(runs: Sequence[Run], missing: str) -> str:
    return "".join(f" {note}" for note in (missing, settings_note(runs), *origin_notes(runs)) if note)


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
