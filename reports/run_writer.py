"""Writing a run directory, step by step."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from reports.atomic import clear_scraps, write_atomic, write_atomic_bytes
from reports.contours import StepContours, contours_path, contours_text
from reports.counts import StepCounts, counts_path, counts_text, pixel_counts, read_counts
from reports.files import RecordError, csv_text, read_rows
from reports.spec import SCHEMA, Spec, check_spec, known_after, read_spec, write_spec
from reports.steps import (
    Confusion,
    confusion_path,
    costs_text,
    own_confusion,
    read_confusion,
    same_pixels,
    step_of,
    steps_text,
)


class RunWriter:
    """Writes one run directory: `start`, `add_step` after each step, `finish`."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._spec: Spec = {}
        self._confusions: list[Confusion] = []
        self._counts: list[StepCounts | None] = []
        self._costs: list[dict[str, Any]] = []

    def start(self, spec: Spec, next_step: int = 0) -> None:
        """Create the folder, forget what is recorded from `next_step` on, and write `spec.yaml`.

        A run that goes on after its checkpoint of step t passes `next_step=t + 1`; by default it starts anew,
        in a finished directory too. What an older schema recorded of earlier steps is written anew in this one.
        Raises RecordError if the spec lacks something or is of an older schema, or an earlier step was not recorded,
        or by other conventions.
        """
        self._spec = check_spec(spec, self.path / "spec.yaml")
        if spec["schema"] != SCHEMA:
            raise RecordError(f"{self.path / 'spec.yaml'}: written is schema {SCHEMA}, not {spec['schema']}")
        clear_scraps(self.path)
        names = spec["class_names"]
        sizes = known_after(spec)[:next_step]
        self._counts = [
            read_counts(self.path, step, names, size) if counts_path(self.path, step).is_file() else None
            for step, size in enumerate(sizes)
        ]
        self._confusions = [read_confusion(self.path, step, names[:size]) for step, size in enumerate(sizes)]
        if next_step and not same_pixels(read_spec(self.path), spec):
            raise RecordError(f"{self.path}: its steps so far are recorded by other conventions")
        costs = read_rows(self.path / "costs.csv") if next_step else []
        self._costs = [dict(row) for row in costs if row["step"] < next_step]
        if [row["step"] for row in self._costs] != list(range(next_step)):
            raise RecordError(f"{self.path / 'costs.csv'}: a step before step {next_step} is missing")
        for folder in ("confusion", "counts", "contours"):
            (self.path / folder).mkdir(parents=True, exist_ok=True)
        # First of all: a directory that is being written must not pass for a finished one.
        (self.path / "done").unlink(missing_ok=True)
        write_spec(self.path, spec)
        self._write_rows()
        for step in range(next_step, len(spec["steps"])):
            confusion_path(self.path, step).unlink(missing_ok=True)
            counts_path(self.path, step).unlink(missing_ok=True)
            contours_path(self.path, step).unlink(missing_ok=True)

    def add_step(
        self,
        counted: StepCounts | npt.NDArray[Any],
        cost: Mapping[str, Any],
        contours: StepContours | None = None,
    ) -> None:
        """Record one step: its pixels (rows the truth, columns the prediction) and what it cost.

        From complete counts the confusion matrix is made by the run's own conventions; of a matrix alone no other
        convention's numbers can be told later. The number of columns tells the step. `cost` is a row of `costs.csv`;
        None becomes an empty cell. From `contours` there is a boundary IoU. Raises ValueError if the columns fit no
        step, for anything but counts, or if the steps do not come in order.
        """
        if isinstance(counted, StepCounts):
            complete, counts = counted, own_confusion(self._spec, counted)
        else:
            complete, counts = None, pixel_counts(counted)
        step = step_of(self._spec, counts)
        if cost.get("step", step) != step:
            raise ValueError(f"the cost is of step {cost['step']}, the confusion matrix of step {step}")
        if self._confusions and step <= step_of(self._spec, self._confusions[-1]):
            raise ValueError(f"step {step} comes after a step that is recorded already")
        self._confusions.append(counts)
        self._counts.append(complete)
        self._costs.append({"step": step, **cost})
        header = self._spec["class_names"][: len(counts)]
        if complete:
            write_atomic(counts_path(self.path, step), counts_text(complete, header))
        if contours:
            write_atomic(contours_path(self.path, step), contours_text(contours, header))
        write_atomic(confusion_path(self.path, step), csv_text([header, *counts.tolist()]))
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
        if not self._confusions or len(self._confusions[-1]) != known_after(self._spec)[-1]:
            raise ValueError(f"{self.path}: the last step was not recorded, the run is not finished")
        write_atomic(self.path / "done", f"schema {SCHEMA}\n")

    def digest(self) -> str:
        """Return the SHA-256 of what is recorded of the steps so far: pixels, contours, costs, predictions."""
        matrices = [csv_text(counts.tolist()) for counts in self._confusions]
        matrices += [counts_text(counts, ()) for counts in self._counts if counts]
        digest = hashlib.sha256("\n".join([*matrices, costs_text(self._costs)]).encode())
        for counts in self._confusions:
            step = step_of(self._spec, counts)
            pictures = sorted((self.path / "predictions" / f"step-{step}").glob("[!.]*.png"))
            contours = contours_path(self.path, step)
            for file in [*pictures, *([contours] if contours.is_file() else ())]:
                digest.update(file.name.encode() + file.read_bytes())
        return digest.hexdigest()

    def _write_rows(self) -> None:
        write_atomic(self.path / "steps.csv", steps_text(self._spec, self._confusions))
        write_atomic(self.path / "costs.csv", costs_text(self._costs))
