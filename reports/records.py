"""What a run directory holds, and reading it back whole: `find_runs`. `run_writer.py` writes it step by step.

    OUT/<scenario>/<strategy label>/<hash>-seed<k>/
        spec.yaml               everything resolved: what determines the run
        confusion/step-<t>.csv  pixels, rows the truth, columns the prediction, header the class names
        counts/step-<t>.csv     the same before any convention: a row for every class, future ones too, and for void
        steps.csv               a row per step: mIoU of all classes and of the groups, in per cent
        costs.csv               a row per step: batches, passes, seconds
        checkpoint/             while it is unfinished: what it goes on from
        claim                   while a process works on it: which one
        log.txt                 what happened when, appended to
        error.txt               why it failed, until it is started again
        logs/                   of the loggers asked for; nothing here reads them
        predictions/            of a few images: images/ID.png, truth/ID.png, step-<t>/ID.png (labels in learning order)
        networks/               those that are kept: step-<t>.safetensors
        evaluations/            of these networks by other settings: <hash>/ is as a run's directory
        done                    written last; a directory without it is unfinished

Equal runs give equal `spec.yaml`, `steps.csv` and confusion matrices, byte for byte; times are in `costs.csv`
alone.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np

from reports.contours import StepContours, read_contours
from reports.counts import StepCounts, counts_path, read_counts
from reports.files import RecordError, read_rows, read_text
from reports.spec import Spec, known_after, read_spec
from reports.steps import Confusion, confusion_path, own_confusion, read_confusion, read_steps

_AGAIN = "`bench run --overwrite always` with its settings makes it again"


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
        known, names = known_after(self.spec), self.spec["class_names"]
        steps = [int(row["step"]) for row in self.steps]
        return [read_confusion(self.path, step, names[: known[step]]) for step in steps]

    @cached_property
    def counts(self) -> list[StepCounts]:
        """The complete counts of every row of `steps`.

        Raises RecordError if they are damaged, do not give the run's own confusion matrix, or are not there: runs made
        before there were any have their own convention's numbers alone.
        """
        return [self._counts(int(row["step"]), own) for row, own in zip(self.steps, self.confusions, strict=True)]

    def _counts(self, step: int, own: Confusion) -> StepCounts:
        path = counts_path(self.path, step)
        if not path.is_file():
            raise RecordError(f"{path}: missing, the run has its own convention's numbers alone; {_AGAIN}")
        counts = read_counts(self.path, step, self.spec["class_names"], len(own))
        if not np.array_equal(own_confusion(self.spec, counts), own):
            raise RecordError(f"{path}: does not give {confusion_path(self.path, step).name} of `confusion`")
        return counts

    @cached_property
    def contours(self) -> list[StepContours | None]:
        """The pixels near contours of every row of `steps`, None in a run made before there were any.

        Raises RecordError if they are damaged.
        """
        known, names = known_after(self.spec), self.spec["class_names"]
        steps = [int(row["step"]) for row in self.steps]
        return [read_contours(self.path, step, names[: known[step]]) for step in steps]

    @cached_property
    def last_confusion(self) -> Confusion:
        """The confusion matrix after the last step, in pixels; RecordError if it is damaged."""
        return read_confusion(self.path, len(self.spec["steps"]) - 1, self.spec["class_names"])

    @cached_property
    def costs(self) -> list[dict[str, float]]:
        """The rows of `costs.csv`, one per row of `steps`; RecordError if they are damaged."""
        path = self.path / "costs.csv"
        rows = read_rows(path)
        if [row["step"] for row in rows] != [row["step"] for row in self.steps]:
            raise RecordError(f"{path}: its steps are not those of steps.csv")
        return rows


@dataclass(frozen=True)
class Unfinished:
    """A run that was asked for and has no end yet: its folder and its spec."""

    path: Path
    spec: Spec


AnyRun = TypeVar("AnyRun", Run, Unfinished)


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
    done = read_text(path / "done")
    spec = read_spec(path)
    if done != f"schema {spec['schema']}\n":
        raise RecordError(f"{path / 'done'}: not that of a finished run of schema {spec['schema']}")
    run = Run(path, spec, read_steps(path / "steps.csv", spec))
    for row in run.costs:
        matrix = confusion_path(path, int(row["step"]))
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


def scenarios_of(runs: Sequence[Run]) -> list[str]:
    """Return the names of the runs' scenarios, sorted."""
    return sorted({run.spec["scenario"] for run in runs})


def runs_on(scenario: str, runs: Sequence[AnyRun]) -> list[AnyRun]:
    """Return the runs of a scenario."""
    return [run for run in runs if run.spec["scenario"] == scenario]
