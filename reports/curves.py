"""mIoU after each step: a figure per scenario, and the four panels of the paper's Figure 3."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator

from reports.conventions import require_one_convention
from reports.grids import MEMORY, ON, REAL, memory_of
from reports.lettering import line_height, text_width, unbroken, words_of, wrapped
from reports.records import Run, runs_on, scenarios_of
from reports.rows import NO_RUN, common_seeds, count_text, file_stem, method_of, row_order, seeds_text
from reports.style import (
    FORMATS,
    LineStyle,
    RowKey,
    add_legend,
    display_name,
    draw_gap,
    emphasis,
    figure_title,
    house_style,
    line_styles,
    look_of,
    require_formats,
    wrapped_name,
    write_figure,
)
from reports.tables import frame, frames_by_memory, headline, spread_of

__all__ = [
    "AXIS_WIDTH",
    "FIGURE_3",
    "FORMATS",
    "BarPanel",
    "bar_panels",
    "differing_note",
    "draw_rows",
    "one_step",
    "panel_title",
    "rows_of",
    "seeds_note",
    "write_curves",
    "write_figure3",
]

FIGURE_3 = (
    ("voc", "shapes", "15-1-disjoint"),
    ("ade", "scenes", "100-10-disjoint"),
    ("voc", "shapes", "15-1-overlapped"),
    ("ade", "scenes", "50-50-disjoint"),
)
"""Figure 3's panels, row by row: the real data set, the embedded one of as many classes, and the split.

The paper's caption has VOC at the left and ADE20K at the right and names no split: these are Tables 1 and 3's splits
of more than one incremental step.
"""

AXIS_WIDTH = 0.5
"""Inches of a panel that its title has not: most of what is at the left of the axes, above whose middle it stands."""
_NAMES_WIDTH = 2.2
"""Inches that the names beside bars may take."""

Rows = Mapping[RowKey, pd.DataFrame]
"""The rows of `frame` by strategy and variant, in the tables' order."""


# ---------------------------------------------------------------- a figure per scenario


def write_curves(
    runs: Sequence[Run],
    out: Path,
    formats: Sequence[str] = FORMATS,
    scenarios: Sequence[str] | None = None,
) -> list[Path]:
    """Write each scenario's figure, mIoU against the classes learned, and return the files, in order.

    The files lie in the folder `out`. A line is the mean over a row's seeds, its band one standard deviation
    (n > 1); runs whose memories differ in size have a panel for each. `scenarios` are those of the runs by default;
    one without a finished run gets a figure that says so. Equal runs give equal files. Raises ValueError for a format
    other than `png`, `pdf` and `svg`, RecordError if the runs of a scenario differ in their conventions.
    """
    require_formats(formats)
    return by_scenario(runs, out, formats, scenarios, "", _by_memory)


def by_scenario(
    runs: Sequence[Run],
    out: Path,
    formats: Sequence[str],
    scenarios: Sequence[str] | None,
    suffix: str,
    draw: Callable[[str, Sequence[Run]], Figure],
) -> list[Path]:
    """Write `<scenario><suffix>.*` for each scenario and return the files, in order.

    Raises RecordError where the runs of a scenario differ in their conventions.
    """
    out.mkdir(parents=True, exist_ok=True)
    written = []
    with house_style(words_of(runs)):
        for scenario in scenarios_of(runs) if scenarios is None else scenarios:
            own = runs_on(scenario, runs)
            require_one_convention(own)
            written += write_figure(draw(scenario, own), out / f"{file_stem(scenario)}{suffix}", formats)
    return written


def _by_memory(scenario: str, runs: Sequence[Run]) -> Figure:
    by_memory = {size: rows_of(headline(steps)) for size, steps in frames_by_memory(runs).items()}
    if len(by_memory) < 2:
        return _panels([(figure_title(scenario, runs=runs), _rows_of_runs(runs))], columns=1, size=(6.4, 4.2))
    panels = [(figure_title(scenario, f"memory {size}", runs=runs), rows) for size, rows in by_memory.items()]
    return _panels(panels, columns=min(len(panels), 3), size=(3.6, 2.8), sharey=True)


def _rows_of_runs(runs: Sequence[Run]) -> Rows:
    return rows_of(headline(frame(runs)))


# ---------------------------------------------------------------- panels


def _panels(
    panels: Sequence[tuple[str, Rows]], columns: int, size: tuple[float, float], sharey: bool = False
) -> Figure:
    """Draw panels of a title and rows, each `size` inches, and one legend for all of them."""
    keys = sorted({key for _, rows in panels for key in rows}, key=lambda key: row_order(*key))
    if all(rows for _, rows in panels) and one_step((rows for _, rows in panels), "miou"):
        return bar_panels([BarPanel(title, rows, "miou", "mIoU (%)") for title, rows in panels], columns)
    count = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(size[0] * columns, size[1] * count), layout="constrained")
    lines = line_styles(keys)
    places = list(figure.subplots(count, columns, squeeze=False, sharey=sharey).flat)
    handles: dict[RowKey, object] = {}
    for axes, (title, rows) in zip(places, panels, strict=False):
        axes.set_xlabel("classes learned")
        axes.set_ylabel("mIoU (%)")
        handles |= draw_rows(axes, rows, "miou", lines) if rows else draw_gap(axes, NO_RUN)
        panel_title(axes, [title, seeds_note(rows), differing_note(rows)], size[0] - AXIS_WIDTH)
    for axes in places[len(panels) :]:
        axes.set_axis_off()
    if handles:
        several = any(row["seed"].nunique() > 1 for _, rows in panels for row in rows.values())
        title = "mean over seeds, band: one standard deviation" if several else ""
        add_legend(figure, {display_name(*key): handles[key] for key in keys}, title)
    return figure


def panel_title(axes: Axes, lines: Sequence[str], width: float) -> None:
    """Write the lines that say something above axes of `width` inches."""
    axes.set_title(wrapped("\n".join(filter(None, lines)), width, 9), fontsize=9, parse_math=False)


def seeds_note(rows: Rows) -> str:
    """Return the seeds that most rows have and what the others have; '' without a row."""
    if not rows:
        return ""
    seeds = {key: seeds_text(set(row["seed"])) for key, row in rows.items()}
    common = common_seeds(seeds.values())
    odd = {key: own for key, own in seeds.items() if own != common}
    # A number stays beside its letter.
    return "; ".join([count_text(common), *_others(odd, common)]).replace(" = ", unbroken(" = "))


def differing_note(rows: Rows) -> str:
    """Return that rows were not trained alike and are no ranking; '' where they were."""
    differ = len({text for row in rows.values() for text in row["settings"]}) > 1
    return "settings differ (in brackets): no ranking" if differ else ""


def _others(odd: Mapping[RowKey, str], common: str) -> list[str]:
    """What the rows with other seeds have: each by name, or the range where names would fill the figure."""
    counts = sorted({len(seeds.split()) for seeds in odd.values()})
    if len(odd) <= 3:
        return [f"{display_name(*key)}: {_other(seeds, common)}" for key, seeds in odd.items()]
    span = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return [f"n = {span} for {len(odd)} others"]


def _other(seeds: str, common: str) -> str:
    count, rest = count_text(seeds).split(", ", 1)
    return rest if len(seeds.split()) == len(common.split()) else count


# ---------------------------------------------------------------- lines


def rows_of(steps: pd.DataFrame) -> Rows:
    """Return the rows of `frame` by strategy and variant, in the tables' order."""
    keys = sorted(set(zip(steps["strategy"], steps["variant"], strict=True)), key=lambda key: row_order(*key))
    return {key: steps[(steps["strategy"] == key[0]) & (steps["variant"] == key[1])] for key in keys}


def draw_rows(axes: Axes, rows: Rows, column: str, lines: Mapping[RowKey, LineStyle]) -> dict[RowKey, object]:
    """Draw a column against the classes learned, mean and deviation over seeds; return each row's line.

    NaN is left out. The axis is marked at every step's number of classes.
    """
    handles = {key: _draw_row(axes, row.dropna(subset=[column]), column, lines[key], key) for key, row in rows.items()}
    learned = {int(classes) for row in rows.values() for classes in row["classes"]}
    axes.xaxis.set_major_locator(FixedLocator(sorted(learned), nbins=12))
    axes.grid(axis="y", linewidth=0.5, alpha=0.5)
    return handles


def _draw_row(axes: Axes, row: pd.DataFrame, column: str, line: LineStyle, key: RowKey) -> object:
    by_classes = [(classes, group[column].to_numpy(float)) for classes, group in row.groupby("classes")]
    learned = np.array([classes for classes, _ in by_classes], dtype=float)
    mean = np.array([values.mean() for _, values in by_classes])
    std = np.nan_to_num([spread_of(values) for _, values in by_classes])
    look, (width, order) = look_of(method_of(key[0])), emphasis(key[0])
    size = 9 if look.marker == "*" else 6
    (handle,) = axes.plot(
        *(learned, mean),
        color=look.colour,
        linestyle=line,
        linewidth=width,
        marker=look.marker,
        markersize=size,
        markeredgecolor="white",
        markeredgewidth=0.5,
        zorder=order,
    )
    if std.any():
        axes.fill_between(learned, mean - std, mean + std, color=look.colour, alpha=0.15, linewidth=0, zorder=2)
    return handle


# ---------------------------------------------------------------- bars, where there is one step


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
    height = 1.6 + sum(max(0.24, line_height(8) * (name.count("\n") + 1.5)) for name in names)
    figure = Figure(figsize=(beside + width * columns + 0.3, height * count), layout="constrained")
    places = figure.subplots(count, columns, squeeze=False, sharey=True)
    for axes, panel in zip(places.flat, panels, strict=False):
        _draw_bars(axes, panel.rows, panel.column, keys)
        axes.set_xlabel(panel.label)
        panel_title(axes, [panel.title, seeds_note(panel.rows), differing_note(panel.rows)], width - 0.2)
    for axes in places.flat[len(panels) :]:
        axes.set_axis_off()
    places[0, 0].set_yticks(range(len(keys)), names, fontsize=8, parse_math=False)
    places[0, 0].invert_yaxis()
    above = wrapped("\n".join(filter(None, [title, _bars_note(panels)])), figure.get_figwidth() - 0.2, 10)
    figure.suptitle(above, fontsize=10, parse_math=False)
    return figure


def _bars_note(panels: Sequence[BarPanel]) -> str:
    rows = [(row, panel.column) for panel in panels for row in panel.rows.values()]
    (classes,) = {classes for row, column in rows for classes in _measured(row, column)}
    several = any(row["seed"].nunique() > 1 for row, _ in rows)
    spread = "; mean over seeds, whisker: one standard deviation" if several else ""
    return f"{classes} classes learned{spread}"


def _draw_bars(axes: Axes, rows: Rows, column: str, keys: Sequence[RowKey]) -> None:
    for key, row in rows.items():
        values = row[column].dropna().to_numpy(float)
        if len(values):
            spread = spread_of(values)
            whisker = None if math.isnan(spread) else spread
            colour = look_of(method_of(key[0])).colour
            axes.barh(keys.index(key), values.mean(), xerr=whisker, height=0.7, color=colour, capsize=2, zorder=2)
    axes.axvline(0, color="black", linewidth=0.8, zorder=3)
    axes.grid(axis="x", linewidth=0.5, alpha=0.5, zorder=1)
    axes.tick_params(axis="y", length=0)


# ---------------------------------------------------------------- Figure 3


def write_figure3(
    runs: Sequence[Run], out: Path, on: str | None = None, formats: Sequence[str] = FORMATS
) -> list[Path]:
    """Write the paper's Figure 3 into the folder `out` as `figure3.*` and return the files, in order.

    Two panels of the 20-class data set at the left and two of the 150-class one at the right, on the real sets (`on`
    is `voc` or `ade`) or on the embedded ones (`shapes` or `scenes`); by default on the embedded ones if the real ones
    have no run. Drawn are the methods without parameters, with the paper's memory where a panel has such runs: mIoU
    after each step, the mean over seeds, its band one standard deviation (n > 1). A panel without a run says so. Equal
    runs give equal files. Raises ValueError for an unknown data set or format, RecordError if the runs differ in their
    conventions.
    """
    require_formats(formats)
    drawn = {scenario: _drawn(runs, scenario) for scenario in _scenarios(runs, on)}
    require_one_convention([run for own in drawn.values() for run in own])
    panels = [(figure_title(scenario, runs=own), _rows_of_runs(own)) for scenario, own in drawn.items()]
    out.mkdir(parents=True, exist_ok=True)
    with house_style(words_of(run for own in drawn.values() for run in own)):
        return write_figure(_panels(panels, columns=2, size=(3.6, 2.8)), out / "figure3", formats)


def _scenarios(runs: Sequence[Run], on: str | None) -> list[str]:
    if on is not None and on not in ON:
        raise ValueError(f"data set {on!r}: allowed are {', '.join(ON)}")
    real = [f"{dataset}-{split}" for dataset, _, split in FIGURE_3]
    if on in REAL or (on is None and any(run.spec["scenario"] in real for run in runs)):
        return real
    return [f"{dataset}-{split}" for _, dataset, split in FIGURE_3]


def _drawn(runs: Sequence[Run], scenario: str) -> list[Run]:
    own = runs_on(scenario, runs)
    plain = [run for run in own if run.spec["strategy"] == method_of(run.spec["strategy"])]
    return [run for run in plain if memory_of(run) == MEMORY] or plain
