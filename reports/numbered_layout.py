"""The paper's numbered tables as it lays them out: headings, rows, and what marks them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from reports.conventions import background_counts
from reports.filled_grids import Number
from reports.grids import Block, Grid, Row
from reports.markup import MINUS, Cell, Table, ranks
from reports.rows import natural_order

GAP = "--"
ODD = "†"
"""Marks a row of other settings."""


def numbered_table(chosen: Grid, rows: Sequence[Sequence[Number]], compare: bool, caption: str) -> Table:
    """Return a table of the paper with its numbers; to `compare`, each row is above the paper's and the differences."""
    layout = chosen.layout
    stub = len(layout.stub)
    return Table(
        label=f"tab:{chosen.table}-{chosen.dataset}{'-compared' if compare else ''}",
        header=[*layout.stub, *(_header(text, rows) for block in layout.blocks for _, text in block.columns)],
        rows=_cells(chosen, rows, compare),
        gap=GAP,
        caption=caption,
        headings=_headings(layout.blocks, Cell(layout.stub_heading, span=stub)),
        wide=True,
        stub=stub,
        breaks=range(3, 3 * len(rows), 3) if compare else (),
    )


def _header(text: str, rows: Sequence[Sequence[Number]]) -> str:
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


def _cells(chosen: Grid, rows: Sequence[Sequence[Number]], compare: bool) -> list[list[Cell]]:
    columns = [_column(numbers) for numbers in zip(*rows, strict=True)]
    odd = _odd_rows(rows)
    lines: list[list[Cell]] = []
    for place, (row, numbers) in enumerate(zip(chosen.layout.rows, rows, strict=True)):
        lines.append([*map(Cell, _names(row, row in odd)), *(column[place] for column in columns)])
        if compare:
            lines += _comparison(row, numbers)
    return lines


def _column(numbers: Sequence[Number]) -> list[Cell]:
    """One column's cells; best and second by the mean as printed, equal means equally good.

    None is marked where rows differ in their settings: two rankings in one column would look like one.
    """
    texts = [_rounded(number.mean) for number in numbers]
    stds = ["" if math.isnan(number.std) else f"{number.std:.2f}" for number in numbers]
    one_ranking = len({number.settings for number in numbers if number.by_seed}) < 2
    places = ranks(texts, [""] * len(texts)) if one_ranking else [0] * len(texts)
    return [Cell(*each) for each in zip(texts, stds, places, strict=True)]


def _odd_rows(rows: Sequence[Sequence[Number]]) -> set[Row]:
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
    return (f"{first} {ODD}" if odd else first), *others


def _comparison(row: Row, numbers: Sequence[Number]) -> list[list[Cell]]:
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
