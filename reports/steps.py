"""What a run directory holds of each step: its confusion matrix, and its rows of `steps.csv` and `costs.csv`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from reports.counts import StepCounts, folded, pixel_counts
from reports.files import RecordError, csv_lines, csv_text, one_line, read_rows
from reports.metrics import mean_iou
from reports.spec import SCHEMA, Spec, known_after

Confusion = npt.NDArray[np.int64]


# ---------------------------------------------------------------- confusion matrices


def step_of(spec: Spec, confusion: npt.NDArray[Any]) -> int:
    """Return the step a matrix was measured after, told by its size: joint is evaluated after the last one only.

    Raises ValueError for a size that no step has.
    """
    known = known_after(spec)
    if confusion.ndim != 2 or confusion.shape[0] != confusion.shape[1] or len(confusion) not in known:
        raise ValueError(f"a confusion matrix of shape {confusion.shape}, this scenario's have size {known}")
    return known.index(len(confusion))


def mean_classes_of(spec: Spec) -> str:
    """Return which classes a mean is over by a spec's conventions; see `reports.metrics.class_iou`."""
    return str(spec["conventions"].get("mean_classes", "present"))


def own_confusion(spec: Spec, counts: StepCounts) -> Confusion:
    """Return the confusion matrix of a step's counts by the run's own conventions."""
    return folded(counts, *_pixels_counted(spec))


def same_pixels(one: Spec, other: Spec) -> bool:
    """Return whether two specs' conventions count the same pixels."""
    return _pixels_counted(one) == _pixels_counted(other)


def _pixels_counted(spec: Spec) -> tuple[str, str]:
    own = spec["conventions"]
    return own.get("future_classes", "background"), own.get("test_images", "known")


def confusion_path(run: Path, step: int) -> Path:
    """Return the file that a run directory has for the confusion matrix of a step."""
    return run / "confusion" / f"step-{step}.csv"


def read_confusion(run: Path, step: int, names: Sequence[str]) -> Confusion:
    """Return the matrix after a step, (classes, classes), `names` being its classes; RecordError if it is damaged."""
    path = confusion_path(run, step)
    header, *lines = csv_lines(path)
    if header != [str(name) for name in names] or len(lines) != len(names):
        raise RecordError(f"{path}: not the {len(names)} x {len(names)} matrix of the classes in spec.yaml")
    try:
        return pixel_counts(np.array([[int(cell) for cell in line] for line in lines], dtype=np.int64))
    except (ValueError, OverflowError) as error:
        raise RecordError(f"{path}: not a count of pixels ({one_line(error)})") from None


# ---------------------------------------------------------------- rows


MEANS_OVER_STEPS = {"imiou": 1, "avg": 0}
"""The means of the mIoU over steps, and the first step that counts (METHODS, Protocol)."""


def _step_columns(spec: Spec, schema: int = SCHEMA) -> list[str]:
    means = ["miou", "imiou"] if schema == 1 else ["miou", *MEANS_OVER_STEPS]
    later = [f"step_{number}" for number in range(1, len(spec["steps"]))]
    return ["step", *means, "old", "new", *later, *(f"{name}_without_background" for name in (*means, "old"))]


def _group_means(spec: Spec, confusion: npt.NDArray[Any]) -> dict[str, float]:
    """The mIoU of every group of classes after one step; NaN for a group not yet learned."""
    known = known_after(spec)
    base, seen = known[0], len(confusion)
    groups = {
        "miou": range(seen),
        "old": range(base),
        "new": range(base, seen),
        "miou_without_background": range(1, seen),
        "old_without_background": range(1, base),
    }
    for number in range(1, len(known)):
        groups[f"step_{number}"] = range(known[number - 1], known[number]) if known[number] <= seen else range(0)
    counted = mean_classes_of(spec)
    return {name: mean_iou(confusion, classes, counted) for name, classes in groups.items()}


def _means_over_steps(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """`imiou` and `avg` after the last of the rows, with and without the background.

    NaN if one of steps 0..t was not evaluated, and where no step counts.
    """
    means = {}
    for name, first in MEANS_OVER_STEPS.items():
        counted = rows[first:] if len(rows) == rows[-1]["step"] + 1 else ()
        for end in ("", "_without_background"):
            means[f"{name}{end}"] = sum(row[f"miou{end}"] for row in counted) / len(counted) if counted else math.nan
    return means


def steps_rows(spec: Spec, confusions: Sequence[npt.NDArray[Any]]) -> list[dict[str, float]]:
    """Return the rows of `steps.csv`, one per confusion matrix, in per cent and not rounded.

    The keys are the columns of the file; NaN stands for a group not yet learned, for `imiou` at step 0, and for a
    mean over steps of which one was not evaluated. A matrix's size tells its step; ValueError for a size that no
    step has.
    """
    rows: list[dict[str, float]] = []
    for confusion in confusions:
        row: dict[str, float] = {"step": step_of(spec, confusion), **_group_means(spec, confusion)}
        rows.append(row)
        row.update(_means_over_steps(rows))
    return [{column: row[column] for column in _step_columns(spec)} for row in rows]


def steps_text(spec: Spec, confusions: Sequence[npt.NDArray[Any]]) -> str:
    """Return the content of `steps.csv`, the rows of `steps_rows` with four decimals."""
    columns = _step_columns(spec)
    lines = [
        [row["step"], *("" if math.isnan(row[column]) else f"{row[column]:.4f}" for column in columns[1:])]
        for row in steps_rows(spec, confusions)
    ]
    return csv_text([columns, *lines])


def costs_text(costs: Sequence[Mapping[str, Any]]) -> str:
    """Return the content of `costs.csv`; None and NaN become empty cells."""
    columns = list(dict.fromkeys(["step", *(column for cost in costs for column in cost)]))
    lines = [[_cost_cell(cost.get(column)) for column in columns] for cost in costs]
    return csv_text([columns, *lines])


def _cost_cell(value: Any) -> str:
    # A run that goes on has read its empty cells back as NaN.
    return "" if value is None or math.isnan(value) else str(value)


def read_steps(path: Path, spec: Spec) -> list[dict[str, float]]:
    """Return the rows of the `steps.csv` of a finished run with the columns of the present schema.

    Raises RecordError if they are not those of its spec.
    """
    rows = read_rows(path)
    if not rows or list(rows[0]) != _step_columns(spec, spec["schema"]):
        raise RecordError(f"{path}: its columns are not those of schema {spec['schema']}")
    order = [row["step"] for row in rows]
    if order != sorted(set(order)) or order[0] < 0 or order[-1] != len(spec["steps"]) - 1:
        raise RecordError(f"{path}: its steps {order} are not those of a finished run of {len(spec['steps'])} steps")
    return rows if spec["schema"] == SCHEMA else _present(rows)


def _present(rows: Sequence[dict[str, float]]) -> list[dict[str, float]]:
    """Rows of schema 1 as those of the present one: their `imiou` is `avg`, ours is made of the mIoU of each step."""
    present = []
    for place, row in enumerate(rows, start=1):
        means = _means_over_steps(rows[:place])
        for end in ("", "_without_background"):
            means[f"avg{end}"] = row[f"imiou{end}"]
        present.append({**row, **means})
    return present
