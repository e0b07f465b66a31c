"""The table at the end of `bench run`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE
from rich.table import Table

from reports.rows import row_name
from reports.tables import summary

if TYPE_CHECKING:
    import pandas as pd

_COLUMNS = {
    "old": "old",
    "new": "new",
    "miou": "all",
    "imiou": "imIoU",
}
_COSTS = {"seconds_per_batch": "s/batch", "forward_per_batch": "fwd", "backward_per_batch": "bwd"}


def results_table(frame: pd.DataFrame) -> Table:
    """Return old, new, all, imIoU (per cent, mean and deviation over seeds) and costs per incoming batch."""
    rows = summary(frame)
    names = [row_name(s, v) for s, v in zip(rows.strategy, rows.variant, strict=True)]
    table = Table(
        title=f"{rows.scenario.iloc[0]}, mIoU in per cent",
        title_justify="left",
        box=SIMPLE,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    table.add_column("strategy", overflow="fold", min_width=min(24, max(map(len, names))))
    for name in ("n", *_COLUMNS.values(), *_COSTS.values()):
        table.add_column(name, justify="right", no_wrap=True)
    for name, row in zip(names, rows.to_dict("records"), strict=True):
        results = [_mean_and_deviation(row, column) for column in _COLUMNS]
        costs = [f"{row[column]:.3g}" for column in _COSTS]
        table.add_row(name, str(row["n"]), *results, *costs)
    return table


def _mean_and_deviation(row: dict[Any, Any], column: str) -> str:
    mean, deviation = row[f"{column}_mean"], row[f"{column}_std"]
    if math.isnan(mean):
        return "--"
    return f"{mean:.1f}" if math.isnan(deviation) else f"{mean:.1f} ± {deviation:.1f}"
