"""What is published of a scenario, as a table: alone, or beside runs that were trained by the same protocol."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from reports.atomic import write_atomic
from reports.conventions import recorded
from reports.files import RecordError, csv_text
from reports.literature import Published, all_rows, published_facts, published_rows
from reports.markup import MARKUP, Cell, Table, require_table_formats
from reports.rows import file_stem

GAP = "--"
DOUBTFUL = "†"
LABELS = ("source", "protocol", "background", "memory", "backbone")
HEADERS = {"old": "old", "new": "new", "all": "all", "avg": "avg", "imiou": "imIoU", "hiou": "hIoU"}
"""Columns of published numbers, with their headers; `step_1` ... come behind them."""
AFTER = "all after steps 0, 1, ..."
CSV = ("scenario", "method", "variant", "source", "where", "protocol", "background", "memory", "backbone")

MEANING = (
    "Background: whether its IoU is in `old` and `all` (by arithmetic: told by what makes `all` of `old` and `new`). "
    "Numbers of other protocols, backgrounds or memories do not compare."
)


def write_published(scenario: str, methods: Sequence[str], out: Path, formats: Sequence[str]) -> list[Path]:
    """Write `published-SCENARIO` into the folder `out` in these formats and return the files, in order.

    Raises ValueError for an unknown format, RecordError, one line, for a scenario or one of `methods` (all by default)
    of which nothing is published.
    """
    require_table_formats(formats)
    rows = rows_of(scenario, methods)
    out.mkdir(parents=True, exist_ok=True)
    return write_files(f"published-{file_stem(scenario)}", csv_of(rows), published_table(scenario, rows), out, formats)


def write_files(stem: str, csv: str, table: Table, out: Path, formats: Sequence[str]) -> list[Path]:
    """Write a table in each format and return the files."""
    written = []
    for name in formats:
        suffix, markup = MARKUP.get(name, (".csv", lambda _: csv))
        path = out / f"{stem}{suffix}"
        write_atomic(path, markup(table))
        written.append(path)
    return written


def rows_of(scenario: str, methods: Sequence[str] = ()) -> list[Published]:
    """Return what is published of a scenario by any of `methods`, all by default; RecordError as `write_published`."""
    rows = published_rows(scenario)
    for method in methods:
        if not any(_is_of(row, method) for row in rows):
            known = ", ".join(dict.fromkeys(row.method for row in rows))
            raise RecordError(f"nothing is published of method '{method}' on {scenario}; there are {known}")
    return [row for row in rows if not methods or any(_is_of(row, method) for method in methods)]


def _is_of(row: Published, method: str) -> bool:
    """Whether a row is of a method, alone or joined with another, as in `plop + ucd`."""
    return method in (row.method, *row.method.split(" + "))


def published_table(scenario: str, rows: Sequence[Published]) -> Table:
    """Return the table of published rows: the method, whose number it is and how it was made, the numbers."""
    about = f"Published mean IoU (%) of `{scenario}`, from whom, as printed there; `{GAP}`: not read."
    facts = [f"{fact.source}: {fact.text}." for fact in published_facts(scenario)]
    return table_of(f"published-{file_stem(scenario)}", rows, [about, MEANING, *marks_of(rows), *facts])


def table_of(label: str, rows: Sequence[Published], caption: Sequence[str], breaks: Sequence[int] = ()) -> Table:
    """Return the table of rows under a caption of these sentences; `breaks` as in `reports.markup.Table`."""
    columns = columns_of(rows)
    return Table(
        label=f"tab:{label}",
        header=_header(columns, rows),
        rows=[_cells(row, columns, rows) for row in rows],
        gap=GAP,
        caption=" ".join(caption),
        wide=True,
        stub=1 + len(LABELS),
        breaks=breaks,
    )


def columns_of(rows: Sequence[Published]) -> list[str]:
    """Return the columns of which any row has a number."""
    there = {column for row in rows for column in row.values}
    steps = sorted((column for column in there - set(HEADERS)), key=lambda column: int(column.removeprefix("step_")))
    return [*(column for column in HEADERS if column in there), *steps]


def _header(columns: Sequence[str], rows: Sequence[Published]) -> list[str]:
    """Return the headers of the methods' names, the labels and these columns."""
    headers = [HEADERS.get(column, column.replace("_", " ")) for column in columns]
    return ["Methods", *LABELS, *headers, *([AFTER] if any(row.after for row in rows) else [])]


def _cells(row: Published, columns: Sequence[str], rows: Sequence[Published]) -> list[Cell]:
    """Return a published row's cells below `_header`."""
    name = f"{row.name} {DOUBTFUL}" if row.doubt else row.name
    digits = _digits(row.source)
    numbers = [_number(row, column, digits) for column in columns]
    spread = "" if row.spread is None else f" ± {row.spread:.{digits}f}"
    after = [", ".join(f"{value:.{digits}f}" for value in row.after) + spread or GAP]
    labels = [row.source, row.protocol, row.background, recorded(row.memory), row.backbone]
    with_after = any(one.after for one in rows)
    return [*map(Cell, [name, *labels]), *numbers, *map(Cell, after if with_after else [])]


def _number(row: Published, column: str, digits: int) -> Cell:
    deviation = row.deviations.get(column)
    std = "" if deviation is None else f"{deviation:.{digits}f}"
    return Cell(f"{row.values[column]:.{digits}f}", std) if column in row.values else Cell(GAP)


def _digits(source: str) -> int:
    """With how many decimals a source prints its numbers; one that is not published, with two."""
    own = [value for row in all_rows() if row.source == source for value in (*row.values.values(), *row.after)]
    return max((len(f"{value:g}".partition(".")[2]) for value in own), default=2)


def marks_of(rows: Iterable[Published]) -> list[str]:
    """Return what is doubtful of which rows, in a sentence each."""
    return [f"{DOUBTFUL} {row.name} ({row.source}): {row.doubt}." for row in rows if row.doubt]


def csv_of(rows: Sequence[Published]) -> str:
    """Return published rows as a CSV file holds them: every label, every number, and why a row is doubtful."""
    columns = columns_of(rows)
    deviating = [column for column in columns if any(column in row.deviations for row in rows)]
    header = [*CSV, *columns, *(f"{column}_std" for column in deviating), "after", "spread", "doubt"]
    return csv_text([header, *(_csv_row(row, columns, deviating) for row in rows)])


def _csv_row(row: Published, columns: Sequence[str], deviating: Sequence[str]) -> list[object]:
    """Return a row's cells of `csv_of`."""
    labels: Mapping[str, object] = vars(row)
    numbers = [_exact(row.values.get(column)) for column in columns]
    numbers += [_exact(row.deviations.get(column)) for column in deviating]
    return [
        *(labels[key] for key in CSV),
        *numbers,
        " ".join(map(str, row.after)),
        _exact(row.spread),
        row.doubt,
    ]


def _exact(value: float | None) -> str:
    return "" if value is None else f"{round(value, 4):g}"
