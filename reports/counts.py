"""What an evaluation counts, before any convention: a row for every class, known by then or not, and for what is none.

`counts/step-<t>.csv` has a line for each such row: `images` (`known` or `others`), `truth` (the label in learning
order, `unlearned` for classes that no step learns, `void`), and a column for each output, headed by its class. At 151
classes and 2,000 photographs it is smaller than 200 kB.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from reports.files import RecordError, csv_lines, csv_text, one_line

Counts = npt.NDArray[np.int64]
_IMAGES = ("known", "others")


@dataclass(frozen=True)
class StepCounts:
    """Pixels by truth (row) and prediction (column, one for each output), int64 (classes + 2, outputs).

    The first row is the data's own label 0, then come all classes of the scenario in learning order, future ones
    too, then one of all classes that no step learns; the last row is void. `known` is of the images with a class known
    by then, `others` of all other ones, in which no pixel is of a known class. Raises ValueError for anything else.
    """

    known: Counts
    others: Counts

    def __post_init__(self) -> None:
        for name in _IMAGES:
            object.__setattr__(self, name, pixel_counts(getattr(self, name)))
        rows, outputs = self.known.shape if self.known.ndim == 2 else (0, 0)
        if self.known.shape != self.others.shape or not 0 < outputs <= rows - 2:
            raise ValueError(f"counts of shape {self.known.shape} and {self.others.shape}, not (classes + 2, outputs)")
        if self.others[1:outputs].any():
            raise ValueError("a known class stands in an image that is said to show none")

    @property
    def outputs(self) -> int:
        """The number of classes known by then, the background included."""
        return len(self.known[0])


def pixel_counts(confusion: npt.NDArray[Any]) -> Counts:
    """Return a matrix of pixel counts as int64; ValueError for anything else."""
    counts = np.asarray(confusion)
    if counts.dtype.kind not in "iu" or (counts < 0).any():
        raise ValueError(f"a confusion matrix holds pixel counts, integers from 0 (its dtype is {counts.dtype})")
    return counts.astype(np.int64)


def folded(counts: StepCounts, future_classes: str, test_images: str) -> Counts:
    """Return the confusion matrix (outputs, outputs) of the conventions.

    Pixels of `future_classes`, unlearned ones too, are of the `background`, or left out (`ignore`); `test_images` are
    the `known` or `all`.
    """
    rows = counts.known + counts.others if test_images == "all" else counts.known
    confusion = rows[: counts.outputs].copy()
    if future_classes == "background":
        confusion[0] += rows[counts.outputs : -1].sum(axis=0)
    return confusion


# ---------------------------------------------------------------- files


def counts_path(run: Path, step: int) -> Path:
    """Return the file that a run directory has for the counts of a step."""
    return run / "counts" / f"step-{step}.csv"


def counts_text(counts: StepCounts, names: Sequence[str]) -> str:
    """Return the content of `counts/step-<t>.csv`; `names` are those of the outputs."""
    places = _places(len(counts.known) - 2, counts.outputs)
    rows = {"known": counts.known, "others": counts.others}
    lines = [[images, truth, *rows[images][place].tolist()] for images, truth, place in places]
    return csv_text([["images", "truth", *names], *lines])


def read_counts(run: Path, step: int, names: Sequence[str], outputs: int) -> StepCounts:
    """Return the counts after a step; `names` are those of all classes. RecordError if they are missing or damaged."""
    path = counts_path(run, step)
    header, *lines = csv_lines(path)
    places = _places(len(names), outputs)
    if header != ["images", "truth", *map(str, names[:outputs])] or [line[:2] for line in lines] != [
        [images, truth] for images, truth, _ in places
    ]:
        raise RecordError(f"{path}: not the counts of {outputs} outputs on the {len(names)} classes in spec.yaml")
    rows = {images: np.zeros((len(names) + 2, outputs), dtype=np.int64) for images in _IMAGES}
    try:
        for (images, _, place), line in zip(places, lines, strict=True):
            rows[images][place] = [int(cell) for cell in line[2:]]
        return StepCounts(**rows)
    except (ValueError, OverflowError) as error:
        raise RecordError(f"{path}: not a count of pixels ({one_line(error)})") from None


def _places(classes: int, outputs: int) -> list[tuple[str, str, int]]:
    """The lines of a file: whose images, the truth, and its row; of the others those of known classes are left out."""
    truths = [*map(str, range(classes)), "unlearned", "void"]
    return [
        (images, truth, row)
        for images in _IMAGES
        for row, truth in enumerate(truths)
        if images == "known" or not 0 < row < outputs
    ]
