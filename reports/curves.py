"""mIoU after each step: a figure per scenario, and the four panels of the paper's Figure 3."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from reports.bars import BarPanel, bar_panels, one_step
from reports.conventions import require_one_convention
from reports.grids import MEMORY, ON, REAL, memory_of
from reports.lettering import words_of
from reports.panels import (
    AXIS_WIDTH,
    Rows,
    band_note,
    by_scenario,
    differing_note,
    draw_rows,
    panel_title,
    rows_of,
    seeds_note,
)
from reports.records import Run, runs_on
from reports.rows import NO_RUN, method_of, row_order
from reports.style import (
    FORMATS,
    RowKey,
    add_legend,
    display_name,
    draw_gap,
    figure_title,
    house_style,
    line_styles,
    require_formats,
    write_figure,
)
from reports.tables import frame, frames_by_memory, headline

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


def _by_memory(scenario: str, runs: Sequence[Run]) -> Figure:
    by_memory = {size: rows_of(headline(steps)) for size, steps in frames_by_memory(runs).items()}
    if len(by_memory) < 2:
        return _panels([(figure_title(scenario, runs=runs), _rows_of_runs(runs))], columns=1, size=(6.4, 4.2))
    panels = [(figure_title(scenario, f"memory {size}", runs=runs), rows) for size, rows in by_memory.items()]
    return _panels(panels, columns=min(len(panels), 3), size=(3.6, 2.8), sharey=True)


def _rows_of_runs(runs: Sequence[Run]) -> Rows:
    return rows_of(headline(frame(runs)))


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
        note = band_note(rows for _, rows in panels)
        add_legend(figure, {display_name(*key): handles[key] for key in keys}, note)
    return figure


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
