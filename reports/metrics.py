"""Intersection over union from a confusion matrix (METHODS, Protocol)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt


def class_iou(confusion: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return every class's intersection over union, in [0, 1].

    `confusion` is K x K, rows the truth, columns the prediction, in pixels. The result has shape (K,); a
    class without a pixel of truth and without one of prediction is NaN.
    """
    counts = np.asarray(confusion, dtype=np.float64)
    hits = np.diag(counts)
    union = counts.sum(axis=0) + counts.sum(axis=1) - hits
    iou = np.full(len(counts), np.nan)
    np.divide(hits, union, out=iou, where=union > 0)
    return iou


def mean_iou(confusion: npt.NDArray[Any], classes: Sequence[int] | None = None) -> float:
    """Return the mean of the classes' IoU in per cent, NaN if no class counts.

    `classes` are the positions that are averaged (all by default); each one's IoU comes from the whole
    matrix, so a pixel mistaken for a class outside the group still costs. Absent classes (see `class_iou`)
    are left out.
    """
    iou = class_iou(confusion)
    chosen = iou if classes is None else iou[np.asarray(classes, dtype=np.intp)]
    present = chosen[~np.isnan(chosen)]
    return 100.0 * float(present.mean()) if present.size else float("nan")
