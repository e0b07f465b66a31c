"""What a run directory holds: written step by step, read back whole.

    OUT/<scenario>/<strategy label>/<hash>-seed<k>/
        spec.yaml               everything resolved: what determines the run
        confusion/step-<t>.csv  pixels, rows the truth, columns the prediction, header the class names
        steps.csv               a row per step: mIoU of all classes and of the groups, in per cent
        costs.csv               a row per step: batches, passes, seconds
        checkpoint/             while it is unfinished: what it goes on from
        claim                   while a process works on it: which one
        log.txt                 what happened when, appended to
        error.txt               why it failed, until it is started again
        logs/                   of the loggers asked for; nothing here reads them
        predictions/            of a few images: images/ID.png, truth/ID.png, step-<t>/ID.png (labels in learning order)
        done                    written last; a directory without it is unfinished

Equal runs give equal `spec.yaml`, `steps.csv` and confusion matrices, byte for byte; times are in `costs.csv`
alone.
"""

from __future__ import annotations

import csv
import hashlib
import io
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml
from PIL import Image

from reports.atomic import clear_scraps, write_atomic, write_atomic_bytes
from reports.metrics import mean_iou

SCHEMA = 2
"""Of what is written. In schema 1 `imiou` was the mean over steps 0..t, which is `avg` since."""
READABLE = (1, SCHEMA)

Spec = dict[str, Any]
Confusion = npt.NDArray[np.int64]

_SPEC_TYPES: dict[str, type] = {
    "scenario": str,
    "strategy": str,
    "seed": int,
    "hash": str,
    "method": dict,
    "config": dict,
    "conventions": dict,
    "class_names": list,
    "steps": list,
}
# libyaml is about ten times as quick; PyYAML is sometimes built without it.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class RecordError(ValueError):
    """A run directory is damaged: one line that names the file and what is wrong with it."""


# ---------------------------------------------------------------- files


def _read_text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise RecordError(f"{path}: missing") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecordError(f"{path}: cannot be read ({_one_line(error)})") from None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _csv_text(rows: Iterable[Sequence[object]]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    return buffer.getvalue()


def _csv_lines(path: Path) -> list[list[str]]:
    """The cells of a CSV file, header first; every line as long as the header."""
    try:
        lines = list(csv.reader(io.StringIO(_read_text(path), newline=""), strict=True))
    except csv.Error as error:
        raise RecordError(f"{path}: not a CSV file ({_one_line(error)})") from None
    if not lines:
        raise RecordError(f"{path}: empty")
    for number, line in enumerate(lines, start=1):
        if len(line) != len(lines[0]):
            raise RecordError(f"{path}: line {number} has {len(line)} cells, the header has {len(lines[0])}")
    return lines


# ---------------------------------------------------------------- spec


def _check_spec(spec: object, path: Path) -> Spec:
    """Return `spec` if it has what the records rest on; else raise a RecordError that names `path`."""
    if not isinstance(spec, dict):
        raise RecordError(f"{path}: not a mapping")
    if spec.get("schema") not in READABLE:
        readable = " and ".join(map(str, READABLE))
        raise RecordError(f"{path}: schema is {spec.get('schema')!r}, this version reads {readable}")
    for key, kind in _SPEC_TYPES.items():
        if not isinstance(spec.get(key), kind):
            raise RecordError(f"{path}: '{key}' must be of type {kind.__name__}, it is {spec.get(key)!r:.80}")
    if not isinstance(spec["method"].get("parameters"), dict):
        raise RecordError(f"{path}: 'method.parameters' must be of type dict")
    steps = spec["steps"]
    for number, step in enumerate(steps):
        if not isinstance(step, dict) or step.get("step") != number or not step.get("classes"):
            raise RecordError(f"{path}: 'steps' must be steps 0, 1, ... with their classes, entry {number} is not")
    if not steps or len(spec["class_names"]) != _known_after(spec)[-1]:
        raise RecordError(f"{path}: 'class_names' must be the background and every class of 'steps'")
    return spec


def write_spec(run: Path, spec: Spec) -> None:
    """Write `spec.yaml` of a run directory."""
    write_atomic(run / "spec.yaml", yaml.safe_dump(spec, sort_keys=False))


def read_spec(run: Path) -> Spec:
    """Return `spec.yaml` of a run directory, finished or not; RecordError where it is missing or damaged."""
    return _read_spec(run / "spec.yaml")


def _read_spec(path: Path) -> Spec:
    text = _read_text(path)
    try:
        spec = yaml.load(text, Loader=_LOADER)
    except yaml.YAMLError as error:
        raise RecordError(f"{path}: not YAML ({_one_line(error)})") from None
    return _check_spec(spec, path)


def _known_after(spec: Spec) -> list[int]:
    """Number of classes known after each step, the background included: the size of its confusion matrix."""
    return list(accumulate((len(step["classes"]) for step in spec["steps"]), initial=1))[1:]


# ---------------------------------------------------------------- confusion matrices


def _step_of(spec: Spec, confusion: npt.NDArray[Any]) -> int:
    """The step a matrix was measured after, told by its size: joint is evaluated after the last one only."""
    known = _known_after(spec)
    if confusion.ndim != 2 or confusion.shape[0] != confusion.shape[1] or len(confusion) not in known:
        raise ValueError(f"a confusion matrix of shape {confusion.shape}, this scenario's have size {known}")
    return known.index(len(confusion))


def _pixel_counts(confusion: npt.NDArray[Any]) -> Confusion:
    counts = np.asarray(confusion)
    if counts.dtype.kind not in "iu" or (counts < 0).any():
        raise ValueError(f"a confusion matrix holds pixel counts, integers from 0 (its dtype is {counts.dtype})")
    return counts.astype(np.int64)


def _confusion_path(run: Path, step: int) -> Path:
    return run / "confusion" / f"step-{step}.csv"


def _read_confusion(run: Path, step: int, names: Sequence[str]) -> Confusion:
    path = _confusion_path(run, step)
    header, *lines = _csv_lines(path)
    if header != [str(name) for name in names] or len(lines) != len(names):
        raise RecordError(f"{path}: not the {len(names)} x {len(names)} matrix of the classes in spec.yaml")
    try:
        return _pixel_counts(np.array([[int(cell) for cell in line] for line in lines], dtype=np.int64))
    except (ValueError, OverflowError) as error:
        raise RecordError(f"{path}: not a count of pixels ({_one_line(error)})") from None


# ---------------------------------------------------------------- rows

MEANS_OVER_STEPS = {"imiou": 1, "avg": 0}
"""The means of the mIoU over steps, and the first step that counts (METHODS, Protocol)."""


def _step_columns(spec: Spec, schema: int = SCHEMA) -> list[str]:
    means = ["miou", "imiou"] if schema == 1 else ["miou", *MEANS_OVER_STEPS]
    later = [f"step_{number}" for number in range(1, len(spec["steps"]))]
    return ["step", *means, "old", "new", *later, *(f"{name}_without_background" for name in (*means, "old"))]


def _group_means(spec: Spec, confusion: npt.NDArray[Any]) -> dict[str, float]:
    """The mIoU of every group of classes after one step; NaN for a group not yet learned."""
    known = _known_after(spec)
    base, seen = known[0], len(confusion)
    row = {
        "miou": mean_iou(confusion),
        "old": mean_iou(confusion, range(base)),
        "new": mean_iou(confusion, range(base, seen)),
        "miou_without_background": mean_iou(confusion, range(1, seen)),
        "old_without_background": mean_iou(confusion, range(1, base)),
    }
    for number in range(1, len(known)):
        learned = range(known[number - 1], known[number]) if known[number] <= seen else ()
        row[f"step_{number}"] = mean_iou(confusion, learned)
    return row


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
        row: dict[str, float] = {"step": _step_of(spec, confusion), **_group_means(spec, confusion)}
        rows.append(row)
        row.update(_means_over_steps(rows))
    return [{column: row[column] for column in _step_columns(spec)} for row in rows]


def _steps_text(spec: Spec, confusions: Sequence[npt.NDArray[Any]]) -> str:
    columns = _step_columns(spec)
    lines = [
        [row["step"], *("" if math.isnan(row[column]) else f"{row[column]:.4f}" for column in columns[1:])]
        for row in steps_rows(spec, confusions)
    ]
    return _csv_text([columns, *lines])


def _costs_text(costs: Sequence[Mapping[str, Any]]) -> str:
    columns = list(dict.fromkeys(["step", *(column for cost in costs for column in cost)]))
    lines = [[_cost_cell(cost.get(column)) for column in columns] for cost in costs]
    return _csv_text([columns, *lines])


def _cost_cell(value: Any) -> str:
    # A run that goes on has read its empty cells back as NaN.
    return "" if value is None or math.isnan(value) else str(value)


def _number(cell: str) -> float:
    if not cell:
        return math.nan
    try:
        return int(cell)
    except ValueError:
        return float(cell)


def _read_rows(path: Path) -> list[dict[str, float]]:
    """The rows of a CSV file of numbers, an empty cell being NaN."""
    header, *lines = _csv_lines(path)
    try:
        rows = [dict(zip(header, map(_number, line), strict=True)) for line in lines]
    except ValueError as error:
        raise RecordError(f"{path}: not a number ({_one_line(error)})") from None
    if not all(isinstance(row.get("step"), int) for row in rows):
        raise RecordError(f"{path}: every row must have its step")
    return rows


# ---------------------------------------------------------------- writing


class RunWriter:
    """Writes one run directory: `start`, `add_step` after each step, `finish`."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._spec: Spec = {}
        self._confusions: list[Confusion] = []
        self._costs: list[dict[str, Any]] = []

    def start(self, spec: Spec, next_step: int = 0) -> None:
        """Create the folder, forget what is recorded from `next_step` on, and write `spec.yaml`.

        A run that goes on after its checkpoint of step t passes `next_step=t + 1`; by default it starts anew,
        in a finished directory too. What an older schema recorded of earlier steps is written anew in this one.
        Raises RecordError if the spec lacks something or is of an older schema, or an earlier step was not recorded.
        """
        self._spec = _check_spec(spec, self.path / "spec.yaml")
        if spec["schema"] != SCHEMA:
            raise RecordError(f"{self.path / 'spec.yaml'}: written is schema {SCHEMA}, not {spec['schema']}")
        clear_scraps(self.path)
        names = spec["class_names"]
        sizes = _known_after(spec)[:next_step]
        self._confusions = [_read_confusion(self.path, step, names[:size]) for step, size in enumerate(sizes)]
        costs = _read_rows(self.path / "costs.csv") if next_step else []
        self._costs = [dict(row) for row in costs if row["step"] < next_step]
        if [row["step"] for row in self._costs] != list(range(next_step)):
            raise RecordError(f"{self.path / 'costs.csv'}: a step before step {next_step} is missing")
        (self.path / "confusion").mkdir(parents=True, exist_ok=True)
        # First of all: a directory that is being written must not pass for a finished one.
        (self.path / "done").unlink(missing_ok=True)
        write_spec(self.path, spec)
        self._write_rows()
        for step in range(next_step, len(spec["steps"])):
            _confusion_path(self.path, step).unlink(missing_ok=True)

    def add_step(self, confusion: npt.NDArray[Any], cost: Mapping[str, Any]) -> None:
        """Record one step: its pixels (rows the truth, columns the prediction) and what it cost.

        The matrix's size tells the step. `cost` is a row of `costs.csv`; None becomes an empty cell. Raises
        ValueError if the matrix fits no step, holds anything but counts, or if the steps do not come in
        order.
        """
        counts = _pixel_counts(confusion)
        step = _step_of(self._spec, counts)
        if cost.get("step", step) != step:
            raise ValueError(f"the cost is of step {cost['step']}, the confusion matrix of step {step}")
        if self._confusions and step <= _step_of(self._spec, self._confusions[-1]):
            raise ValueError(f"step {step} comes after a step that is recorded already")
        self._confusions.append(counts)
        self._costs.append({"step": step, **cost})
        header = self._spec["class_names"][: len(counts)]
        write_atomic(_confusion_path(self.path, step), _csv_text([header, *counts.tolist()]))
        self._write_rows()

    def add_pictures(self, kind: str, pictures: Mapping[str, npt.NDArray[np.uint8]]) -> None:
        """Record pictures by image id below `predictions/KIND`: RGB (H, W, 3), or labels (H, W) in learning order.

        `kind` is `images`, `truth` or `step-<t>`.
        """
        folder = self.path / "predictions" / kind
        folder.mkdir(parents=True, exist_ok=True)
        for image_id, pixels in pictures.items():
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, "PNG")
            write_atomic_bytes(folder / f"{image_id}.png", buffer.getvalue())

    def finish(self) -> None:
        """Mark the run as finished; ValueError if its last step was not recorded."""
        if not self._confusions or len(self._confusions[-1]) != _known_after(self._spec)[-1]:
            raise ValueError(f"{self.path}: the last step was not recorded, the run is not finished")
        write_atomic(self.path / "done", f"schema {SCHEMA}\n")

    def digest(self) -> str:
        """Return the SHA-256 of what is recorded of the steps so far: pixels, costs, predictions."""
        matrices = [_csv_text(counts.tolist()) for counts in self._confusions]
        digest = hashlib.sha256("\n".join([*matrices, _costs_text(self._costs)]).encode())
        for counts in self._confusions:
            folder = self.path / "predictions" / f"step-{_step_of(self._spec, counts)}"
            for picture in sorted(folder.glob("[!.]*.png")):
                digest.update(picture.name.encode() + picture.read_bytes())
        return digest.hexdigest()

    def _write_rows(self) -> None:
        write_atomic(self.path / "steps.csv", _steps_text(self._spec, self._confusions))
        write_atomic(self.path / "costs.csv", _costs_text(self._costs))


# ---------------------------------------------------------------- reading


@dataclass(frozen=True)
class Run:
    """A finished run: its folder, its spec and the rows of `steps.csv` (per cent, NaN for an empty cell).

    `steps` has the columns of the present schema whichever the directory's is.
    """

    path: Path
    spec: Spec
    steps: list[dict[str, float]]

    @cached_property
    def confusions(self) -> list[Confusion]:
        """The confusion matrix of every row of `steps`, in pixels; RecordError if one is damaged."""
        known, names = _known_after(self.spec), self.spec["class_names"]
        steps = [int(row["step"]) for row in self.steps]
        return [_read_confusion(self.path, step, names[: known[step]]) for step in steps]

    @cached_property
    def last_confusion(self) -> Confusion:
        """The confusion matrix after the last step, in pixels; RecordError if it is damaged."""
        return _read_confusion(self.path, len(self.spec["steps"]) - 1, self.spec["class_names"])

    @cached_property
    def costs(self) -> list[dict[str, float]]:
        """The rows of `costs.csv`, one per row of `steps`; RecordError if they are damaged."""
        path = self.path / "costs.csv"
        rows = _read_rows(path)
        if [row["step"] for row in rows] != [row["step"] for row in self.steps]:
            raise RecordError(f"{path}: its steps are not those of steps.csv")
        return rows


def _read_steps(path: Path, spec: Spec) -> list[dict[str, float]]:
    rows = _read_rows(path)
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


def _expanded(path: Path) -> Path:
    """Return a path with `~` at its beginning expanded."""
    try:
        return path.expanduser()
    except RuntimeError:
        raise RecordError(f"{path}: there is no such home; give the whole path") from None


def read_run(path: Path) -> Run:
    """Return the finished run in the folder `path`; RecordError, one line naming the file, if it is damaged.

    The confusion matrices must be there but are read only when asked for.
    """
    path = _expanded(path)
    done = _read_text(path / "done")
    spec = _read_spec(path / "spec.yaml")
    if done != f"schema {spec['schema']}\n":
        raise RecordError(f"{path / 'done'}: not that of a finished run of schema {spec['schema']}")
    run = Run(path, spec, _read_steps(path / "steps.csv", spec))
    for row in run.costs:
        matrix = _confusion_path(path, int(row["step"]))
        if not matrix.is_file():
            raise RecordError(f"{matrix}: missing")
    return run


def find_runs(folder: Path) -> list[Run]:
    """Return the finished runs below `folder`, sorted by scenario, strategy, hash and seed.

    The list is empty if the folder is not there. Raises RecordError for a finished run that is damaged.
    """
    runs: list[Run] = []
    for place, folders, files in os.walk(_expanded(folder)):
        if "done" in files:
            runs.append(read_run(Path(place)))
        if "done" in files or "spec.yaml" in files:
            folders.clear()
    return sorted(runs, key=run_order)


@dataclass(frozen=True)
class Unfinished:
    """A run that was asked for and has no end yet: its folder and its spec."""

    path: Path
    spec: Spec


def find_unfinished(folder: Path) -> list[Unfinished]:
    """Return the runs below `folder` that were asked for and are not finished, in the order of `find_runs`.

    One whose spec is damaged is left out: `bench status` tells of it.
    """
    unfinished: list[Unfinished] = []
    for place, folders, files in os.walk(_expanded(folder)):
        folders[:] = [] if "spec.yaml" in files else [name for name in folders if not name.startswith(".")]
        if "spec.yaml" in files and "done" not in files:
            with suppress(RecordError):
                unfinished.append(Unfinished(Path(place), read_spec(Path(place))))
    return sorted(unfinished, key=run_order)


def run_order(run: Run | Unfinished) -> tuple[str, str, str, int, str]:
    """Return the key that sorts runs by scenario, strategy, hash and seed, wherever their files came from."""
    spec = run.spec
    return spec["scenario"], spec["strategy"], spec["hash"], spec["seed"], str(run.path)
