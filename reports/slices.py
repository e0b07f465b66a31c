"""What a study's trials tell of each setting: the mIoU on held-out training images against its value."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from reports.panels import panel_title
from reports.rows import method_of
from reports.study import Study
from reports.style import FORMATS, add_legend, display_name, house_style, look_of, require_formats, write_figure

_COLUMNS = 3
_WIDTH, _HEIGHT = 7.2, 2.1
"""Inches of the figure, and of a row of panels."""
_BEYOND = 0.04
"""Of a range's width, so much is shown on either side."""


def write_slices(study: Study, out: Path, formats: Sequence[str] = FORMATS) -> list[Path]:
    """Write `slices.*`, a panel for each setting of each strategy that has a trial with an mIoU; return the files.

    Raises ValueError for an unknown format.
    """
    require_formats(formats)
    with house_style(study.asked["strategies"]):
        return write_figure(_figure(study), out / "slices", formats)


def _figure(study: Study) -> Figure:
    panels = [
        (strategy, name)
        for strategy, ranges in study.asked["strategies"].items()
        if study.best(strategy) is not None
        for name in ranges
    ]
    rows = -(-len(panels) // _COLUMNS)
    figure = Figure(figsize=(_WIDTH, _HEIGHT * rows), layout="constrained")
    places = list(figure.subplots(rows, _COLUMNS, squeeze=False).flat)
    handles: dict[str, object] = {}
    for axes, (strategy, name) in zip(places, panels, strict=False):
        handles |= _draw(axes, study, strategy, name)
    for axes in places[len(panels) :]:
        axes.remove()
    for axes in places[: len(panels) : _COLUMNS]:
        axes.set_ylabel("mIoU (%)", fontsize=8)
    add_legend(figure, handles)
    return figure


def _draw(axes: Axes, study: Study, strategy: str, name: str) -> dict[str, object]:
    """Draw a panel and return what its legend tells of."""
    tried = [(trial.settings[name], trial.miou) for trial in study.of(strategy) if trial.miou is not None]
    best, searched = max(tried, key=lambda point: point[1]), study.asked["strategies"][strategy][name]
    values, mious = zip(*tried, strict=True)
    done = axes.scatter(values, mious, s=14, color=look_of(method_of(strategy)).colour, zorder=3)
    ringed = axes.scatter(*best, s=70, facecolors="none", edgecolors="black", linewidths=1.2, zorder=4)
    line = axes.axvline(searched["default"], color="black", linestyle=":", linewidth=1.0, zorder=1)
    low, high = searched["low"], searched["high"]
    if searched["log"]:
        beyond = (high / low) ** _BEYOND
        axes.set_xlim(low / beyond, high * beyond)
        axes.set_xscale("log")
    else:
        beyond = (high - low) * _BEYOND
        axes.set_xlim(low - beyond, high + beyond)
    axes.margins(y=0.12)
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.tick_params(labelsize=8)
    axes.grid(axis="y", linewidth=0.5, alpha=0.5)
    share = study.importance.get(strategy, {}).get(name)
    explains = "" if share is None else f"explains {100 * share:.0f} %"
    panel_title(axes, [f"{display_name(strategy)}: {name}", explains], _WIDTH / _COLUMNS - 0.4)
    return {"a trial": done, "the best trial": ringed, "the default setting": line}
