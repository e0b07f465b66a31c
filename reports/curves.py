"""Figures from run directories: mIoU after each step (the paper's Figure 3)."""

from __future__ import annotations

import io
import math
import zlib
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path

import matplotlib
import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator

from reports.records import Run, write_atomic_bytes
from reports.rows import (
    common_seeds,
    count_text,
    embedded_note,
    file_stem,
    method_of,
    own_seeds,
    row_name,
    row_order,
    seeds_text,
)
from reports.tables import NO_RUN, frame, headline, scenarios_of, spread_of

# Colours: Paul Tol's "muted" scheme, made for colour blindness, with grey and black for the two references.
# Markers tell the methods apart in grey print too.
METHOD_STYLES = {
    "finetune": ("#888888", "X"),
    "er": ("#88CCEE", "o"),
    "lwf-mc": ("#44AA99", "s"),
    "icarl": ("#117733", "^"),
    "agem": ("#DDCC77", "v"),
    "mir": ("#999933", "D"),
    "mib": ("#332288", "P"),
    "coriseg": ("#CC6677", "p"),
    "ours": ("#882255", "*"),
    "joint": ("#000000", "h"),
}
# A method from another package: one colour, the marker chosen by its name alone.
_FOREIGN_COLOUR, _FOREIGN_MARKERS = "#AA4499", "<>d8H"
_LINES = ("-", "--", ":", "-.")
# Without the date and the version, equal runs give equal files.
FORMATS = ("png", "pdf")
_METADATA: dict[str, dict[str, str | None]] = {"png": {"Software": None}, "pdf": {"CreationDate": None}}
_SETTINGS = {"pdf.fonttype": 42, "axes.spines.top": False, "axes.spines.right": False, "savefig.dpi": 150}


def write_curves(
    runs: Sequence[Run],
    out: Path,
    formats: Sequence[str] = ("png", "pdf"),
    scenarios: Sequence[str] | None = None,
) -> list[Path]:
    """Write each scenario's figure, mIoU against the classes learned, and return the files, in order.

    The files lie in the folder `out`. A line is the mean over a row's seeds, its band one standard deviation
    (n > 1). `scenarios` are those of the runs by default; one without a finished run gets a figure that says
    so. Equal runs give equal files. Raises ValueError for a format other than `png` and `pdf`.
    """
    for unknown in set(formats) - set(FORMATS):
        raise ValueError(f"figure format {unknown!r}: allowed are {', '.join(FORMATS)}")
    steps = headline(frame(runs))
    out.mkdir(parents=True, exist_ok=True)
    written = []
    # The user's own matplotlibrc must not change the files.
    with matplotlib.style.context(["default", _SETTINGS]):
        for scenario in scenarios_of(runs) if scenarios is None else scenarios:
            figure = _figure(scenario, steps[steps["scenario"] == scenario])
            for name in formats:
                path = out / f"{file_stem(scenario)}.{name}"
                write_atomic_bytes(path, _file(figure, name))
                written.append(path)
    return written


def _file(figure: Figure, name: str) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format=name, metadata=_METADATA[name])
    return buffer.getvalue()


def _figure(scenario: str, steps: pd.DataFrame) -> Figure:
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel("classes learned")
    axes.set_ylabel("mIoU (%)")
    subtitle = _draw_rows(figure, axes, steps) if len(steps) else _draw_gap(axes)
    note = embedded_note(scenario).replace("`", "")
    axes.set_title("\n".join(filter(None, [scenario, note, subtitle])), fontsize=10, parse_math=False)
    return figure


def _draw_gap(axes: Axes) -> str:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.text(0.5, 0.5, NO_RUN, ha="center", va="center", transform=axes.transAxes)
    return ""


def _draw_rows(figure: Figure, axes: Axes, steps: pd.DataFrame) -> str:
    """Draw every row's line and the legend; return the subtitle with the seeds that most rows have."""
    rows = _rows(steps)
    seeds = {key: seeds_text(set(row["seed"])) for key, row in rows.items()}
    common = common_seeds(seeds.values())
    lines = {method: cycle(_LINES) for method in {method_of(strategy) for strategy, _ in rows}}
    for (strategy, variant), row in rows.items():
        label = row_name(strategy, variant) + own_seeds(seeds[strategy, variant], common)
        _draw_row(axes, row, method_of(strategy), next(lines[method_of(strategy)]), label)
    axes.xaxis.set_major_locator(FixedLocator(sorted(set(steps["classes"])), nbins=12))
    axes.grid(axis="y", linewidth=0.5, alpha=0.5)
    _add_legend(figure, axes)
    several = any(len(each.split()) > 1 for each in seeds.values())
    return f"mean, band: one standard deviation ({count_text(common)})" if several else count_text(common)


def _add_legend(figure: Figure, axes: Axes) -> None:
    """Put the legend below the axes, in as many columns as its longest name allows, on room of its own."""
    names = axes.get_legend_handles_labels()[1]
    columns = max(1, min(5, 92 // (max(map(len, names)) + 7)))
    figure.set_figheight(figure.get_figheight() + 0.2 * math.ceil(len(names) / columns))
    legend = figure.legend(loc="outside lower center", ncols=columns, frameon=False, fontsize=9)
    for text in legend.get_texts():
        text.set_parse_math(False)


def _rows(steps: pd.DataFrame) -> dict[tuple[str, str], pd.DataFrame]:
    keys = sorted(set(zip(steps["strategy"], steps["variant"], strict=True)), key=lambda key: row_order(*key))
    return {key: steps[(steps["strategy"] == key[0]) & (steps["variant"] == key[1])] for key in keys}


def _draw_row(axes: Axes, row: pd.DataFrame, method: str, line: str, label: str) -> None:
    by_classes = [(classes, group["miou"].to_numpy(float)) for classes, group in row.groupby("classes")]
    learned = np.array([classes for classes, _ in by_classes], dtype=float)
    mean = np.array([values.mean() for _, values in by_classes])
    std = np.nan_to_num([spread_of(values) for _, values in by_classes])
    colour, marker = _style(method)
    axes.plot(learned, mean, line, color=colour, marker=marker, markersize=7, linewidth=1.6, label=label)
    if std.any():
        axes.fill_between(learned, mean - std, mean + std, color=colour, alpha=0.18, linewidth=0)


def _style(method: str) -> tuple[str, str]:
    foreign = _FOREIGN_MARKERS[zlib.crc32(method.encode()) % len(_FOREIGN_MARKERS)]
    return METHOD_STYLES.get(method, (_FOREIGN_COLOUR, foreign))
