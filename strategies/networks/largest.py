"""The class of every pixel from scores at a network's stride: the largest after scaling, but no scores of that size."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

_AT_ONCE = 1_000_000
"""Scores that are interpolated at a time."""
MANY = 0.45
"""Where at more of the pixels the cells do not agree, scaling all scores takes less time."""


def largest_scaled(scores: Tensor, size: Sequence[int]) -> Tensor:
    """Return int64 (B, H, W): the class of the largest of scores (B, C, h, w) that are scaled bilinearly to `size`.

    A scaled score lies between those of the four cells around a pixel: where these agree on the largest, it is that.
    Elsewhere, along contours, the scores are interpolated, as `F.interpolate` does with `align_corners=False`.
    """
    rows, columns = (_Places(of, into, scores) for of, into in zip(scores.shape[2:], size, strict=True))
    best = scores.max(1).indices
    labels = best[:, rows.first[:, None], columns.first]
    unsure = torch.zeros_like(labels, dtype=torch.bool)
    for row, column in ((rows.first, columns.second), (rows.second, columns.first), (rows.second, columns.second)):
        unsure |= best[:, row[:, None], column] != labels
    if unsure.sum() > MANY * unsure.numel():
        return F.interpolate(scores, size=tuple(size), mode="bilinear", align_corners=False).max(1).indices
    for image in range(len(scores)):
        _interpolate(scores[image].permute(1, 2, 0), rows, columns, unsure[image], labels[image])
    return labels


def _interpolate(cells: Tensor, rows: _Places, columns: _Places, which: Tensor, labels: Tensor) -> None:
    """Put the classes of some pixels, `which` bool (H, W), into labels (H, W), from cells (h, w, C)."""
    for some in which.nonzero().split(max(1, _AT_ONCE // cells.shape[2])):
        y, x = some.unbind(1)
        left, right, share = columns.first[x], columns.second[x], columns.share[x, None]
        upper, lower = (
            torch.lerp(cells[row, left], cells[row, right], share) for row in (rows.first[y], rows.second[y])
        )
        labels[y, x] = torch.lerp(upper, lower, rows.share[y, None]).max(1).indices


class _Places:
    """Along one axis, the two cells around each pixel's centre, and the second's share."""

    def __init__(self, cells: int, pixels: int, like: Tensor) -> None:
        places = torch.arange(pixels, dtype=torch.float64, device=like.device)
        centres = ((places + 0.5) * (cells / pixels) - 0.5).clamp(min=0)
        self.first = centres.long()
        self.second = (self.first + 1).clamp(max=cells - 1)
        self.share = (centres - self.first).to(like)
