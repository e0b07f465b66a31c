"""What an evaluation counts near contours, before any convention, and the boundary IoU that conventions make of it.

(Cheng et al., Boundary IoU, CVPR 2021: of each class the pixels near the contours of its truth and of its prediction
alone.) `contours/step-<t>.csv` has a line for each of the outputs and one for the classes that are not known yet or
never learned, over the images with a class known by then (`known`) and over the `others`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from reports.counts import Counts, pixel_counts
from reports.files import RecordError, csv_lines, csv_text, one_line

COLUMNS = ("hits", "truth", "predicted_on_label_0", "predicted_on_known", "predicted_on_future")
"""Pixels on contours of truth and prediction and predicted right, on those of the truth, on those of the prediction.

The latter are apart by what is true there: the data's label 0, a known class, or a class that is not known yet or never
learned; of these `hits` are the pixels predicted as the background.
"""
_IMAGES = ("known", "others")


@dataclass(frozen=True)
class StepContours:
    """Pixels near contours after a step, int64 (outputs + 1, 5): `COLUMNS`, the last row that of future classes."""

    known: Counts
    others: Counts

    def __post_init__(self) -> None:
        for name in _IMAGES:
            object.__setattr__(self, name, pixel_counts(getattr(self, name)))
        if self.known.shape != self.others.shape or self.known.shape[1:] != (len(COLUMNS),):
            raise ValueError(f"contours of shape {self.known.shape} and {self.others.shape}, not (outputs + 1, 5)")


def contour_pixels(counts: npt.NDArray[Any]) -> Counts:
    """Return the rows of one part of `StepContours` from pixels apart by contours (2, 2, classes + 2, outputs).

    The axes are off and on the truth's contours, and the prediction's; the label's row, with that of classes never
    learned and that of void at the end; the prediction.
    """
    outputs = counts.shape[-1]
    both, truth, predicted = counts[1, 1], counts[1].sum(axis=0), counts[:, 1].sum(axis=0)
    rows = np.zeros((outputs + 1, len(COLUMNS)), dtype=np.int64)
    rows[:outputs, 0] = both.diagonal()
    rows[:outputs, 1] = truth[:outputs].sum(axis=1)
    rows[:outputs, 2] = predicted[0]
    rows[:outputs, 3] = predicted[1:outputs].sum(axis=0)
    rows[:outputs, 4] = predicted[outputs:-1].sum(axis=0)
    rows[outputs, :2] = both[outputs:-1, 0].sum(), truth[outputs:-1].sum()
    return rows


def boundary_iou(contours: StepContours, conventions: Mapping[str, Any]) -> npt.NDArray[np.float64]:
    """Return every class's boundary IoU in [0, 1], (outputs,); NaN is a class that no mean counts.

    The contours are those of the annotation with all its classes, whatever future ones count as: as the background
    their pixels are its own, ignored they and label 0 as void are left out. See `reports.metrics.class_iou` for which
    classes a mean counts.
    """
    rows = contours.known + contours.others if conventions.get("test_images") == "all" else contours.known
    counted, future = rows[:-1].copy(), rows[-1]
    if conventions.get("label_0") == "void":
        counted[0, :2] = counted[:, 2] = 0
    if conventions.get("future_classes") == "ignore":
        counted[:, 4] = 0
    else:
        counted[0, :2] += future[:2]
    hits, truth, predicted = counted[:, 0], counted[:, 1], counted[:, 2:].sum(axis=1)
    rule = conventions.get("mean_classes", "present")
    union = truth + predicted - hits
    iou = np.full(len(counted), 0.0 if rule == "all" else np.nan)
    np.divide(hits, union, out=iou, where=truth > 0 if rule == "truth" else union > 0)
    return iou


# ---------------------------------------------------------------- files


def contours_path(run: Path, step: int) -> Path:
    """Return the file that a run directory has for the contours of a step."""
    return run / "contours" / f"step-{step}.csv"


def contours_text(contours: StepContours, names: Sequence[str]) -> str:
    """Return the content of `contours/step-<t>.csv`; `names` are those of the outputs."""
    parts = {"known": contours.known, "others": contours.others}
    lines = [
        [images, name, *row]
        for images in _IMAGES
        for name, row in zip([*names, ""], parts[images].tolist(), strict=True)
    ]
    return csv_text([["images", "class", *COLUMNS], *lines])


def read_contours(run: Path, step: int, names: Sequence[str]) -> StepContours | None:
    """Return the contours after a step, None for a run made before there were any; `names` are those of the outputs.

    Raises RecordError if they are damaged.
    """
    path = contours_path(run, step)
    if not path.is_file():
        return None
    header, *lines = csv_lines(path)
    expected = [[images, str(name)] for images in _IMAGES for name in (*names, "")]
    if header != ["images", "class", *COLUMNS] or [line[:2] for line in lines] != expected:
        raise RecordError(f"{path}: not the contours of the {len(names)} classes in spec.yaml")
    try:
        rows = np.array([[int(cell) for cell in line[2:]] for line in lines], dtype=np.int64)
        return StepContours(rows[: len(names) + 1], rows[len(names) + 1 :])
    except (ValueError, OverflowError) as error:
        raise RecordError(f"{path}: not a count of pixels ({one_line(error)})") from None
