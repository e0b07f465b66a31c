"""Tables from run directories: a tidy frame, its summary over seeds, and files in CSV, LaTeX, Markdown and HTML."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from reports.atomic import write_atomic
from reports.conventions import UNKNOWN, require_one_convention
from reports.files import RecordError
from reports.grids import MEMORY_SETTING, runs_by_memory
from reports.markup import FORMATS, MARKUP, Cell, Table, ranks
from reports.notes import classes_note, code, marks_note, origin_notes, settings_note, unfinished_note
from reports.records import Run, Unfinished, run_order
from reports.rows import (
    REFERENCES,
    common_seeds,
    count_text,
    embedded_note,
    file_stem,
    method_of,
    natural_order,
    own_seeds,
    row_id,
    row_name,
    row_order,
    row_settings,
    seeds_text,
    variants,
)

NO_RUN = "no finished run"

MEASURES = {"old": "old", "new": "new", "miou": "all", "imiou": "imIoU", "avg": "avg"}
"""The measures after the last step that tables show, with their headers."""
WITH_BACKGROUND = ("old", "miou", "imiou", "avg")
"""The measures that the background's IoU enters, or not, by the conventions."""
IMIOU = "imIoU is the mean of the mIoU after steps 1..T, avg that after steps 0..T."
_COSTS = {
    "seconds_per_batch": "seconds",
    "forward_per_batch": "forward_passes",
    "backward_per_batch": "backward_passes",
    "images_per_batch": "images",
}
_HELD = ("memory_images", "memory_bytes", "peak_ram_bytes", "peak_gpu_bytes")
_CONVENTIONS = {
    "future_classes": "future classes",
    "test_images": "test images",
    "background_in_mean": "background in the mean",
    "resolution": "resolution",
    "evaluate_on": "evaluated on",
}
_KEY = ["scenario", "strategy", "variant"]


# ---------------------------------------------------------------- the tidy frame


def frame(runs: Sequence[Run], beside: Collection[str] = ()) -> pd.DataFrame:
    """Return one row per run and step, in a fixed order whatever the order of `runs`.

    Columns: `scenario`; `strategy` (its label); `variant` ('' or what tells the scenario's rows apart beside their
    labels, e.g. `memory.size=20`); `settings` (that part of it in which rows of any label differ: only rows of equal
    `settings` can be ranked, see `reports.rows`); `seed`; `hash`; `step`; `classes` (known after the step, without the
    background); the run's conventions `future_classes`, `test_images`, `background_in_mean`, `resolution`,
    `evaluate_on`; `miou`, `imiou` (the mean of the mIoU after steps 1..t), `avg` (after steps 0..t), `old`, `new`,
    `step_1` ... `step_T`, and `miou`, `imiou`, `avg`, `old` once more as `..._without_background` (per cent, as in
    steps.csv, NaN where a group is not yet learned); `incoming_batches`; `seconds_per_batch`,
    `forward_per_batch`, `backward_per_batch`, `images_per_batch` (per incoming batch; NaN at step 0 and without
    a batch; an image counts once per forward pass); `memory_images`, `memory_bytes` (held after the step),
    `peak_ram_bytes` (of the process), `peak_gpu_bytes` (during the step); `run` (the directory). Raises
    RecordError if one run (scenario, strategy, hash and seed) was given twice, or if a file is damaged.

    `beside` are settings that neither `variant` nor `settings` names, though rows may differ in them alone.
    """
    ordered = sorted(runs, key=run_order)
    _refuse_doubles(ordered)
    records = []
    for scenario in scenarios_of(ordered):
        own = [run for run in ordered if run.spec["scenario"] == scenario]
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


def _frame_columns(runs: Sequence[Run]) -> list[str]:
    last = max((len(run.spec["steps"]) for run in runs), default=1)
    return [
        *_KEY,
        *("settings", "seed", "hash", "step", "classes", *_CONVENTIONS, "miou", "imiou", "avg", "old", "new"),
        *(f"step_{number}" for number in range(1, last)),
        *(f"{name}_without_background" for name in ("miou", "imiou", "avg", "old")),
        *("incoming_batches", *_COSTS, *_HELD, "run"),
    ]


def _run_records(run: Run) -> Iterable[dict[str, Any]]:
    spec = run.spec
    for row, cost in zip(run.steps, run.costs, strict=True):
        step = int(row["step"])
        yield {
            **{key: spec[key] for key in ("scenario", "strategy", "seed", "hash")},
            "classes": sum(len(one["classes"]) for one in spec["steps"][: step + 1]),
            **{key: spec["conventions"].get(key, UNKNOWN) for key in _CONVENTIONS},
            "background_in_mean": spec["conventions"].get("background_in_mean") is not False,
            **row,
            **_per_batch(step, cost),
            **{name: cost.get(name, math.nan) for name in _HELD},
            "run": str(run.path),
        }


def _per_batch(step: int, cost: dict[str, float]) -> dict[str, float]:
    batches = cost.get("incoming_batches", math.nan)
    counts = step > 0 and batches > 0
    shares = {name: cost.get(total, math.nan) / batches if counts else math.nan for name, total in _COSTS.items()}
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
    return pd.DataFrame(rows, columns=[*_KEY, "settings", "n", "seeds", *spread, *_CONVENTIONS, *_COSTS, *_HELD])


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
    found |= {key: group[key].iloc[0] for key in _CONVENTIONS}
    for column in _COSTS:
        found[column] = float(np.mean([_weighted_by_batches(run, column) for run in runs]))
    for column in _HELD:
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


# ---------------------------------------------------------------- files


def write_tables(
    runs: Sequence[Run],
    out: Path,
    formats: Sequence[str] = ("csv", "latex"),
    scenarios: Sequence[str] | None = None,
    unfinished: Sequence[Unfinished] = (),
) -> list[Path]:
    """Write each scenario's table into the folder `out` and return the files, in order.

    `formats` are of `csv` (`<scenario>.csv`: the summary), `latex` (`.tex`: a `table` that needs booktabs),
    `markdown` (`.md`) and `html` (a fragment). `scenarios` are those of the runs by default; one without a finished run
    gets a table with a marked gap. `unfinished` runs are named in the caption; the CSV has their seeds beside those of
    the strategy's finished runs, and a row with n = 0 of a strategy that has none. Raises ValueError for an unknown
    format, RecordError if the runs of one scenario differ in its classes, or in their conventions
    (`require_one_convention`).
    """
    for unknown in set(formats) - set(FORMATS):
        raise ValueError(f"table format {unknown!r}: allowed are {', '.join(FORMATS)}")
    rows = summary(frame(runs))
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for scenario in scenarios_of(runs) if scenarios is None else scenarios:
        own = [run for run in runs if run.spec["scenario"] == scenario]
        require_one_convention(own)
        for name in formats:
            suffix, text = _text(name, scenario, rows[rows["scenario"] == scenario], own, unfinished)
            path = out / f"{file_stem(scenario)}{suffix}"
            write_atomic(path, text)
            written.append(path)
    return written


def _text(
    name: str, scenario: str, rows: pd.DataFrame, runs: Sequence[Run], unfinished: Sequence[Unfinished]
) -> tuple[str, str]:
    """The end of a file's name, and what it holds."""
    if name == "csv":
        return ".csv", _csv(scenario, rows, unfinished)
    suffix, markup = MARKUP[name]
    return suffix, markup(_table(scenario, rows, runs, unfinished))


def scenarios_of(runs: Sequence[Run]) -> list[str]:
    """Return the names of the runs' scenarios, sorted."""
    return sorted({run.spec["scenario"] for run in runs})


def _csv(scenario: str, rows: pd.DataFrame, unfinished: Sequence[Unfinished]) -> str:
    missing: dict[str, set[int]] = {}
    for run in unfinished:
        if run.spec["scenario"] == scenario:
            missing.setdefault(run.spec["strategy"], set()).add(run.spec["seed"])
    gaps = [strategy for strategy in missing if strategy not in set(rows["strategy"])]
    if rows.empty and not gaps:
        gaps = [NO_RUN]
    if gaps:
        records = [*rows.to_dict("records"), *({"scenario": scenario, "strategy": gap, "n": 0} for gap in gaps)]
        rows = pd.DataFrame(records, columns=rows.columns)
    seeds = [seeds_text(missing.get(strategy, ())) for strategy in rows["strategy"]]
    rows = rows.assign(unfinished=seeds)
    rows = rows.drop(columns=[*_COSTS, *_HELD])  # of equal runs the results are equal, the costs are not
    return rows.to_csv(index=False, float_format="%.4f", lineterminator="\n")


def _table(scenario: str, rows: pd.DataFrame, runs: Sequence[Run], unfinished: Sequence[Unfinished]) -> Table:
    ranges = _ranges(scenario, runs)
    common = common_seeds(rows["seeds"]) if len(rows) else ""
    names = [row_name(row["strategy"], row["variant"]) + own_seeds(row["seeds"], common) for _, row in rows.iterrows()]
    groups = ranked_groups(rows)
    columns = [cells(rows, measure, groups) for measure in MEASURES]
    return Table(
        label=f"tab:{file_stem(scenario)}",
        header=["Methods", *ranges, *list(MEASURES.values())[2:]],
        rows=[[Cell(name), *numbers] for name, *numbers in zip(names, *columns, strict=True)],
        gap=NO_RUN,
        caption=" ".join(_caption(scenario, common, rows, runs, unfinished)),
        breaks=group_breaks(rows),
        wide=rows["settings"].nunique() > 1,  # long names
    )


def ranked_groups(rows: pd.DataFrame) -> list[str | None]:
    """Return for each row of `summary` the settings among whose rows it is ranked; None for the references."""
    return [
        None if method_of(strategy) in REFERENCES else settings
        for strategy, settings in zip(rows["strategy"], rows["settings"], strict=True)
    ]


def group_breaks(rows: pd.DataFrame) -> list[int]:
    """Return the places of the rows of `summary` at which other settings begin."""
    return [place for place, (one, other) in enumerate(pairwise(rows["settings"]), start=1) if one != other]


def cells(rows: pd.DataFrame, measure: str, groups: Sequence[str | None]) -> list[Cell]:
    """Return one column's cells; best and second of each group by the mean as printed, equal means equally good."""
    means = ["--" if math.isnan(mean) else f"{mean:.2f}" for mean in rows[f"{measure}_mean"]]
    stds = ["" if math.isnan(std) else f"{std:.2f}" for std in rows[f"{measure}_std"]]
    return [Cell(*each) for each in zip(means, stds, ranks(means, groups), strict=True)]


def _ranges(scenario: str, runs: Sequence[Run]) -> tuple[str, str]:
    """The old and the new classes' places in learning order, as in the paper's headers: `0-15`, `16-20`."""
    sizes = {tuple(len(step["classes"]) for step in run.spec["steps"]) for run in runs}
    if len(sizes) > 1:
        raise RecordError(f"{scenario}: its runs differ in their numbers of classes per step: {sorted(sizes)}")
    if not sizes:
        return "old", "new"
    base, *later = sizes.pop()
    first = 1 if all(run.spec["conventions"].get("background_in_mean") is False for run in runs) else 0
    return _range(first, base), _range(base + 1, base + sum(later)) if later else "new"


def _range(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"


# ---------------------------------------------------------------- captions (code between backticks)


def _caption(
    scenario: str, common: str, rows: pd.DataFrame, runs: Sequence[Run], unfinished: Sequence[Unfinished]
) -> list[str]:
    note = embedded_note(scenario)
    missing = unfinished_note(scenario, unfinished, len(runs))
    sentences = [(f"Mean IoU (%) after the last step of {code(scenario)}{f' ({note})' if note else ''}; {IMIOU}")]
    if rows.empty:
        return [*sentences, missing] if missing else sentences
    sentences.append(classes_note(runs))
    kind = "Mean ± standard deviation over seeds" if (rows["n"] > 1).any() else "One seed"
    own = " unless a row says otherwise" if set(rows["seeds"]) != {common} else ""
    sentences += [f"{kind}: {count_text(common)}{own}.", missing]
    facts = [f"{words} {_shown(key, runs)}" for key, words in _CONVENTIONS.items()]
    sentences.append(f"Conventions: {'; '.join(facts)}.")
    sentences += [settings_note(runs), marks_note(runs), *origin_notes(runs)]
    return list(filter(None, sentences))


def _shown(key: str, runs: Sequence[Run]) -> str:
    """One convention's value, the same in all runs of a table."""
    value = runs[0].spec["conventions"].get(key, UNKNOWN)
    return code({True: "yes", False: "no"}[value] if isinstance(value, bool) else value)
