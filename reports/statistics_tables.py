"""The paired differences to ours and the mean ranks as files, in every format."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from reports.atomic import write_atomic
from reports.class_notes import classes_note
from reports.conventions import require_one_convention
from reports.grids import runs_by_memory
from reports.markup import FORMATS, MARKUP, MINUS, Cell, Table, require_table_formats
from reports.notes import IMIOU, code, origin_notes, settings_note
from reports.records import Run, runs_on, scenarios_of
from reports.rows import EMBEDDED, NO_RUN, differing_settings, embedded_note, file_stem, row_name, row_order
from reports.statistics import is_ranked, paired_differences, ranks
from reports.tables import MEASURES, frames_by_memory


def write_statistics(runs: Sequence[Run], out: Path, formats: Sequence[str] = FORMATS) -> list[Path]:
    """Write the paired differences to ours and the mean ranks into the folder `out`; return the files, in order.

    For every memory size there is in the runs: `differences-memory-<size>.*` and `ranks-memory-<size>.*`. Raises
    ValueError for an unknown format, RecordError if the runs of a scenario differ in their conventions.
    """
    require_table_formats(formats)
    for scenario in scenarios_of(runs):
        require_one_convention(runs_on(scenario, runs))
    out.mkdir(parents=True, exist_ok=True)
    written = []
    steps = frames_by_memory(runs)
    for memory, own in runs_by_memory(runs).items():
        for name, text in _texts(steps[memory], own, memory, formats):
            write_atomic(out / name, text)
            written.append(out / name)
    return written


def _texts(steps: pd.DataFrame, runs: Sequence[Run], memory: Any, formats: Sequence[str]) -> Iterable[tuple[str, str]]:
    differences, mean_ranks = paired_differences(steps), ranks(steps)
    tables = {
        "differences": (differences, _difference_tables(differences, memory, runs)),
        "ranks": (mean_ranks, _rank_tables(mean_ranks, memory, runs)),
    }
    for name, (rows, drawn) in tables.items():
        stem = f"{name}-memory-{memory}"
        for kind in formats:
            if kind == "csv":
                yield f"{stem}.csv", rows.to_csv(index=False, float_format="%.4f", lineterminator="\n")
            else:
                suffix, text = MARKUP[kind]
                yield f"{stem}{suffix}", "\n".join(map(text, drawn))


def _difference_tables(rows: pd.DataFrame, memory: Any, runs: Sequence[Run]) -> list[Table]:
    return [
        _difference_table(str(name), own, memory, runs_on(str(name), runs))
        for name, own in rows.groupby("scenario", sort=False)
    ]


def _difference_table(scenario: str, rows: pd.DataFrame, memory: Any, runs: Sequence[Run]) -> Table:
    note = embedded_note(scenario)
    equal = " of equal settings" if differing_settings(runs) else ""
    lines = []
    for (strategy, variant), own in rows.groupby(["strategy", "variant"], sort=False):
        by_column = {row["column"]: row for row in own.to_dict("records")}
        seeds = by_column["miou"]["seeds"].replace(" ", ", ") or "--"
        star = "" if by_column["miou"]["all_seeds"] else "*"
        cells = [interval_cell(by_column[column]) for column in MEASURES]
        lines.append([Cell(row_name(str(strategy), str(variant))), Cell(f"{seeds}{star}"), *cells])
    return Table(
        label=f"tab:{file_stem(scenario)}-differences-{memory}",
        header=["Methods", "seeds", *MEASURES.values()],
        rows=lines,
        gap=NO_RUN,
        caption=" ".join(
            [
                f"Paired differences to `{rows['reference'].iloc[0]}`{equal} on `{scenario}`"
                f"{f' ({note})' if note else ''} with memory {memory}, in points of mean IoU: mean over the common "
                "seeds and its 95 % confidence interval (Student's t).",
                IMIOU,
                "*: a seed that only one of the two has is left out.",
                *filter(None, [classes_note(runs), settings_note(runs), *origin_notes(runs)]),
            ]
        ),
        wide=True,
        stub=2,
    )


def interval_cell(row: dict[Any, Any]) -> Cell:
    """Return a paired difference and its confidence interval, in points, as a cell."""
    if math.isnan(row["difference"]):
        return Cell("--")
    interval = "" if math.isnan(row["low"]) else f" [{_signed(row['low'])}, {_signed(row['high'])}]"
    return Cell(f"{_signed(row['difference'])}{interval}")


def _signed(value: float) -> str:
    text = f"{value:.2f}"
    return text.removeprefix("-") if float(text) == 0 else text.replace("-", MINUS)


def _rank_tables(rows: pd.DataFrame, memory: Any, runs: Sequence[Run]) -> list[Table]:
    return [
        _rank_table(place, own, memory, runs)
        for place, (_, own) in enumerate(rows.groupby(["data", "settings"], sort=False), start=1)
    ]


def _rank_table(place: int, rows: pd.DataFrame, memory: Any, runs: Sequence[Run]) -> Table:
    wide = rows.pivot(index="strategy", columns="column", values="mean_rank")
    order = sorted(wide.index, key=lambda method: (wide["miou"].fillna(math.inf)[method], row_order(method, "")))
    first = rows[rows["column"] == "miou"].iloc[0]
    data, settings, names = first["data"], first["settings"], first["over"].split()
    ranked = [run for run in runs if run.spec["scenario"] in names and is_ranked(run.spec["strategy"])]
    note = f" on the embedded data sets {' and '.join(EMBEDDED)}, not VOC/ADE results" if data == "embedded" else ""
    flag = "" if first["all_seeds"] else " Not all methods and scenarios have these seeds alone."
    return Table(
        label=f"tab:ranks-{data}-{memory}{f'-{place}' if settings else ''}",
        header=["Methods", *MEASURES.values()],
        rows=[[Cell(method), *(_rank(wide, method, column) for column in MEASURES)] for method in order],
        gap=NO_RUN,
        caption=" ".join(
            [
                f"Mean rank (1 is the best){note} with memory {memory}"
                f"{f' among the rows with {code(settings)}' if settings else ''} over {first['scenarios']} scenarios: "
                f"{', '.join(map(code, names))}; means over seeds {first['seeds']}.{flag}",
                *origin_notes(ranked),
            ]
        ),
        wide=True,
    )


def _rank(wide: pd.DataFrame, method: str, column: str) -> Cell:
    value = wide[column].get(method, math.nan) if column in wide else math.nan
    return Cell("--" if math.isnan(value) else f"{value:.2f}")
