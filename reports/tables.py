"""Tables of numbers from run directories: a tidy frame, a row per run and step, and its summary over seeds."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from reports.conventions import UNKNOWN, background_counts
from reports.counting import under
from reports.files import RecordError
from reports.grids import MEMORY_SETTING, runs_by_memory
from reports.records import Run, run_order, runs_on, scenarios_of
from reports.rows import REFERENCES, method_of, natural_order, row_id, row_order, row_settings, seeds_text, variants

MEASURES = {"old": "old", "new": "new", "miou": "all", "imiou": "imIoU", "avg": "avg"}
"""The measures after the last step that tables show, columns of `headline`, with their headers.

All tables of these measures follow it, the statistics too. `old` and `new` come first: `scenario_tables` heads them
with the classes' places instead.
"""
WITH_BACKGROUND = ("old", "miou", "imiou", "avg")
"""The measures that the background's IoU enters, or not, by the conventions."""
COSTS = {
    "seconds_per_batch": "seconds",
    "forward_per_batch": "forward_passes",
    "backward_per_batch": "backward_passes",
    "images_per_batch": "images",
}
"""What a frame has per incoming batch, and the column of costs.csv that it is a share of."""
HELD = ("memory_images", "memory_bytes", "peak_ram_bytes", "peak_gpu_bytes")
"""What a frame has as costs.csv has it."""
CONVENTIONS = {
    "future_classes": "future classes",
    "test_images": "test images",
    "background_in_mean": "background in the mean",
    "resolution": "resolution",
    "evaluate_on": "evaluated on",
}
"""The conventions that a frame has, in words."""
CHOSEN = {"counted_as": "counted as", "label_0": "label 0", "mean_classes": "classes in the mean"}
"""Those that runs have where they are counted by others than their own (`reports.counting`), in words."""
_KEY = ["scenario", "strategy", "variant"]


# ---------------------------------------------------------------- the tidy frame


def frame(runs: Sequence[Run], beside: Collection[str] = (), convention: str | None = None) -> pd.DataFrame:
    """Return one row per run and step, in a fixed order whatever the order of `runs`.

    Columns: `scenario`; `strategy` (its label); `variant` ('' or what tells the scenario's rows apart beside their
    labels, e.g. `memory.size=20`); `settings` (that part of it in which rows of any label differ: only rows of equal
    `settings` can be ranked, see `reports.rows`); `seed`; `hash`; `step`; `classes` (known after the step, without the
    background); the run's conventions `future_classes`, `test_images`, `background_in_mean`, `resolution`,
    `evaluate_on`; `miou`, `imiou` (the mean of the mIoU after steps 1..t), `avg` (after steps 0..t), `old`, `new`,
    `step_1` ... `step_T`, and `miou`, `imiou`, `avg`, `old` once more as `..._without_background` (per cent, as in
    steps.csv, NaN where a group is not yet learned); `incoming_batches`; `seconds_per_batch`, `forward_per_batch`,
    `backward_per_batch`, `images_per_batch` (per incoming batch; NaN at step 0 and without a batch; an image counts
    once per forward pass); `memory_images`, `memory_bytes` (held after the step), `peak_ram_bytes` (of the process),
    `peak_gpu_bytes` (during the step); `run` (the directory). Raises RecordError if one run (scenario, strategy, hash
    and seed) was given twice, or if a file is damaged.

    `beside` are settings that neither `variant` nor `settings` names, though rows may differ in them alone. By a
    `convention` (`mib`, `test_images=all`, see `reports.counting.under`, which raises what this does) all numbers are
    counted anew, and the columns `counted_as`, `label_0` and `mean_classes` tell by which.
    """
    ordered = sorted(under(runs, convention), key=run_order)
    _refuse_doubles(ordered)
    records = []
    for scenario in scenarios_of(ordered):
        own = runs_on(scenario, ordered)
        settings, names = row_settings(own, beside), variants(own, beside)
        for run in own:
            row = {"variant": names[row_id(run)], "settings": settings[row_id(run)]}
            records += [{**row, **record} for record in _run_records(run)]
    return pd.DataFrame(records, columns=_frame_columns(ordered))


def frames_by_memory(runs: Sequence[Run]) -> dict[Any, pd.DataFrame]:
    """Return the rows of `frame` by the memory's size in images, smallest first.

    Rows tell what other settings they differ in over all sizes: two panels may compare more than the memory.
    """
    steps = frame(runs, beside=[MEMORY_SETTING])
    paths = {size: [str(run.path) for run in own] for size, own in runs_by_memory(runs).items()}
    return {size: steps[steps["run"].isin(own)] for size, own in paths.items()}


def _refuse_doubles(ordered: Sequence[Run]) -> None:
    for one, other in pairwise(ordered):
        if run_order(one)[:4] == run_order(other)[:4]:
            raise RecordError(f"{one.path} and {other.path}: the same run twice, its seed would count double")


def chosen_conventions(runs: Sequence[Run]) -> list[str]:
    """Return those of `CHOSEN` that runs have."""
    return [key for key in CHOSEN if any(key in run.spec["conventions"] for run in runs)]


def _frame_columns(runs: Sequence[Run]) -> list[str]:
    last = max((len(run.spec["steps"]) for run in runs), default=1)
    return [
        *_KEY,
        *(
            "settings",
            "seed",
            "hash",
            "step",
            "classes",
            *CONVENTIONS,
            *chosen_conventions(runs),
            "miou",
            "imiou",
            "avg",
            "old",
            "new",
        ),
        *(f"step_{number}" for number in range(1, last)),
        *(f"{name}_without_background" for name in ("miou", "imiou", "avg", "old")),
        *("incoming_batches", *COSTS, *HELD, "run"),
    ]


def _run_records(run: Run) -> Iterable[dict[str, Any]]:
    spec = run.spec
    for row, cost in zip(run.steps, run.costs, strict=True):
        step = int(row["step"])
        yield {
            **{key: spec[key] for key in ("scenario", "strategy", "seed", "hash")},
            "classes": sum(len(one["classes"]) for one in spec["steps"][: step + 1]),
            **{key: spec["conventions"].get(key, UNKNOWN) for key in CONVENTIONS},
            **{key: spec["conventions"][key] for key in chosen_conventions([run])},
            "background_in_mean": background_counts(spec["conventions"]),
            **row,
            **_per_batch(step, cost),
            **{name: cost.get(name, math.nan) for name in HELD},
            "run": str(run.path),
        }


def _per_batch(step: int, cost: dict[str, float]) -> dict[str, float]:
    batches = cost.get("incoming_batches", math.nan)
    counts = step > 0 and batches > 0
    shares = {name: cost.get(total, math.nan) / batches if counts else math.nan for name, total in COSTS.items()}
    return {"incoming_batches": batches, **shares}


def headline(steps: pd.DataFrame) -> pd.DataFrame:
    """Return `frame`'s rows with the background in `old`, `miou`, `imiou`, `avg` or not, as the conventions say."""
    chosen = steps.copy()
    for column in WITH_BACKGROUND:
        chosen[column] = steps[column].where(
            steps["background_in_mean"].astype(bool), steps[f"{column}_without_background"]
        )
    return chosen


# ---------------------------------------------------------------- the summary over seeds


def summary(steps: pd.DataFrame) -> pd.DataFrame:
    """Return one row per scenario, strategy and variant from the rows of `frame`, in the tables' fixed order.

    Rows of equal settings stand together. Columns: `scenario`, `strategy`, `variant`, `settings`; `n` (seeds) and
    `seeds` (separated by blanks); mean and standard deviation (ddof = 1; NaN for one seed) over seeds of the last
    step's `old`, `new`, `miou`, `imiou` and `avg`, in per cent, with or without the background as each run's
    conventions say; and
    `seconds_per_batch`, `forward_per_batch`, `backward_per_batch`, `images_per_batch`: per incoming batch of steps
    1..T, averaged over seeds; the conventions as in `frame`; and the largest `memory_images`, `memory_bytes`,
    `peak_ram_bytes` and `peak_gpu_bytes` of any step and seed.
    """
    rows = [
        {**dict(zip(_KEY, key, strict=True)), **_over_seeds(group)}
        for key, group in headline(steps).groupby(_KEY, sort=False)
    ]
    spread = [f"{group}_{kind}" for group in MEASURES for kind in ("mean", "std")]
    rows.sort(key=_place)
    conventions = _conventions(steps)
    return pd.DataFrame(rows, columns=[*_KEY, "settings", "n", "seeds", *spread, *conventions, *COSTS, *HELD])


def _conventions(steps: pd.DataFrame) -> list[str]:
    return [key for key in (*CONVENTIONS, *CHOSEN) if key in steps]


def _place(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return row["scenario"], natural_order(row["settings"]), row_order(row["strategy"], row["variant"])


def _over_seeds(group: pd.DataFrame) -> dict[str, Any]:
    runs = [run.sort_values("step") for _, run in group.groupby("seed")]
    found: dict[str, Any] = {"n": len(runs), "seeds": seeds_text(int(run["seed"].iloc[0]) for run in runs)}
    found["settings"] = group["settings"].iloc[0]
    for column in MEASURES:
        values = np.array([run[column].iloc[-1] for run in runs], dtype=float)
        found[f"{column}_mean"] = values.mean()
        found[f"{column}_std"] = spread_of(values)
    found |= {key: group[key].iloc[0] for key in _conventions(group)}
    for column in COSTS:
        found[column] = float(np.mean([_weighted_by_batches(run, column) for run in runs]))
    for column in HELD:
        found[column] = float(group[column].max())
    return found


def spread_of(values: np.ndarray[Any, np.dtype[np.float64]]) -> float:
    """Return the sample standard deviation (ddof = 1), NaN for a single value."""
    return float(values.std(ddof=1)) if len(values) > 1 else math.nan


def _weighted_by_batches(run: pd.DataFrame, column: str) -> float:
    later = run[(run["step"] > 0) & (run["incoming_batches"] > 0)]
    if later.empty:
        return math.nan
    return float(np.average(later[column].to_numpy(float), weights=later["incoming_batches"].to_numpy(float)))


def ranked_groups(rows: pd.DataFrame) -> list[str | None]:
    """Return for each row of `summary` the settings among whose rows it is ranked; None for the references."""
    return [
        None if method_of(strategy) in REFERENCES else settings
        for strategy, settings in zip(rows["strategy"], rows["settings"], strict=True)
    ]


def group_breaks(rows: pd.DataFrame) -> list[int]:
    """Return the places of the rows of `summary` at which other settings begin."""
    return [place for place, (one, other) in enumerate(pairwise(rows["settings"]), start=1) if one != other]
