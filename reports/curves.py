"""mIoU after each step: a figure per scenario, and the four panels of the paper's Figure 3."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator

from reports.conventions import require_one_convention
from reports.grids import MEMORY, ON, REAL, memory_of
from reports.records import Run
from reports.rows import common_seeds, count_text, file_stem, method_of, own_seeds, row_order, seeds_text
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
    write_figure,
)
from reports.tables import NO_RUN, frame, headline, scenarios_of, spread_of

__all__ = ["FIGURE_3", "FORMATS", "draw_rows", "rows_of", "write_curves", "write_figure3"]

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


# ---------------------------------------------------------------- a figure per scenario


def write_curves(
    runs: Sequence[Run],
    out: Path,
    formats: Sequence[str] = FORMATS,
    scenarios: Sequence[str] | None = None,
) -> list[Path]:
    """Write each scenario's figure, mIoU against the classes learned, and return the files, in order.

    The files lie in the folder `out`. A line is the mean over a row's seeds, its band one standard deviation
    (n > 1). `scenarios` are those of the runs by default; one without a finished run gets a figure that says
    so. Equal runs give equal files. Raises ValueError for a format other than `png`, `pdf` and `svg`, RecordError if
    the runs of a scenario differ in their conventions.
    """
    require_formats(formats)
    steps = headline(frame(runs))
    out.mkdir(parents=True, exist_ok=True)
    written = []
    with house_style():
        for scenario in scenarios_of(runs) if scenarios is None else scenarios:
            require_one_convention([run for run in runs if run.spec["scenario"] == scenario])
            figure = _figure(scenario, steps[steps["scenario"] == scenario])
            written += write_figure(figure, out / file_stem(scenario), formats)
    return written


def _figure(scenario: str, steps: pd.DataFrame) -> Figure:
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel("classes learned")
    axes.set_ylabel("mIoU (%)")
    if steps.empty:
        draw_gap(axes, NO_RUN)
        axes.set_title(figure_title(scenario), parse_math=False)
        return figure
    rows = rows_of(steps)
    handles = draw_rows(axes, rows, "miou", line_styles(rows))
    seeds = {key: seeds_text(set(row["seed"])) for key, row in rows.items()}
    common = common_seeds(seeds.values())
    add_legend(figure, {display_name(*key) + own_seeds(seeds[key], common): handles[key] for key in rows})
    several = any(len(each.split()) > 1 for each in seeds.values())
    subtitle = f"mean, band: one standard deviation ({count_text(common)})" if several else count_text(common)
    axes.set_title(figure_title(scenario, subtitle), parse_math=False)
    return figure


# ---------------------------------------------------------------- lines


def rows_of(steps: pd.DataFrame) -> dict[RowKey, pd.DataFrame]:
    """Return the rows of `frame` by strategy and variant, in the tables' order."""
    keys = sorted(set(zip(steps["strategy"], steps["variant"], strict=True)), key=lambda key: row_order(*key))
    return {key: steps[(steps["strategy"] == key[0]) & (steps["variant"] == key[1])] for key in keys}


def draw_rows(
    axes: Axes, rows: Mapping[RowKey, pd.DataFrame], column: str, lines: Mapping[RowKey, LineStyle]
) -> dict[RowKey, object]:
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
    look, (width, order) = look_of(method_of(key[0])), emphasis(method_of(key[0]))
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
    scenarios = _panels(runs, on)
    drawn = [run for scenario in scenarios for run in _drawn(runs, scenario)]
    require_one_convention(drawn)
    steps = headline(frame(drawn))
    out.mkdir(parents=True, exist_ok=True)
    with house_style():
        return write_figure(_figure3(scenarios, steps), out / "figure3", formats)


def _panels(runs: Sequence[Run], on: str | None) -> list[str]:
    if on is not None and on not in ON:
        raise ValueError(f"data set {on!r}: allowed are {', '.join(ON)}")
    real = [f"{dataset}-{split}" for dataset, _, split in FIGURE_3]
    if on in REAL or (on is None and any(run.spec["scenario"] in real for run in runs)):
        return real
    return [f"{dataset}-{split}" for _, dataset, split in FIGURE_3]


def _drawn(runs: Sequence[Run], scenario: str) -> list[Run]:
    own = [run for run in runs if run.spec["scenario"] == scenario]
    plain = [run for run in own if run.spec["strategy"] == method_of(run.spec["strategy"])]
    return [run for run in plain if memory_of(run) == MEMORY] or plain


def _figure3(scenarios: Sequence[str], steps: pd.DataFrame) -> Figure:
    figure = Figure(figsize=(7.2, 5.6), layout="constrained")
    panels = {name: rows_of(steps[steps["scenario"] == name]) for name in scenarios}
    keys = sorted({key for rows in panels.values() for key in rows}, key=lambda key: row_order(*key))
    lines = line_styles(keys)
    handles: dict[RowKey, object] = {}
    for axes, (scenario, rows) in zip(figure.subplots(2, 2).flat, panels.items(), strict=True):
        axes.set_xlabel("classes learned")
        axes.set_ylabel("mIoU (%)")
        if rows:
            handles |= draw_rows(axes, rows, "miou", lines)
        else:
            draw_gap(axes, NO_RUN)
        axes.set_title(figure_title(scenario, _counts(rows)), fontsize=9, parse_math=False)
    if handles:
        several = any(len(set(row["seed"])) > 1 for rows in panels.values() for row in rows.values())
        title = "mean over n seeds, band: one standard deviation" if several else ""
        add_legend(figure, {display_name(*key): handles[key] for key in keys}, title)
    return figure


def _counts(rows: Mapping[RowKey, pd.DataFrame]) -> str:
    """The number of seeds that most rows have, and of every row that has another."""
    counts = {display_name(*key): len(set(row["seed"])) for key, row in rows.items()}
    if not counts:
        return ""
    usual = max(counts.values(), key=lambda count: (list(counts.values()).count(count), count))
    odd = [f"{name} {count}" for name, count in counts.items() if count != usual]
    return textwrap.fill(", ".join([f"n = {usual}", *odd]), 60)
