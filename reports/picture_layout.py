"""Where the pictures of an image stand: its steps side by side or its methods, whatever shows them larger on a page.

Everything is in inches, from the upper left corner.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

from reports.lettering import line_height, longest_piece, text_width, unbroken, wrapped
from reports.style import wrapped_name

PAGE = (7.5, 10.0)
"""Width and height."""
GAP = 0.05
SIZE = 7
"""Of all words beside pictures, in points."""
LINE = line_height(SIZE)
_BETWEEN = 0.2
"""Between two images' blocks."""
_CELLS = [cell / 100 for cell in range(120, 45, -5)]
"""A picture's widths, the largest first."""
_WIDEST_NAMES, _WIDEST_WORD = 1.6, 0.8
"""Beside pictures; and of a word above one that is not broken."""
_WORTH = {"steps across": 1.0, "methods across": 0.85, "methods in lines": 0.65}
"""What a picture's width counts: the paper's Figure 4 has the steps side by side, and a broken line is hard to read."""

_AS_GOOD = 0.9
"""Of layouts whose worth is within this of the best one the shortest is taken."""

Place = tuple[float, float]


@dataclass(frozen=True)
class Label:
    """A text, the place that its anchor has, and how it lies about it (matplotlib's `ha`, `va`, `rotation`)."""

    text: str
    place: Place
    across: str = "center"
    down: str = "bottom"
    rotation: int = 0


@dataclass(frozen=True)
class Placed:
    """A block: its size, the corner of the image, of each picture by (series, step), and what is written."""

    width: float
    height: float
    image: Place
    name: Label
    """Of the image: its place alone."""
    room: float
    """What its name may be wide."""
    pictures: dict[tuple[int, int], Place]
    labels: list[Label]


@dataclass(frozen=True)
class Layout:
    """A picture's width, each block's corner and content in the figure's order, and the size of all of them."""

    cell: float
    blocks: list[tuple[Place, Placed]]
    width: float
    height: float


Arrange = Callable[[float, float], Placed | None]
"""A block for a picture's width and height; None where its words have no room."""


def page_layout(
    series: Sequence[str], steps: int, aspects: Sequence[float], around: Callable[[float], float]
) -> Layout | None:
    """Return how images of these `aspects` (height over width) fit a page best; None if they do not.

    Each has a picture for every series, the truth and the methods by their names, and step. `around` is the height
    that the figure's title and legend take at a width.
    """
    found = [
        (_WORTH[kind] * layout.cell, layout)
        for kind, arrange in _arrangements(series, steps)
        for across in range(1, len(aspects) + 1)
        if (layout := _largest(arrange, across, aspects, around))
    ]
    best = max((worth for worth, _ in found), default=0.0)
    good = (layout for worth, layout in found if worth >= _AS_GOOD * best)
    return min(good, key=lambda layout: layout.height, default=None)


def shortest_layout(series: Sequence[str], steps: int, aspects: Sequence[float]) -> Layout:
    """Return the layout of the least height that is no wider than a page, for images that do not fit one."""
    every = (
        _in_lines(arrange, across, aspects, cell)
        for _, arrange in _arrangements(series, steps)
        for across in range(1, len(aspects) + 1)
        for cell in reversed(_CELLS)
    )
    return min((layout for layout in every if layout and layout.width <= PAGE[0]), key=lambda layout: layout.height)


def _largest(
    arrange: Arrange, across: int, aspects: Sequence[float], around: Callable[[float], float]
) -> Layout | None:
    """The layout with the largest pictures that fits a page, if any does."""

    for cell in _CELLS:
        layout = _in_lines(arrange, across, aspects, cell)
        if layout and layout.width <= PAGE[0] and layout.height + around(layout.width) <= PAGE[1]:
            return layout
    return None


def _in_lines(arrange: Arrange, across: int, aspects: Sequence[float], cell: float) -> Layout | None:
    """The blocks of all images, `across` of them side by side."""
    placed = [block for aspect in aspects if (block := arrange(cell, cell * aspect))]
    if len(placed) < len(aspects):
        return None
    blocks: list[tuple[Place, Placed]] = []
    top = 0.0
    for first in range(0, len(placed), across):
        line = placed[first : first + across]
        blocks += [((GAP + number * (block.width + _BETWEEN), top), block) for number, block in enumerate(line)]
        top += max(block.height for block in line) + _BETWEEN
    return Layout(cell, blocks, GAP + max(left + block.width for (left, _), block in blocks), top - _BETWEEN)


# ---------------------------------------------------------------- one image


def _arrangements(series: Sequence[str], steps: int) -> list[tuple[str, Arrange]]:
    """Each with its kind, a key of `_WORTH`."""
    found = [("steps across", _steps_across(series, steps))]
    for lines in range(1, len(series) + 1):
        columns = math.ceil(len(series) / lines)
        if math.ceil(len(series) / columns) == lines:
            kind = "methods across" if lines == 1 else "methods in lines"
            found.append((kind, _methods_across(series, steps, columns)))
    return found


def _steps_across(series: Sequence[str], steps: int) -> Arrange:
    """As in the paper's Figure 4: a row for the truth and each method, its name below the image at the left."""

    @cache
    def arrange(width: float, height: float) -> Placed | None:
        head = width
        while (names := [wrapped_name(name, head, SIZE) for name in series[1:]]) and _lines(names) * LINE > height:
            head += 0.1
            if head > _WIDEST_NAMES:
                return None
        above = _step_labels(steps, width)
        first = _lines(above) * LINE
        lefts = [head + GAP + step * (width + GAP) for step in range(steps)]
        tops = [first + row * (height + GAP) for row in range(len(series))]
        labels = [Label(text, (left + width / 2, first - 0.02)) for text, left in zip(above, lefts, strict=True)]
        middles = [top + height / 2 for top in tops[1:]]
        labels += [Label(name, (head, y), "right", "center") for name, y in zip(names, middles, strict=True)]
        pictures = {(row, step): (left, top) for row, top in enumerate(tops) for step, left in enumerate(lefts)}
        name = Label("", (head, first - 0.02), "right")
        return Placed(lefts[-1] + width, tops[-1] + height, (head - width, first), name, head, pictures, labels)

    return arrange


def _step_labels(steps: int, width: float) -> list[str]:
    """What stands above the pictures of each step; the first row is the truth."""
    later = [f"step {step}" for step in range(1, steps)]
    if any(text_width(text, SIZE) > width for text in later):
        later = [str(step) for step in range(1, steps)]
    return [wrapped(f"truth, {unbroken('step 0')}", width, SIZE), *later]


def _methods_across(series: Sequence[str], steps: int, columns: int) -> Arrange:
    """A column for the truth and each method, so many in a line."""

    @cache
    def arrange(width: float, height: float) -> Placed | None:
        if width < min(max(longest_piece(name, SIZE) for name in series), _WIDEST_WORD):
            return None
        names = [wrapped_name(name, width, SIZE) for name in series]
        first = width + GAP + LINE + 0.02
        pictures: dict[tuple[int, int], Place] = {}
        labels: list[Label] = []
        top = 0.0
        for start in range(0, len(series), columns):
            own = range(start, min(start + columns, len(series)))
            top += _lines([names[number] for number in own]) * LINE
            for number in own:
                left = first + (number - start) * (width + GAP)
                labels.append(Label(names[number], (left + width / 2, top - 0.02)))
                pictures |= {(number, step): (left, top + step * (height + GAP)) for step in range(steps)}
            for step in range(steps):
                middle = top + step * (height + GAP) + height / 2
                text = f"step {step}" if text_width(f"step {step}", SIZE) <= height else str(step)
                labels.append(Label(text, (first - 0.02, middle), "right", "center", rotation=90))
            top += steps * (height + GAP) + GAP
        above = pictures[0, 0][1]
        name = Label("", (0.0, above - 0.02), "left")
        right = first + columns * (width + GAP) - GAP
        return Placed(right, top - 2 * GAP, (0.0, above), name, first - GAP, pictures, labels)

    return arrange


def _lines(names: Sequence[str]) -> int:
    return max((name.count("\n") + 1 for name in names), default=1)
