"""Figures beyond the paper's: forgetting, every class's IoU over the steps, accuracy against cost."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from matplotlib.transforms import Bbox

from reports.atomic import write_atomic
from reports.curves import (
    AXIS_WIDTH,
    BarPanel,
    bar_panels,
    by_scenario,
    differing_note,
    draw_rows,
    one_step,
    panel_title,
    rows_of,
    seeds_note,
)
from reports.files import RecordError
from reports.lettering import labels_of, line_height, numbered_note, text_width, wrapped
from reports.metrics import class_iou
from reports.records import Run, scenarios_of
from reports.rows import NO_RUN, file_stem, method_of, row_order, seeds_text
from reports.style import (
    FORMATS,
    NOT_LEARNED,
    RowKey,
    add_legend,
    display_name,
    draw_gap,
    figure_title,
    line_styles,
    look_of,
    require_formats,
    wrapped_name,
)
from reports.tables import frame, frames_by_memory, headline, spread_of, summary

_MEASURES = {"forgetting": "forgetting (points)", "backward_transfer": "backward transfer (points)"}


def _gap(scenario: str, text: str = NO_RUN) -> Figure:
    figure = Figure(figsize=(6.4, 3.2), layout="constrained")
    axes = figure.add_subplot()
    draw_gap(axes, text)
    axes.set_title(wrapped(figure_title(scenario), 6.2, 10), parse_math=False)
    return figure


# ---------------------------------------------------------------- forgetting


def forgetting(steps: pd.DataFrame) -> pd.DataFrame:
    """Return every run's forgetting and backward transfer after each of its steps but the first.

    `steps` is what `reports.tables.frame` returns; its columns `scenario`, `strategy`, `variant`, `settings`, `seed`,
    `step` and `classes` are kept. The tasks are the groups of classes that the steps add, the background (where the
    conventions count it) among the base classes; a(l, j) is the mIoU of group j after step l, in per cent. After step k

    - `forgetting` is the mean over the groups j < k of max{a(l, j): j <= l < k} - a(k, j), in points: how far a group
      is below its best so far, negative where it is above it (Chaudhry et al., Riemannian Walk for Incremental
      Learning, ECCV 2018, Eq. 3);
    - `backward_transfer` is the mean over the groups j < k of a(k, j) - a(j, j), in points: what later steps did to a
      group since it was learned, negative where it was forgotten (Lopez-Paz & Ranzato, Gradient Episodic Memory for
      Continual Learning, NIPS 2017, Eq. 3, with T = k).

    A group that was not measured when it was learned, or has no pixel after step k, is left out; a step without a
    group, as joint's, is NaN. With the convention that a step is tested on the images of its known classes, a group's
    a(l, j) are over ever more images.
    """
    kept = ["scenario", "strategy", "variant", "settings", "seed", "step", "classes"]
    groups = [name for name in steps.columns if name.startswith("step_")]
    records = [
        {**dict(zip(kept, row, strict=True)), **measures}
        for _, run in headline(steps).groupby("run", sort=False)
        for row, measures in zip(run[kept].to_numpy(), _measures(run, ["old", *groups]), strict=True)
        if row[kept.index("step")] > 0
    ]
    return pd.DataFrame(records, columns=[*kept, *_MEASURES])


def _measures(run: pd.DataFrame, groups: Sequence[str]) -> Iterable[dict[str, float]]:
    """Both measures after each step of one run, in order."""
    at = {int(step): run[run["step"] == step].iloc[0] for step in run["step"]}
    for k, now in at.items():
        groups_now = [(j, name) for j, name in enumerate(groups[:k]) if j in at and not math.isnan(now[name])]
        learned = [(j, name) for j, name in groups_now if not math.isnan(at[j][name])]
        best = [np.nanmax([at[earlier][name] for earlier in at if j <= earlier < k]) for j, name in learned]
        first = [at[j][name] for j, name in learned]
        current = [now[name] for _, name in learned]
        yield {
            "forgetting": _mean_of_differences(best, current),
            "backward_transfer": _mean_of_differences(current, first),
        }


def _mean_of_differences(left: Sequence[float], right: Sequence[float]) -> float:
    return float(np.mean(np.subtract(left, right))) if left else math.nan


def write_forgetting(
    runs: Sequence[Run],
    out: Path,
    formats: Sequence[str] = FORMATS,
    scenarios: Sequence[str] | None = None,
) -> list[Path]:
    """Write each scenario's `<scenario>-forgetting.*`, a figure and a CSV, into the folder `out`; return the files.

    The measures are those of `forgetting`, mean and standard deviation over seeds (n > 1); runs whose memories differ
    in size have panels for each. The CSV has a line per row of the tables and step. Raises ValueError for an unknown
    format, RecordError if the runs of a scenario differ in their conventions.
    """
    require_formats(formats)
    written = by_scenario(runs, out, formats, scenarios, "-forgetting", _forgetting_figure)
    measured = forgetting(frame(runs))
    for scenario in scenarios_of(runs) if scenarios is None else scenarios:
        path = out / f"{file_stem(scenario)}-forgetting.csv"
        rows = _over_seeds(measured[measured["scenario"] == scenario])
        write_atomic(path, rows.to_csv(index=False, float_format="%.4f", lineterminator="\n"))
        written.append(path)
    return written


def _over_seeds(measured: pd.DataFrame) -> pd.DataFrame:
    records = []
    for (strategy, variant), row in rows_of(measured).items():
        for (step, classes), group in row.groupby(["step", "classes"]):
            record = {"scenario": group["scenario"].iloc[0], "strategy": strategy, "variant": variant}
            record |= {"step": step, "classes": classes, "n": len(group), "seeds": seeds_text(group["seed"])}
            for name in _MEASURES:
                values = group[name].to_numpy(float)
                record |= {f"{name}_mean": values.mean(), f"{name}_std": spread_of(values)}
            records.append(record)
    columns = ["scenario", "strategy", "variant", "step", "classes", "n", "seeds"]
    spread = [f"{name}_{kind}" for name in _MEASURES for kind in ("mean", "std")]
    return pd.DataFrame(records, columns=[*columns, *spread])


def _forgetting_figure(scenario: str, runs: Sequence[Run]) -> Figure:
    """A row of panels for each size of memory, a column for each measure."""
    by_memory = {size: rows_of(forgetting(steps).dropna()) for size, steps in frames_by_memory(runs).items()}
    panels = {size: rows for size, rows in by_memory.items() if rows}
    if not panels:
        return _gap(scenario, "no group was measured after two steps" if runs else NO_RUN)
    titles = {size: f"memory {size}" if len(panels) > 1 else "" for size in panels}
    if one_step(panels.values(), "forgetting"):
        bars = [
            BarPanel(titles[size], rows, column, label)
            for size, rows in panels.items()
            for column, label in _MEASURES.items()
        ]
        return bar_panels(bars, len(_MEASURES), figure_title(scenario, runs=runs))
    styles = line_styles(sorted({key for rows in panels.values() for key in rows}, key=lambda key: row_order(*key)))
    figure = Figure(figsize=(7.2, 3.2 * len(panels)), layout="constrained")
    places = figure.subplots(len(panels), 2, squeeze=False)
    handles: dict[RowKey, object] = {}
    for (size, rows), line in zip(panels.items(), places, strict=True):
        for axes, (column, label) in zip(line, _MEASURES.items(), strict=True):
            handles |= draw_rows(axes, rows, column, styles)
            axes.axhline(0, color="black", linewidth=0.8, zorder=1)
            axes.set_xlabel("classes learned")
            axes.set_ylabel(label)
            panel_title(axes, [titles[size], seeds_note(rows), differing_note(rows)], 3.6 - AXIS_WIDTH)
    several = any(row["seed"].nunique() > 1 for rows in panels.values() for row in rows.values())
    title = "mean over seeds, band: one standard deviation" if several else ""
    add_legend(figure, {display_name(*key): handles[key] for key in styles}, title)
    figure.suptitle(wrapped(figure_title(scenario, runs=runs), 7.0, 10), fontsize=10, parse_math=False)
    return figure


# ---------------------------------------------------------------- the IoU of every class


@dataclass(frozen=True)
class _Classes:
    """IoU in per cent over classes x steps, NaN for one that is absent, not yet learned or not measured."""

    iou: npt.NDArray[np.float64]
    measured: npt.NDArray[np.bool_]
    """Of each step."""


_PAGE_WIDTH, _LEAST_WIDTH = 8.0, 4.2
"""Inches: what a page holds, and what a title and the keys need."""
_SMALLEST_CELL, _LARGEST_CELL, _NARROWEST = 0.07, 0.3, 0.55
"""Inches: a cell's width, and a heat map's that has a method's name above it."""
_ABSENT, _NOT_MEASURED = "#DDDDDD", "#FFFFFF"
_COLOURS = "viridis"


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
        return _gap(scenario)
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
            own[: len(confusion), int(row["step"])] = 100 * class_iou(confusion)
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


# ---------------------------------------------------------------- accuracy against cost


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
        return _gap(scenario, "no run has a cost per incoming batch" if runs else NO_RUN)
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
_PLACES = [(gap, x, y) for gap in (7, 16, 28, 42, 60, 90) for x, y in _DIRECTIONS]
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
