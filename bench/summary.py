"""The table at the end of `bench run`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

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
_COSTS = {"seconds_per_batch": "s / batch", "forward_per_batch": "forward", "backward_per_batch": "backward"}


def results_table(frame: pd.DataFrame) -> Table:
    """Return old, new, all, imIoU (per cent, mean and deviation over seeds) and costs per incoming batch."""
    rows = summary(frame)
    table = Table(title=f"{rows.scenario.iloc[0]}: mIoU in per cent, costs per incoming batch")
    table.add_column("strategy")
    for name in ("n", *_COLUMNS.values(), *_COSTS.values()):
        table.add_column(name, justify="right")
    for row in rows.to_dict("records"):
        results = [_mean_and_deviation(row, column) for column in _COLUMNS]
        costs = [f"{row[column]:.3g}" for column in _COSTS]
        table.add_row(row_name(row["strategy"], row["variant"]), str(row["n"]), *results, *costs)
    return table


def _mean_and_deviation(row: dict[Any, Any], column: str) -> str:
    mean, deviation = row[f"{column}_mean"], row[f"{column}_std"]
    if math.isnan(mean):
        return "--"
    return f"{mean:.2f}" if math.isnan(deviation) else f"{mean:.2f} ± {deviation:.2f}"
