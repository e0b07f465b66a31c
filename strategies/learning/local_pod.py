"""Local POD, the distillation of maps by the means of their windows' rows and columns: PLOP, CVPR 2021, Sec. 3.2.

Shapes: maps float (B, C, h, w).
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from torch.linalg import vector_norm

SCALES = (1, 2, 4)


def local_pod(maps: Tensor, old_maps: Tensor) -> Tensor:
    """Return the mean over images of |Phi(maps^2) - Phi(old_maps^2)|, the L2 norm over all of an image.

    Phi are, for s of `SCALES` and each of s x s windows of k x k cells, k = floor(w / s), the means over the window's
    columns (C x k numbers) and over its rows (C x k), joined without weights. As in PLOP's code k follows the width
    along both axes: what is left over to the right and below is in no window, and a window that the map's height cuts
    off has the rows that are there. A scale above the width has no windows.
    """
    across, down, in_rows, in_columns = _windows(*maps.shape[2:], maps.device, maps.dtype)
    difference = maps.square() - old_maps.square()  # Phi is linear
    over_columns = difference @ across * in_rows
    over_rows = down @ difference * in_columns
    norms = torch.stack([vector_norm(over_columns, dim=(1, 2, 3)), vector_norm(over_rows, dim=(1, 2, 3))])
    of_images: Tensor = vector_norm(norms, dim=0)
    return of_images.mean()


def with_new_as_background(logits: Tensor, known: int) -> Tensor:
    """Return logits (B, known, h, w) of the first `known` outputs; the others are added to the background's."""
    background = logits[:, :1] + logits[:, known:].sum(1, keepdim=True)
    return torch.cat([background, logits[:, 1:known]], 1)


@lru_cache(maxsize=64)
def _windows(height: int, width: int, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """What columns (width, windows) and rows (windows, height) of a map count for in its windows' means along either
    axis, and which rows (height, windows) and columns (windows, width) these windows have.
    """
    across, down, in_rows, in_columns = [], [], [], []
    for scale in SCALES:
        side = width // scale
        for number in range(scale if side else 0):
            columns, rows = _cells(width, number * side, side), _cells(height, number * side, side)
            across.append(columns / side)
            down.append(rows / rows.sum().clamp(min=1))
            in_rows.append(_cells(height, 0, scale * side))
            in_columns.append(_cells(width, 0, scale * side))
    stacks = (torch.stack(each, axis) for each, axis in ((across, 1), (down, 0), (in_rows, 1), (in_columns, 0)))
    return tuple(each.to(device, dtype) for each in stacks)


def _cells(length: int, first: int, count: int) -> Tensor:
    """1 for `count` cells of a line from the first on, as far as it goes; 0 for the others."""
    cells = torch.zeros(length, dtype=torch.float64)
    cells[first : first + count] = 1
    return cells
