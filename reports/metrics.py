"""Intersection over union from a confusion matrix (METHODS, Protocol)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt


def class_iou(confusion: npt.NDArray[Any], mean_classes: str = "present") -> npt.NDArray[np.float64]:
    """Return every class's intersection over union, in [0, 1].

    `confusion` is K x K, rows the truth, columns the prediction, in pixels. The result has shape (K,); NaN is a class
    that no mean counts: of `present` ones one without a pixel of truth and without one of prediction, of those in the
    `truth` one without a pixel there; of `all` none, an absent one is 0.
    """
    counts = np.asarray(confusion, dtype=np.float64)
    hits = np.diag(counts)
    union = counts.sum(axis=0) + counts.sum(axis=1) - hits
    iou = np.full(len(counts), 0.0 if mean_classes == "all" else np.nan)
    np.divide(hits, union, out=iou, where=counts.sum(axis=1) > 0 if mean_classes == "truth" else union > 0)
    return iou


def mean_iou(confusion: npt.NDArray[Any], classes: Sequence[int] | None = None, mean_classes: str = "present") -> float:
    """Return the mean of the classes' IoU in per cent, NaN if no class counts.

    `classes` are the positions that are averaged (all by default); each one's IoU comes from the whole
    matrix, so a pixel mistaken for a class outside the group still costs. Which ones count at all: see `class_iou`.
    """
    iou = class_iou(confusion, mean_classes)
    chosen = iou if classes is None else iou[np.asarray(classes, dtype=np.intp)]
    return 100.0 * mean_of_present(chosen)


def mean_of_present(values: npt.NDArray[np.float64]) -> float:
    """Return the mean of the values that are not NaN, NaN without one."""
    present = values[~np.isnan(values)]
    return float(present.mean()) if present.size else float("nan")


def harmonic_mean(old: float, new: float) -> float:
    """Return hIoU, 2 old new / (old + new): 0 where both are 0, NaN where one is NaN (DKD's headline measure)."""
    return 2 * old * new / (old + new) if old + new else 0.0


def pixel_accuracy(confusion: npt.NDArray[Any]) -> float:
    """Return the share of the pixels that are predicted right, in per cent; NaN without a pixel."""
    total = int(np.sum(confusion))
    return 100.0 * int(np.trace(confusion)) / total if total else float("nan")


def frequency_weighted_iou(confusion: npt.NDArray[Any]) -> float:
    """Return the mean of the classes' IoU weighted by their share of the pixels, in per cent; NaN without a pixel.

    (Long et al., Fully Convolutional Networks for Semantic Segmentation, CVPR 2015, Sec. 5.)
    """
    true = np.sum(confusion, axis=1, dtype=np.float64)
    if not true.sum():
        return float("nan")
    return 100.0 * float(np.nansum(class_iou(confusion) * true) / true.sum())
