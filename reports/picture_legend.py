"""The classes that occur in pictures, each with its colour, in columns below them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from reports.lettering import text_width, wrapped
from reports.palettes import VOID, Palette
from reports.picture_layout import GAP, LINE, SIZE
from reports.predictions import Labels


@dataclass(frozen=True)
class Legend:
    """The classes that occur, by label, in columns over so many inches."""

    names: dict[int, str]

    @classmethod
    def of(cls, maps: Iterable[Labels], class_names: Sequence[str]) -> Legend:
        """Return the legend of label maps, `class_names` by label."""
        labels = sorted({int(label) for each in maps for label in np.unique(each)})
        return cls({label: "void" if label == VOID else class_names[label] for label in labels})

    def height(self, width: float) -> float:
        """Return how high it is at a width, in inches."""
        return sum(self._heights(width))

    def draw(self, axes: Axes, colours: Palette, top: float, width: float) -> None:
        """Draw it below `top`, in inches from the upper end of the axes."""
        columns, tops = self._columns(width), np.cumsum([top, *self._heights(width)])
        for place, (label, name) in enumerate(zip(self.names, self._wrapped(width), strict=True)):
            row, column = divmod(place, columns)
            left, middle = GAP + column * (width - 2 * GAP) / columns, tops[row] + LINE / 2
            box = Rectangle(
                *((left, middle - 0.055), 0.18, 0.11), facecolor=colours[label] / 255, edgecolor="black", linewidth=0.4
            )
            axes.add_patch(box)
            axes.text(left + 0.23, tops[row], name, va="top", fontsize=SIZE, linespacing=1.1, parse_math=False)

    def _wrapped(self, width: float) -> list[str]:
        return [wrapped(name, width - 2 * GAP - 0.3, SIZE) for name in self.names.values()]

    def _columns(self, width: float) -> int:
        longest = max(text_width(line, SIZE) for name in self._wrapped(width) for line in name.split("\n"))
        return max(1, min(len(self.names), int((width - 2 * GAP) / (longest + 0.35))))

    def _heights(self, width: float) -> list[float]:
        """Of the rows."""
        names, columns = self._wrapped(width), self._columns(width)
        rows = [names[first : first + columns] for first in range(0, len(names), columns)]
        return [(max(name.count("\n") for name in row) + 1) * LINE + 0.02 for row in rows]
