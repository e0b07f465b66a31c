"""How far methods forget: forgetting and backward transfer over the steps, a figure and a CSV per scenario."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from reports.atomic import write_atomic
from reports.bars import BarPanel, bar_panels, one_step
from reports.lettering import wrapped
from reports.panels import (
    AXIS_WIDTH,
    band_note,
    by_scenario,
    differing_note,
    draw_rows,
    gap_figure,
    panel_title,
    rows_of,
    seeds_note,
)
from reports.records import Run, scenarios_of
from reports.rows import NO_RUN, file_stem, row_order, seeds_text
from reports.style import FORMATS, RowKey, add_legend, display_name, figure_title, line_styles, require_formats
from reports.tables import frame, frames_by_memory, headline, spread_of

_MEASURES = {"forgetting": "forgetting (points)", "backward_transfer": "backward transfer (points)"}


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


# ---------------------------------------------------------------- the figure and its CSV


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
        return gap_figure(scenario, "no group was measured after two steps" if runs else NO_RUN)
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
    add_legend(figure, {display_name(*key): handles[key] for key in styles}, band_note(panels.values()))
    figure.suptitle(wrapped(figure_title(scenario, runs=runs), 7.0, 10), fontsize=10, parse_math=False)
    return figure
