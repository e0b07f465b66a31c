"""Pixels near contours of a label map, for the boundary IoU (Cheng et al., Boundary IoU, CVPR 2021)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import pad

WIDTH = 0.02
"""Of a contour, as a share of the image's diagonal: the published code's `dilation_ratio`."""


def contour_width(height: int, width: int) -> int:
    """Return the pixels that a contour of an image is wide on either side, at least one."""
    return max(1, round(WIDTH * math.hypot(height, width)))


def on_contours(labels: Tensor, width: int) -> Tensor:
    """Return bool (B, H, W): the pixels of labels (B, H, W; 0 to 255) at most `width` from another label or the edge.

    Distance is the larger of rows and columns, and outside the image is another label: these are the pixels that an
    erosion by a square of 2 width + 1 takes from their class's mask.
    """
    if min(labels.shape[1:]) <= 2 * width:
        return torch.ones_like(labels, dtype=torch.bool)
    small = labels.to(torch.uint8)
    highest, lowest = (_over_squares(small, 2 * width + 1, extreme) for extreme in (torch.maximum, torch.minimum))
    return ~pad(highest == lowest, (width,) * 4)


def _over_squares(values: Tensor, side: int, extreme: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """The extremes over all squares within the image, (B, H - side + 1, W - side + 1)."""
    for axis in (1, 2):
        covered = 1
        while covered < side:
            shift = min(covered, side - covered)
            rest = values.shape[axis] - shift
            values = extreme(values.narrow(axis, 0, rest), values.narrow(axis, shift, rest))
            covered += shift
    return values
