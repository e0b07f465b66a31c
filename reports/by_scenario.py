"""A table for each scenario, in every format: what the writers of tables by scenario share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from reports.atomic import write_atomic
from reports.conventions import require_one_convention
from reports.markup import MARKUP, Table, require_table_formats
from reports.records import Run, runs_on, scenarios_of
from reports.rows import file_stem

CsvOf = Callable[[str, pd.DataFrame], str]
"""From a scenario and its rows to the content of its CSV."""
TableOf = Callable[[str, pd.DataFrame, Sequence[Run]], Table]
"""From a scenario, its rows and its runs to its table."""


def write_by_scenario(
    runs: Sequence[Run],
    rows: pd.DataFrame,
    out: Path,
    formats: Sequence[str],
    scenarios: Sequence[str] | None,
    end: str,
    csv_of: CsvOf,
    table_of: TableOf,
) -> list[Path]:
    """Write each scenario's table, `<scenario><end>.*`, into the folder `out` and return the files, in order.

    `scenarios` are those of the runs by default. Raises ValueError for an unknown format, RecordError if the runs of a
    scenario differ in their conventions (`require_one_convention`).
    """
    require_table_formats(formats)
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for scenario in scenarios_of(runs) if scenarios is None else scenarios:
        own, its_rows = runs_on(scenario, runs), rows[rows["scenario"] == scenario]
        require_one_convention(own)
        for name in formats:
            if name == "csv":
                suffix, text = ".csv", csv_of(scenario, its_rows)
            else:
                suffix, markup = MARKUP[name]
                text = markup(table_of(scenario, its_rows, own))
            path = out / f"{file_stem(scenario)}{end}{suffix}"
            write_atomic(path, text)
            written.append(path)
    return written
