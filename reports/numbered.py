"""The paper's numbered tables from finished runs: Tables 1-4 in the paper's layout, and tidy."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from reports.atomic import write_atomic
from reports.files import RecordError, csv_text
from reports.filled_grids import Number, filled
from reports.grids import Grid, grid, need_of, needed
from reports.markup import FORMATS, MARKUP, MINUS, Cell, full_header, require_table_formats
from reports.notes import code, unfinished_note
from reports.numbered_captions import numbered_caption
from reports.numbered_layout import numbered_table
from reports.records import Run, Unfinished

_CONVENTIONS = ("future_classes", "background_in_mean", "resolution", "evaluate_on")
_TIDY = ("table", "scenario", "strategy", "memory", "column", "mean", "std", "n", "seeds", "published", "difference")


def write_numbered(
    tables: Sequence[int],
    runs: Sequence[Run],
    out: Path,
    formats: Sequence[str] = FORMATS,
    on: str | None = None,
    compare: bool = False,
    unfinished: Sequence[Unfinished] = (),
) -> list[Path]:
    """Write the paper's tables of these numbers from finished runs into the folder `out`; return the files, in order.

    `formats` are of `csv` (`table-1.csv` in the paper's layout and `table-1-tidy.csv`: a row per number, with its
    seeds and conventions), `latex` (`.tex`, needs booktabs and graphicx), `markdown` (`.md`) and `html` (a fragment).
    `on`: as for `reports.grids.grid`; by default the real sets where there are runs of them, else the embedded ones.
    A run's numbers are those after its last step, the background in them or not as its conventions say. What has no
    run is a marked gap; the caption names `unfinished` runs that the table needs. `compare` sets the paper's numbers
    and the differences (ours - the paper's) beside ours.

    Raises ValueError for an unknown table, format or data set; RecordError, one line, if runs of different settings
    would fill one cell, if the runs of a table differ in their conventions (`require_one_convention`), or if numbers
    on embedded data were to be compared.
    """
    require_table_formats(formats)
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for table in tables:
        chosen = grid(table, on or _set_of(table, runs))
        for name, text in _texts(chosen, runs, formats, compare, unfinished):
            write_atomic(out / name, text)
            written.append(out / name)
    return written


def _set_of(table: int, runs: Sequence[Run]) -> str:
    """The real set's kind unless only the embedded one has runs that this table needs."""
    having = {run.spec["scenario"] for run in runs}
    for on in ("voc", "shapes"):
        if having & {need.scenario for need in needed(table, on)}:
            return on
    return "voc"


def runs_shown(tables: Sequence[int], runs: Sequence[Run], on: str | None = None) -> list[Run]:
    """Return the runs whose numbers `write_numbered` puts into these tables."""
    wanted = {need for table in tables for need in needed(table, on or _set_of(table, runs))}
    return [run for run in runs if need_of(run) in wanted]


def _texts(
    chosen: Grid, runs: Sequence[Run], formats: Sequence[str], compare: bool, unfinished: Sequence[Unfinished]
) -> Iterable[tuple[str, str]]:
    """Each file's name and content."""
    if compare and chosen.embedded:
        raise RecordError(
            f"table {chosen.table}: numbers on the embedded data set {chosen.dataset} are not comparable with the "
            "paper's; compare runs on voc or ade"
        )
    rows = filled(chosen, runs)
    caption = " ".join([*numbered_caption(chosen, rows, compare), *_missing(chosen, runs, unfinished)])
    table = numbered_table(chosen, rows, compare, caption)
    stem = f"table-{chosen.table}"
    for name in formats:
        if name == "csv":
            yield f"{stem}.csv", csv_text([full_header(table), *map(_plain, table.rows)])
            yield f"{stem}-tidy.csv", csv_text(_tidy(chosen, rows, compare))
        else:
            suffix, text = MARKUP[name]
            yield f"{stem}{suffix}", text(table)


def _missing(chosen: Grid, runs: Sequence[Run], unfinished: Sequence[Unfinished]) -> list[str]:
    """What is said of unfinished runs that the table needs, scenario by scenario."""
    wanted = set(needed(chosen.table, chosen.dataset))
    own = [run for run in unfinished if need_of(run) in wanted]
    counts = Counter(run.spec["scenario"] for run in runs if need_of(run) in wanted)
    scenarios = dict.fromkeys(run.spec["scenario"] for run in own)
    return [f"{code(name)}: {unfinished_note(name, own, counts[name])}" for name in scenarios]


def _tidy(chosen: Grid, rows: Sequence[Sequence[Number]], compare: bool) -> Iterable[list[object]]:
    """The header and a line per number, row after row; a convention beyond the usual ones gets a column too."""
    numbers = [number for row in rows for number in row]
    others = {key for number in numbers for key in number.conventions}.difference(_CONVENTIONS)
    conventions = [*_CONVENTIONS, *sorted(others)]
    yield [*_TIDY, *conventions]
    for number in numbers:
        published = number.published if compare else None
        yield [
            chosen.table,
            *(number.need.scenario, number.need.strategy, number.need.memory, number.column),
            _exact(number.mean),
            _exact(number.std),
            len(number.by_seed),
            number.seeds,
            "" if published is None else f"{published:.2f}",
            _exact(number.difference) if compare else "",
            *(number.conventions.get(key, "") for key in conventions),
        ]


def _exact(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.4f}"


def _plain(row: Sequence[Cell]) -> list[str]:
    """A row's texts for CSV, with an ASCII minus."""
    return [text for cell in row for text in (cell.text.replace(MINUS, "-"), *[""] * (cell.span - 1))]
