"""The paper's numbered tables from finished runs: Tables 1-4 in the paper's layout, and tidy."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reports.atomic import write_atomic
from reports.class_notes import classes_note, every_class_counts
from reports.conventions import background_counts, convention_text, require_one_convention
from reports.files import RecordError, csv_text
from reports.grids import MEMORY_SETTING, Block, Grid, NeededRun, Row, grid, need_of, needed
from reports.markup import FORMATS, MARKUP, MINUS, Cell, Table, full_header, ranks
from reports.notes import code, origin_notes, settings_note, unfinished_note
from reports.paper import published_value
from reports.records import Run, Unfinished, run_order
from reports.rows import (
    RowId,
    common_seeds,
    count_text,
    differing_settings,
    embedded_note,
    natural_order,
    row_id,
    row_settings,
    seeds_text,
    variants,
)

GAP = "--"

_CONVENTIONS = ("future_classes", "background_in_mean", "resolution", "evaluate_on")
_BESIDE = (MEMORY_SETTING,)
"""The setting that a heading tells."""
_ODD = "†"
"""Marks a row of other settings."""
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
    for unknown in set(formats) - set(FORMATS):
        raise ValueError(f"table format {unknown!r}: allowed are {', '.join(FORMATS)}")
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
    rows = _filled(chosen, runs)
    table = _table(chosen, rows, compare, _missing(chosen, runs, unfinished))
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


# ---------------------------------------------------------------- numbers


@dataclass(frozen=True)
class _Number:
    """One number of a table: a column's value of every seed, in per cent; none where there is no run."""

    need: NeededRun
    row: Row
    block: Block
    column: str
    by_seed: Mapping[int, float]
    runs: Sequence[Run]
    settings: str
    """In which the rows of this block differ, '' if in none."""
    published: float | None

    @property
    def conventions(self) -> Mapping[str, Any]:
        """Those of its runs, which share them."""
        return self.runs[0].spec["conventions"] if self.runs else {}

    @property
    def mean(self) -> float:
        return float(np.mean(list(self.by_seed.values()))) if self.by_seed else math.nan

    @property
    def std(self) -> float:
        """The sample standard deviation (ddof = 1), NaN below two seeds."""
        return float(np.std(list(self.by_seed.values()), ddof=1)) if len(self.by_seed) > 1 else math.nan

    @property
    def seeds(self) -> str:
        return seeds_text(self.by_seed)

    @property
    def difference(self) -> float:
        return math.nan if self.published is None else self.mean - self.published


def _filled(chosen: Grid, runs: Sequence[Run]) -> list[list[_Number]]:
    """The numbers of every row, from left to right."""
    by_need: dict[NeededRun, list[Run]] = {need: [] for need in needed(chosen.table, chosen.dataset)}
    for run in sorted(runs, key=run_order):
        need = need_of(run)
        if need in by_need:
            by_need[need].append(run)
    require_one_convention([run for own in by_need.values() for run in own])
    for need, own in by_need.items():
        _require_one_setting(need, own)
    settings = {block: row_settings(_scenario_runs(chosen, block, by_need), _BESIDE) for block in chosen.layout.blocks}
    return [
        [
            number
            for block in chosen.layout.blocks
            for number in _numbers(chosen, row, block, by_need[chosen.cell(row, block)], settings[block])
        ]
        for row in chosen.layout.rows
    ]


def _scenario_runs(chosen: Grid, block: Block, by_need: Mapping[NeededRun, list[Run]]) -> list[Run]:
    """The runs of a block's scenario, of any size of memory."""
    return [run for need, own in by_need.items() if need.scenario == f"{chosen.dataset}-{block.split}" for run in own]


def _require_one_setting(need: NeededRun, runs: Sequence[Run]) -> None:
    """Refuse runs that would be averaged in one cell although their settings differ, or that are one run twice."""
    where = f"{need.scenario}, {need.strategy}, memory {need.memory}"
    names = variants(runs)
    if len(names) > 1:
        first = {row: next(run.path for run in runs if row_id(run) == row) for row in names}
        kinds = " and ".join(f"{first[row]} ({text})" for row, text in names.items())
        raise RecordError(
            f"{where}: {kinds} differ in a setting and would fill one cell; give a folder with one of them"
        )
    seen: dict[int, Path] = {}
    for run in runs:
        if run.spec["seed"] in seen:
            raise RecordError(
                f"{seen[run.spec['seed']]} and {run.path}: the same run twice, its seed would count double"
            )
        seen[run.spec["seed"]] = run.path


def _numbers(
    chosen: Grid, row: Row, block: Block, runs: Sequence[Run], settings: Mapping[RowId, str]
) -> Iterable[_Number]:
    need = chosen.cell(row, block)
    for column, _ in block.columns:
        yield _Number(
            need=need,
            row=row,
            block=block,
            column=column,
            by_seed={run.spec["seed"]: _value(run, column) for run in runs},
            runs=runs,
            settings=settings[row_id(runs[0])] if runs else "",
            published=None
            if chosen.embedded
            else published_value(chosen.table, need.scenario, need.memory, need.strategy, column),
        )


def _value(run: Run, column: str) -> float:
    """A column after the last step, with or without the background as the run's conventions say."""
    last = run.steps[-1]
    without = f"{column}_without_background"
    if without in last and not background_counts(run.spec["conventions"]):
        column = without
    if column not in last:
        raise RecordError(f"{run.path / 'steps.csv'}: no column {column}, which scenario {run.spec['scenario']} has")
    return last[column]


# ---------------------------------------------------------------- CSV


def _tidy(chosen: Grid, rows: Sequence[Sequence[_Number]], compare: bool) -> Iterable[list[object]]:
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


# ---------------------------------------------------------------- layout


def _table(chosen: Grid, rows: Sequence[Sequence[_Number]], compare: bool, missing: Sequence[str]) -> Table:
    layout = chosen.layout
    stub = len(layout.stub)
    return Table(
        label=f"tab:{chosen.table}-{chosen.dataset}{'-compared' if compare else ''}",
        header=[*layout.stub, *(_header(text, rows) for block in layout.blocks for _, text in block.columns)],
        rows=_cells(chosen, rows, compare),
        gap=GAP,
        caption=" ".join([*_caption(chosen, rows, compare), *missing]),
        headings=_headings(layout.blocks, Cell(layout.stub_heading, span=stub)),
        wide=True,
        stub=stub,
        breaks=range(3, 3 * len(rows), 3) if compare else (),
    )


def _header(text: str, rows: Sequence[Sequence[_Number]]) -> str:
    """`0-15`, or `1-15` where the background is not in the mean."""
    without = not all(background_counts(number.conventions) for row in rows for number in row)
    return f"1-{text.removeprefix('0-')}" if without and text.startswith("0-") else text


def _headings(blocks: Sequence[Block], left: Cell) -> list[list[Cell]]:
    """The rows above the header, equal neighbours joined."""
    return [[left, *_joined(blocks, level)] for level in range(len(blocks[0].headings))]


def _joined(blocks: Sequence[Block], level: int) -> list[Cell]:
    cells: list[Cell] = []
    before: tuple[str, ...] = ()
    for block in blocks:
        span = len(block.columns)
        if block.headings[: level + 1] == before:
            span += cells.pop().span
        before = block.headings[: level + 1]
        cells.append(Cell(block.headings[level], span=span))
    return cells


def _cells(chosen: Grid, rows: Sequence[Sequence[_Number]], compare: bool) -> list[list[Cell]]:
    columns = [_column(numbers) for numbers in zip(*rows, strict=True)]
    odd = _odd_rows(rows)
    lines: list[list[Cell]] = []
    for place, (row, numbers) in enumerate(zip(chosen.layout.rows, rows, strict=True)):
        lines.append([*map(Cell, _names(row, row in odd)), *(column[place] for column in columns)])
        if compare:
            lines += _comparison(row, numbers)
    return lines


def _column(numbers: Sequence[_Number]) -> list[Cell]:
    """One column's cells; best and second by the mean as printed, equal means equally good.

    None is marked where rows differ in their settings: two rankings in one column would look like one.
    """
    texts = [_rounded(number.mean) for number in numbers]
    stds = ["" if math.isnan(number.std) else f"{number.std:.2f}" for number in numbers]
    one_ranking = len({number.settings for number in numbers if number.by_seed}) < 2
    places = ranks(texts, [""] * len(texts)) if one_ranking else [0] * len(texts)
    return [Cell(*each) for each in zip(texts, stds, places, strict=True)]


def _odd_rows(rows: Sequence[Sequence[_Number]]) -> set[Row]:
    """The rows that were trained, for any column, under other settings than most rows of that column."""
    odd: set[Row] = set()
    for column in zip(*rows, strict=True):
        measured = [number for number in column if number.by_seed]
        counts = Counter(number.settings for number in measured)
        usual = min(counts, key=lambda settings: (-counts[settings], natural_order(settings)), default="")
        odd |= {number.row for number in measured if number.settings != usual}
    return odd


def _names(row: Row, odd: bool) -> tuple[str, ...]:
    first, *others = row.names
    return (f"{first} {_ODD}" if odd else first), *others


def _comparison(row: Row, numbers: Sequence[_Number]) -> list[list[Cell]]:
    """The paper's numbers and what ours are above them."""
    span = len(row.names)
    name = f"{row.names[0]} " if span == 1 else ""
    published = [math.nan if number.published is None else number.published for number in numbers]
    return [
        [Cell(f"{name}published", span=span), *(Cell(_rounded(value)) for value in published)],
        [Cell(f"{name}difference", span=span), *(Cell(_signed(number.difference)) for number in numbers)],
    ]


def _rounded(value: float) -> str:
    return GAP if math.isnan(value) else f"{value:.2f}"


def _signed(value: float) -> str:
    if math.isnan(value):
        return GAP
    text = f"{abs(value):.2f}"
    return text if float(text) == 0 else f"{'+' if value > 0 else MINUS}{text}"


# ---------------------------------------------------------------- captions (code between backticks)


def _caption(chosen: Grid, rows: Sequence[Sequence[_Number]], compare: bool) -> list[str]:
    note = embedded_note(chosen.dataset)
    on = f"`{chosen.dataset}`{f' ({note})' if note else ''}"
    sentences = [f"The paper's Table {chosen.table} on {on}: {chosen.layout.title}."]
    sizes = {block.memory for block in chosen.layout.blocks}
    if len(sizes) == 1:
        sentences.append(f"Memory: {sizes.pop()} images.")
    if any("*" in name for row in chosen.layout.rows for name in row.names):
        sentences.append("*: a method without a memory of its own, applied to incoming and memory images alike.")
    measured = [number for row in rows for number in row if number.by_seed]
    if len(measured) < sum(map(len, rows)):
        sentences.append(f"`{GAP}`: no finished run.")
    if measured:
        sentences += _facts(measured)
    if any(column == "imiou" for block in chosen.layout.blocks for column, _ in block.columns):
        sentences.append("imIoU: the mean of the mIoU after steps 1..T, the base step left out.")
    if compare:
        sentences.append("Rows `published`: the paper's numbers; rows `difference`: ours minus the paper's.")
    return sentences


def _facts(measured: Sequence[_Number]) -> list[str]:
    """Over which seeds the measured numbers are means, by which conventions, and how the best are marked."""
    common = common_seeds([number.seeds for number in measured])
    kind = "Mean and standard deviation over seeds" if any(len(n.by_seed) > 1 for n in measured) else "One seed"
    others = _other_seeds(measured, common)
    but = f", but {'; '.join(others)}" if others else ""
    conventions = measured[0].conventions
    told = "; ".join(f"{key.replace('_', ' ')} `{convention_text(conventions[key])}`" for key in sorted(conventions))
    runs = _runs_of(measured)
    by_block = {
        block: _runs_of([number for number in measured if number.block.split == block.split])
        for block in _blocks(measured)
    }
    apart = [differing_settings(own, _BESIDE) for own in by_block.values()]
    unless = f" where all rows share their settings; {_ODD}: others than most" if any(apart) else ""
    return [
        f"{kind}: {count_text(common)}{but}.",
        f"Conventions: {told}.",
        *_of_blocks({block: settings_note(own, _BESIDE) for block, own in by_block.items()}),
        *_class_notes(by_block),
        f"Best in bold, second underlined{unless}.",
        *origin_notes(runs),
    ]


def _blocks(numbers: Sequence[_Number]) -> list[Block]:
    return list(dict.fromkeys(number.block for number in numbers))


def _runs_of(numbers: Iterable[_Number]) -> list[Run]:
    """The runs behind numbers, each once."""
    return list({run.path: run for number in numbers for run in number.runs}.values())


def _class_notes(by_block: Mapping[Block, Sequence[Run]]) -> list[str]:
    """Over how many classes the means are: once for all blocks that have every class."""
    whole = [block for block, runs in by_block.items() if every_class_counts(runs)]
    others = {block: classes_note(runs) for block, runs in by_block.items() if block not in whole}
    if not whole:
        return _of_blocks(others)
    spec = by_block[whole[0]][0].spec
    counted = background_counts(spec["conventions"])
    size = len(spec["class_names"]) - (not counted)
    among = "with" if counted else "without"
    rest = " but where told otherwise" if others else ""
    return [f"`all` is the mean of all {size} classes {among} the background{rest}.", *_of_blocks(others)]


def _of_blocks(notes: Mapping[Block, str]) -> list[str]:
    """Each note after the blocks of columns that it is about."""
    about: dict[str, list[str]] = {}
    for block, note in notes.items():
        if note:
            about.setdefault(note, []).append(" ".join(block.headings))
    return [f"{', '.join(headings)}: {note}" if any(headings) else note for note, headings in about.items()]


def _other_seeds(measured: Sequence[_Number], common: str) -> list[str]:
    """What to say of the cells with other seeds: of a whole block of columns at once, else row by row."""
    told: list[str] = []
    for block in _blocks(measured):
        own = {number.row: number.seeds for number in measured if number.block == block}
        usual = common_seeds(own.values())
        if usual != common:
            told.append(_with_seeds("", block, usual))
        rows = {row: seeds for row, seeds in own.items() if seeds != usual}
        told += [_with_seeds(_row_name(row), block, seeds) for row, seeds in rows.items()]
    return told


def _with_seeds(row: str, block: Block, seeds: str) -> str:
    return " ".join(filter(None, [row, *block.headings, f"({count_text(seeds)})"]))


def _row_name(row: Row) -> str:
    return row.names[0] if len(row.names) == 1 else f"`{row.strategy}`"
