"""Accuracy against cost: a point for each row of the tables, its label where it covers nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from matplotlib.transforms import Bbox

from reports.panels import AXIS_WIDTH, by_scenario, differing_note, gap_figure, panel_title, rows_of, seeds_note
from reports.records import Run
from reports.rows import NO_RUN, method_of
from reports.style import FORMATS, display_name, figure_title, look_of, require_formats, wrapped_name
from reports.tables import frames_by_memory, summary


def write_cost_accuracy(
    runs: Sequence[Run],
    out: Path,
    formats: Sequence[str] = FORMATS,
    scenarios: Sequence[str] | None = None,
) -> list[Path]:
    """Write each scenario's `<scenario>-cost.*`, final mIoU against seconds per incoming batch, and return the files.

    A point per row of the tables: the mIoU after the last step, its bar one standard deviation over seeds (n > 1); the
    seconds per incoming batch of steps 1..T, the mean over seeds, on a logarithmic axis if they span more than a
    decade. Rows without an incoming batch, as joint's, are named below the figure. Raises ValueError for an unknown
    format, RecordError if the runs of a scenario differ in their conventions.
    """
    require_formats(formats)
    return by_scenario(runs, out, formats, scenarios, "-cost", _cost_figure)


def _cost_figure(scenario: str, runs: Sequence[Run]) -> Figure:
    """A panel for each size of the memory."""
    by_memory = frames_by_memory(runs)
    panels = {size: rows for size, steps in by_memory.items() if (rows := summary(steps))["seconds_per_batch"].any()}
    if not panels:
        return gap_figure(scenario, "no run has a cost per incoming batch" if runs else NO_RUN)
    figure = Figure(figsize=(6.4, 4.4 if len(panels) == 1 else 3.3 * len(panels)), layout="constrained")
    FigureCanvasAgg(figure)  # it measures text
    places = dict(zip(panels, figure.subplots(len(panels), squeeze=False)[:, 0], strict=True))
    for size, axes in places.items():
        title = figure_title(scenario, f"memory {size}" if len(by_memory) > 1 else "", runs=runs)
        drawn = rows_of(by_memory[size])
        _draw_costs(axes, panels[size], title, [seeds_note(drawn), differing_note(drawn)])
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # nothing moves any more
    for size, axes in places.items():
        _label_points(axes, panels[size][panels[size]["seconds_per_batch"] > 0])
    return figure


def _draw_costs(axes: Axes, rows: pd.DataFrame, title: str, notes: Sequence[str]) -> None:
    costly = rows[rows["seconds_per_batch"] > 0]
    for row in costly.to_dict("records"):
        _draw_point(axes, row)
    seconds = costly["seconds_per_batch"]
    logarithmic = seconds.max() > 10 * seconds.min()
    if logarithmic:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_locator(NullLocator())
    axes.margins(0.12)
    axes.grid(linewidth=0.5, alpha=0.5)
    axes.set_xlabel(f"seconds per incoming batch{' (logarithmic)' if logarithmic else ''}")
    axes.set_ylabel("mIoU after the last step (%)")
    bars = "bar: one standard deviation" if (costly["n"] > 1).any() else ""
    seeds, *others = notes
    lines = [title, ", ".join(filter(None, [bars, seeds])), *others, _left_out(rows, costly)]
    panel_title(axes, lines, 6.4 - AXIS_WIDTH)


def _draw_point(axes: Axes, row: dict[Any, Any]) -> None:
    look = look_of(method_of(row["strategy"]))
    axes.errorbar(
        *(row["seconds_per_batch"], row["miou_mean"]),
        yerr=None if math.isnan(row["miou_std"]) else row["miou_std"],
        color=look.colour,
        marker=look.marker,
        markersize=13 if look.marker == "*" else 8,
        markeredgecolor="white",
        markeredgewidth=0.5,
        capsize=3,
        linestyle="none",
    )


def _left_out(rows: pd.DataFrame, drawn: pd.DataFrame) -> str:
    names = [display_name(row["strategy"], row["variant"]) for _, row in rows.drop(drawn.index).iterrows()]
    return f"without a cost per incoming batch: {', '.join(names)}" if names else ""


_DIRECTIONS = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1))
_PLACES = [(gap, x, y) for gap in (7, 16, 28, 42, 60, 90, 120, 160, 200, 250) for x, y in _DIRECTIONS]
"""Where a label may stand: its distance from its point, in points of type, and the direction."""


def _label_points(axes: Axes, rows: pd.DataFrame) -> None:
    """Label every point beside it, so that no label covers another one, a point or its bar."""
    points = rows.to_dict("records")
    taken = [_box_of_point(axes, row) for row in points]
    for row in points:
        place = (row["seconds_per_batch"], row["miou_mean"])
        name = wrapped_name(display_name(row["strategy"], row["variant"]), 1.6, 8)
        text = axes.annotate(
            *(name, place),
            xytext=(0, 0),
            textcoords="offset points",
            fontsize=8,
            ha="center",
            va="center",
            arrowprops={"arrowstyle": "-", "linewidth": 0.5, "color": "#777777", "shrinkA": 1, "shrinkB": 4},
            parse_math=False,
            zorder=6,
        )
        text.set_in_layout(False)
        size = Text.get_window_extent(text)
        box = _free_place(axes, axes.transData.transform(place), (size.width, size.height), taken)
        taken.append(box)
        middle = ((box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2)
        text.xyann = tuple((middle - axes.transData.transform(place)) * 72 / axes.figure.dpi)


def _box_of_point(axes: Axes, row: dict[Any, Any]) -> Bbox:
    """The pixels that a point and its bar cover."""
    std = 0.0 if math.isnan(row["miou_std"]) else row["miou_std"]
    ends = [(row["seconds_per_batch"], row["miou_mean"] + sign * std) for sign in (-1, 1)]
    return Bbox(axes.transData.transform(ends)).padded(5)


def _free_place(axes: Axes, point: npt.NDArray[Any], size: tuple[float, float], taken: Sequence[Bbox]) -> Bbox:
    """The first box of `size` near the point that is within the axes and free, or the last one; all in pixels."""
    inside = axes.get_window_extent()
    pixels = axes.figure.dpi / 72
    for gap, x, y in _PLACES:
        middle = point + np.multiply((x, y), np.add(gap * pixels, np.divide(size, 2)))
        box = Bbox([middle - np.divide(size, 2), middle + np.divide(size, 2)])
        within = inside.x0 <= box.x0 and box.x1 <= inside.x1 and inside.y0 <= box.y0 and box.y1 <= inside.y1
        if within and not any(box.overlaps(other) for other in taken):
            break
    return box
