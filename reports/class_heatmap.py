"""Every class's IoU over the steps: a heat map for each row of the tables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from reports.files import RecordError
from reports.lettering import labels_of, line_height, numbered_note, text_width, wrapped
from reports.metrics import class_iou
from reports.panels import by_scenario, gap_figure, rows_of, seeds_note
from reports.records import Run
from reports.steps import mean_classes_of
from reports.style import FORMATS, NOT_LEARNED, display_name, figure_title, require_formats, wrapped_name
from reports.tables import frame

_PAGE_WIDTH, _LEAST_WIDTH = 8.0, 4.2
"""Inches: what a page holds, and what a title and the keys need."""
_SMALLEST_CELL, _LARGEST_CELL, _NARROWEST = 0.07, 0.3, 0.55
"""Inches: a cell's width, and a heat map's that has a method's name above it."""
_ABSENT, _NOT_MEASURED = "#DDDDDD", "#FFFFFF"
_COLOURS = "viridis"


@dataclass(frozen=True)
class _Classes:
    """IoU in per cent over classes x steps, NaN for one that is absent, not yet learned or not measured."""

    iou: npt.NDArray[np.float64]
    measured: npt.NDArray[np.bool_]
    """Of each step."""


def write_class_heatmap(
    runs: Sequence[Run],
    out: Path,
    formats: Sequence[str] = FORMATS,
    scenarios: Sequence[str] | None = None,
) -> list[Path]:
    """Write each scenario's `<scenario>-classes.*`, every class's IoU after every step, and return the files.

    A panel per row of the tables: rows are the classes in learning order, background first, a line where a step's
    classes begin; columns are the steps. A cell is the mean over the seeds in which the class occurs; hatched while not
    yet learned, grey where neither truth nor prediction has a pixel, white where the step was not measured. Raises
    ValueError for an unknown format, RecordError if the runs of a scenario differ in their conventions or classes, or
    if a confusion matrix is damaged.
    """
    require_formats(formats)
    return by_scenario(runs, out, formats, scenarios, "-classes", _heatmap)


def _heatmap(scenario: str, runs: Sequence[Run]) -> Figure:
    if not runs:
        return gap_figure(scenario)
    names, sizes = _one_layout(scenario, runs)
    labels = labels_of(names, "class")
    by_path = {str(run.path): run for run in runs}
    rows = rows_of(frame(runs))
    layout = _heat_layout(labels, len(sizes), [display_name(*key) for key in rows])
    figure = Figure(figsize=(layout.width, 1.0), layout="constrained")
    places = figure.subplots(layout.lines, layout.columns, squeeze=False)
    for axes, row, title in zip(places.flat, rows.values(), layout.titles, strict=False):
        classes = _mean_iou_of_classes([by_path[path] for path in dict.fromkeys(row["run"])], sizes)
        _draw_classes(axes, classes, sizes, layout.cell)
        axes.set_title(title, fontsize=7, parse_math=False)
    for axes in places.flat[len(rows) :]:
        axes.set_axis_off()
    for axes in places[:, 0]:
        axes.set_yticks(range(len(names)), labels, fontsize=layout.label_size, parse_math=False)
    _add_keys(figure, list(places.flat), layout.height)
    notes = [f"columns: steps; mean over seeds, {seeds_note(rows)}", numbered_note(names)]
    title = wrapped(figure_title(scenario, *notes, runs=runs), layout.width - 0.2, 9)
    figure.suptitle(title, fontsize=9, parse_math=False)
    figure.set_figheight(layout.height + line_height(9) * (title.count("\n") + 2) + 0.6)
    return figure


@dataclass(frozen=True)
class _HeatLayout:
    """Heat maps in lines, in inches: the whole width, the height of all lines, a cell's width; and their titles."""

    width: float
    height: float
    lines: int
    columns: int
    cell: float
    label_size: float
    titles: list[str]


def _heat_layout(labels: Sequence[str], steps: int, names: Sequence[str]) -> _HeatLayout:
    """The fewest lines of heat maps that fit a page's width, or more where a map is taller than a page is wide."""
    row, label_size = (0.085, 5) if len(labels) > 40 else (0.15, 7)
    tall = row * len(labels)
    beside = max(text_width(label, label_size) for label in labels) + 1.1
    available = max(_PAGE_WIDTH, 0.8 * tall) - beside
    lines = math.ceil(len(names) * max(_SMALLEST_CELL * steps, _NARROWEST) / available)
    columns = math.ceil(len(names) / lines)
    panel = min(available / columns, max(_LARGEST_CELL * steps, _NARROWEST, (_LEAST_WIDTH - beside) / columns))
    titles = [wrapped_name(name, panel - 0.05, 7) for name in names]
    above = line_height(7) * (max(title.count("\n") for title in titles) + 1)
    return _HeatLayout(
        width=beside + panel * columns,
        height=lines * (tall + above + 0.3),
        lines=lines,
        columns=columns,
        cell=(panel - 0.1) / steps,
        label_size=label_size,
        titles=titles,
    )


def _one_layout(scenario: str, runs: Sequence[Run]) -> tuple[list[str], list[int]]:
    """The classes' names in learning order and how many are known after each step, which all runs must share."""
    layouts = {
        (tuple(map(str, run.spec["class_names"])), tuple(len(step["classes"]) for step in run.spec["steps"]))
        for run in runs
    }
    if len(layouts) > 1:
        raise RecordError(
            f"{scenario}: its runs differ in their classes or in their order, one figure cannot name them"
        )
    names, steps = layouts.pop()
    return list(names), [int(size) for size in 1 + np.cumsum(steps)]


def _mean_iou_of_classes(runs: Sequence[Run], sizes: Sequence[int]) -> _Classes:
    iou = np.full((len(runs), sizes[-1], len(sizes)), np.nan)
    measured = np.zeros(len(sizes), dtype=bool)
    for run, own in zip(runs, iou, strict=True):
        for row, confusion in zip(run.steps, run.confusions, strict=True):
            own[: len(confusion), int(row["step"])] = 100 * class_iou(confusion, mean_classes_of(run.spec))
            measured[int(row["step"])] = True
    counts = (~np.isnan(iou)).sum(axis=0)
    means = np.divide(np.nansum(iou, axis=0), counts, out=np.full(counts.shape, np.nan), where=counts > 0)
    return _Classes(means, measured)


def _draw_classes(axes: Axes, classes: _Classes, sizes: Sequence[int], cell: float) -> None:
    learned = np.arange(len(classes.iou))[:, None] < np.array(sizes)
    pixels = matplotlib.colormaps[_COLOURS](np.nan_to_num(classes.iou) / 100)
    pixels[np.isnan(classes.iou)] = to_rgba(_ABSENT)
    pixels[:, ~classes.measured] = to_rgba(_NOT_MEASURED)
    pixels[~learned] = 0  # transparent: the hatching shows through
    axes.patch.set(facecolor="white", hatch="////", edgecolor=NOT_LEARNED)
    axes.imshow(pixels, aspect="auto", interpolation="nearest")
    for size in sizes[:-1]:
        axes.axhline(size - 0.5, color="white", linewidth=1.6)
        axes.axhline(size - 0.5, color="black", linewidth=0.5)
    axes.set_xticks(range(0, len(sizes), math.ceil(text_width(f"{len(sizes)} ", 7) / cell)))
    axes.set_yticks([])
    axes.tick_params(axis="both", length=2, labelsize=7)
    axes.spines[:].set_visible(False)


def _add_keys(figure: Figure, places: Sequence[Axes], height: float) -> None:
    scale = ScalarMappable(Normalize(0, 100), matplotlib.colormaps[_COLOURS])
    bar = figure.colorbar(scale, ax=places, shrink=min(1.0, 3.0 / height), aspect=20, pad=0.01)
    bar.ax.tick_params(labelsize=7)
    bar.set_label("IoU (%)", fontsize=8)
    handles = [
        Patch(facecolor="white", edgecolor=NOT_LEARNED, hatch="////", label="not yet learned"),
        Patch(facecolor=_ABSENT, label="no pixel"),
        Patch(facecolor=_NOT_MEASURED, edgecolor="#DDDDDD", label="not measured"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=8)
