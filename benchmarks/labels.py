"""Label constants and the annotation a step carries, shared by every floor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np

BACKGROUND = 0
"""Label of the background and of every unlabelled pixel."""

VOID = 255
"""Label of pixels that no loss, statistic or metric counts."""

UNKNOWN = 254
"""Label of a training image's salient pixels that are of no class its step annotates, for methods that ask for it."""

SaliencySource = Literal["maps", "spectral", "none"]
"""What tells the unknown class from the background: saliency maps, the spectral residual, or nothing, then all of the
background is unknown (`benchmarks.saliency`)."""


def label_table(positions: Mapping[int, int], others: int = BACKGROUND) -> np.ndarray:
    """Return the look-up table that turns a raw label map into an annotation.

    `positions` maps raw class ids to the label they get, `others` is the label of every class that is
    not in it. Background and void keep theirs. The result is uint8 of shape (256,); apply it by
    indexing: `table[label_map]`.
    """
    table = np.full(256, others, dtype=np.uint8)
    table[BACKGROUND] = BACKGROUND
    table[VOID] = VOID
    for raw, position in positions.items():
        table[raw] = position
    return table
