"""What figures of runs have in common: a file per scenario, and panels with lines over the classes learned."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator

from reports.conventions import require_one_convention
from reports.lettering import unbroken, words_of, wrapped
from reports.records import Run, runs_on, scenarios_of
from reports.rows import NO_RUN, common_seeds, count_text, file_stem, method_of, row_order, seeds_text
from reports.style import (
    LineStyle,
    RowKey,
    display_name,
    draw_gap,
    emphasis,
    figure_title,
    house_style,
    look_of,
    write_figure,
)
from reports.tables import spread_of

AXIS_WIDTH = 0.5
"""Inches of a panel that its title has not: most of what is at the left of the axes, above whose middle it stands."""
Rows = Mapping[RowKey, pd.DataFrame]
"""The rows of `frame` by strategy and variant, in the tables' order."""


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


# ---------------------------------------------------------------- what is said above a panel


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


def several_seeds(panels: Iterable[Rows]) -> bool:
    """Whether a row of a panel is a mean over several seeds."""
    return any(row["seed"].nunique() > 1 for rows in panels for row in rows.values())


def band_note(panels: Iterable[Rows]) -> str:
    """Return what lines and their bands show; '' where no row has several seeds."""
    return "mean over seeds, band: one standard deviation" if several_seeds(panels) else ""


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


# ---------------------------------------------------------------- gaps


def gap_figure(scenario: str, text: str = NO_RUN) -> Figure:
    """Return a scenario's figure that says why it shows nothing."""
    figure = Figure(figsize=(6.4, 3.2), layout="constrained")
    axes = figure.add_subplot()
    draw_gap(axes, text)
    axes.set_title(wrapped(figure_title(scenario), 6.2, 10), parse_math=False)
    return figure
