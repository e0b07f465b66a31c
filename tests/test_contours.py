"""Pixels near contours and the boundary IoU, against definitions that walk over every pixel."""

from __future__ import annotations

import math
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from reports.contours import (
    StepContours,
    boundary_iou,
    contour_pixels,
    contours_path,
    contours_text,
    read_contours,
)
from reports.files import RecordError
from strategies.learning.contours import contour_width, on_contours
from strategies.learning.evaluation import pixel_counts

VOID = 255
CLASSES, OUTPUTS = 6, 4
"""Labels 0 to 3 are known, 4 and 5 future ones, 6 those of classes that no step learns."""


def blocks(seed: int, labels: list[int], height: int = 23, width: int = 31) -> np.ndarray:
    """Random labels in blocks of four pixels."""
    small = np.random.default_rng(seed).choice(labels, (height // 4 + 1, width // 4 + 1))
    return small.repeat(4, 0).repeat(4, 1)[:height, :width]


def slow_contour(labels: np.ndarray, width: int) -> np.ndarray:
    height, across = labels.shape
    near = np.zeros(labels.shape, dtype=bool)
    for y, x in product(range(height), range(across)):
        for i, j in product(range(y - width, y + width + 1), range(x - width, x + width + 1)):
            outside = not (0 <= i < height and 0 <= j < across)
            near[y, x] |= outside or labels[i, j] != labels[y, x]
    return near


@pytest.mark.parametrize("width", [1, 2, 5, 11, 12])
def test_a_contour_is_what_is_near_another_label_or_the_edge(width: int) -> None:
    labels = np.stack([blocks(0, [0, 3, VOID]), blocks(1, [7, 7, 7, 8]), np.full((23, 31), 9)])
    found = on_contours(torch.from_numpy(labels), width)
    assert found.dtype == torch.bool and bool(found[2].all()) is (width == 12)
    np.testing.assert_array_equal(found, [slow_contour(one, width) for one in labels])


def test_a_contour_is_two_per_cent_of_the_diagonal_wide() -> None:
    assert contour_width(160, 160) == 5 and contour_width(375, 500) == 12 and contour_width(8, 8) == 1


def counted(seeds: range, labels: list[int]) -> tuple[list[tuple[np.ndarray, np.ndarray]], np.ndarray]:
    """Pairs of truth and prediction, and their pixels."""
    pairs = [(blocks(seed, labels), blocks(100 + seed, [0, 1, 2, 3])) for seed in seeds]
    counts = sum(
        pixel_counts(torch.from_numpy(found)[None], torch.from_numpy(truth)[None], CLASSES, OUTPUTS)
        for truth, found in pairs
    )
    assert isinstance(counts, torch.Tensor)
    return pairs, counts.numpy()


def slow_boundary_iou(pairs: list[tuple[np.ndarray, np.ndarray]], label_0: str, future: str, rule: str) -> list[float]:
    hits, true, found = np.zeros(OUTPUTS), np.zeros(OUTPUTS), np.zeros(OUTPUTS)
    for truth, prediction in pairs:
        width = contour_width(*truth.shape)
        on_truth, on_prediction = slow_contour(truth, width), slow_contour(prediction, width)
        for place in np.ndindex(truth.shape):
            t, p = truth[place], prediction[place]
            if t == VOID or (t == 0 and label_0 == "void") or (t >= OUTPUTS and future == "ignore"):
                continue
            t = 0 if t >= OUTPUTS else t
            true[t] += on_truth[place]
            found[p] += on_prediction[place]
            hits[t] += t == p and on_truth[place] and on_prediction[place]
    union = true + found - hits
    there = {"present": union > 0, "truth": true > 0, "all": union > -1}[rule]
    return [float(hits[c] / max(union[c], 1)) if there[c] else math.nan for c in range(OUTPUTS)]


def test_the_boundary_iou_by_each_convention_is_that_of_a_walk_over_the_pixels() -> None:
    shown, known = counted(range(3), [0, 1, 3, 4, 6, VOID])  # class 2 has no pixel
    rest, others = counted(range(3, 5), [0, 5, 6, VOID])
    contours = StepContours(contour_pixels(known), contour_pixels(others))
    seen = set()
    for images, label_0, future, rule in product(
        ("known", "all"), ("background", "void"), ("background", "ignore"), ("present", "truth", "all")
    ):
        conventions = {"test_images": images, "label_0": label_0, "future_classes": future, "mean_classes": rule}
        expected = slow_boundary_iou(shown + rest if images == "all" else shown, label_0, future, rule)
        np.testing.assert_allclose(boundary_iou(contours, conventions), expected, rtol=1e-12)
        seen.add(tuple(expected))
    assert len(seen) >= 8


def test_contours_are_read_as_they_were_written_and_damage_is_told(tmp_path: Path) -> None:
    contours = StepContours(*(contour_pixels(counted(range(n), [0, 1, 4])[1]) for n in (1, 2)))
    names = ["background", "a, b", "c", "d"]
    path = contours_path(tmp_path, 2)
    assert read_contours(tmp_path, 2, names) is None
    path.parent.mkdir()
    path.write_text(contours_text(contours, names), encoding="utf-8")
    read = read_contours(tmp_path, 2, names)
    assert read is not None
    np.testing.assert_array_equal(read.known, contours.known)
    np.testing.assert_array_equal(read.others, contours.others)
    with pytest.raises(RecordError, match="not the contours of the 3 classes"):
        read_contours(tmp_path, 2, names[:3])
    path.write_text(path.read_text(encoding="utf-8").replace(",0\n", ",-1\n", 1), encoding="utf-8")
    with pytest.raises(RecordError, match="not a count of pixels"):
        read_contours(tmp_path, 2, names)
