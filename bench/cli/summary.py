"""The table at the end of `bench run`."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from reports.class_notes import classes_note
from reports.records import Run
from reports.rows import row_name
from reports.tables import MEASURES, frame, group_breaks, summary

_COSTS = {"seconds_per_batch": "s/batch", "forward_per_batch": "fwd", "backward_per_batch": "bwd"}


def print_results(runs: Sequence[Run], console: Console) -> None:
    """Print the `results_table` of runs, and below it, as wide as the console, what classes its means are of."""
    console.print(results_table(runs, console.width))
    console.print(classes_note(runs).replace("`", ""), markup=False, highlight=False)


def results_table(runs: Sequence[Run], width: int) -> Table:
    """Return the measures of `MEASURES` (per cent, mean and deviation over seeds) and costs per incoming batch.

    `runs` are of one scenario; rows of other settings stand behind a gap. The costs are left out where the table
    would be wider than `width` characters.
    """
    table = _table(runs, _COSTS)
    widest = Console(width=10_000)
    return table if Measurement.get(widest, widest.options, table).minimum <= width else _table(runs, ())


def _table(runs: Sequence[Run], costs: Collection[str]) -> Table:
    rows = summary(frame(runs))
    names = [row_name(s, v) for s, v in zip(rows.strategy, rows.variant, strict=True)]
    table = Table(
        title=f"{rows.scenario.iloc[0]}, mIoU in per cent",
        title_justify="left",
        box=SIMPLE,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    table.add_column("strategy", overflow="fold", min_width=min(14, max(map(len, names))))
    cells = [
        [str(row["n"]), *(_mean_and_deviation(row, column) for column in MEASURES), *(f"{row[c]:.3g}" for c in costs)]
        for row in rows.to_dict("records")
    ]
    headers = ["n", *MEASURES.values(), *(_COSTS[column] for column in costs)]
    for header, *texts in zip(headers, *cells, strict=True):
        table.add_column(header, justify="right", no_wrap=True, min_width=max(map(len, [header, *texts])))
    for place, (name, texts) in enumerate(zip(names, cells, strict=True)):
        table.add_row(name, *texts, end_section=place + 1 in group_breaks(rows))
    return table


def _mean_and_deviation(row: dict[Any, Any], column: str) -> str:
    mean, deviation = row[f"{column}_mean"], row[f"{column}_std"]
    if math.isnan(mean):
        return "--"
    return f"{mean:.1f}" if math.isnan(deviation) else f"{mean:.1f} ± {deviation:.1f}"
