"""Several devices that train one network together: what one of them does, and what all have made of it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from benchmarks.labels import VOID


class Devices:
    """Those that share each batch: here one. Subclasses (`bench.train.ranked`) tell of several."""

    number = 0
    size = 1

    def average(self, network: nn.Module, loss: Tensor, weight: int | Tensor) -> Tensor:
        """Make each gradient, and the loss, the mean over the devices, this one's with a weight; return the loss.

        The weight is the number of images or pixels that this device's `loss` is a mean over.
        """
        return loss

    def total(self, counts: Tensor) -> Tensor:
        """Return the sum of counts on this device over the devices."""
        return counts

    def pooled(self, means: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        """Return means, each over so many values, and the counts, over the values of all devices."""
        return means, counts


def share_of(batch: Sequence[Tensor], number: int, size: int) -> list[Tensor]:
    """Return the images number, number + size, ... of a batch [images, labels, steps, indices].

    Where there are none it is the first one, all of it void: a network normalises no empty batch, and no void pixel is
    in a loss.
    """
    own = [part[number::size] for part in batch]
    if len(own[0]):
        return own
    images, labels, *others = (part[:1] for part in batch)
    return [images, torch.full_like(labels, VOID), *others]
