"""Panels of bars, for what was measured after one step alone: points upon each other are no line."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports.lettering import line_height, text_width, wrapped
from reports.panels import Rows, differing_note, panel_title, seeds_note, several_seeds
from reports.rows import method_of, row_order
from reports.style import RowKey, display_name, look_of, wrapped_name
from reports.tables import spread_of

_NAMES_WIDTH = 2.2
"""Inches that the names beside bars may take."""
_ROW = 0.24
"""Inches from bar to bar, where no name takes more."""


def one_step(panels: Iterable[Rows], column: str) -> bool:
    """Whether a column has numbers after one step alone, the same in all rows: points upon each other, no line."""
    return len({classes for rows in panels for row in rows.values() for classes in _measured(row, column)}) == 1


def _measured(row: pd.DataFrame, column: str) -> set[int]:
    return {int(classes) for classes in row.dropna(subset=[column])["classes"]}


@dataclass(frozen=True)
class BarPanel:
    """What a panel of bars shows: a column of its rows, with the column's name in print."""

    title: str
    rows: Rows
    column: str
    label: str


def bar_panels(panels: Sequence[BarPanel], columns: int, title: str = "") -> Figure:
    """Draw panels of rows that were measured after one step, a named bar for each row."""
    keys = sorted({key for panel in panels for key in panel.rows}, key=lambda key: row_order(*key))
    names = [wrapped_name(display_name(*key), _NAMES_WIDTH, 8) for key in keys]
    beside = max(text_width(line, 8) for name in names for line in name.split("\n"))
    width, count = max(2.1, (6.0 - beside) / columns), math.ceil(len(panels) / columns)
    heights = np.array([max(_ROW, line_height(8) * (name.count("\n") + 1.5)) for name in names])
    ends = heights.cumsum()
    middles = dict(zip(keys, ends - heights / 2, strict=True))
    figure = Figure(figsize=(beside + width * columns + 0.3, (1.6 + ends[-1]) * count), layout="constrained")
    places = figure.subplots(count, columns, squeeze=False, sharey=True)
    for axes, panel in zip(places.flat, panels, strict=False):
        _draw_bars(axes, panel.rows, panel.column, middles)
        axes.set_xlabel(panel.label)
        panel_title(axes, [panel.title, seeds_note(panel.rows), differing_note(panel.rows)], width - 0.2)
    for axes in places.flat[len(panels) :]:
        axes.set_axis_off()
    places[0, 0].set_yticks(list(middles.values()), names, fontsize=8, parse_math=False)
    places[0, 0].set_ylim(ends[-1] + _ROW / 2, -_ROW / 2)
    above = wrapped("\n".join(filter(None, [title, _bars_note(panels)])), figure.get_figwidth() - 0.2, 10)
    figure.suptitle(above, fontsize=10, parse_math=False)
    return figure


def _bars_note(panels: Sequence[BarPanel]) -> str:
    rows = [(row, panel.column) for panel in panels for row in panel.rows.values()]
    (classes,) = {classes for row, column in rows for classes in _measured(row, column)}
    several = several_seeds(panel.rows for panel in panels)
    spread = "; mean over seeds, whisker: one standard deviation" if several else ""
    return f"{classes} classes learned{spread}"


def _draw_bars(axes: Axes, rows: Rows, column: str, middles: Mapping[RowKey, float]) -> None:
    for key, row in rows.items():
        values = row[column].dropna().to_numpy(float)
        if len(values):
            spread = spread_of(values)
            whisker = None if math.isnan(spread) else spread
            colour = look_of(method_of(key[0])).colour
            place, length = middles[key], values.mean()
            axes.barh(place, length, xerr=whisker, height=0.7 * _ROW, color=colour, capsize=2, zorder=2)
    axes.axvline(0, color="black", linewidth=0.8, zorder=3)
    axes.grid(axis="x", linewidth=0.5, alpha=0.5, zorder=1)
    axes.tick_params(axis="y", length=0)
