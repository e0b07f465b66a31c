"""Pseudo labels by the previous model's entropy, below a threshold for each class: PLOP, CVPR 2021, Sec. 3.3.

Shapes: the previous model's logits float (B, O, H, W); labels int64 (B, H, W) with 0 the background and 255 void.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from benchmarks.labels import BACKGROUND, VOID
from strategies.learning.tiled import tiles

ThresholdRule = Literal["published", "median"]
LEAST = 0.001
"""No threshold is below it."""
BINS: dict[ThresholdRule, int] = {"published": 100, "median": 20_000}
"""Of one width over [0, 1], in which uncertainties are counted."""


@dataclass(frozen=True)
class Uncertainty:
    """How unsure the previous model is of a pixel, from 0 to 1, and where a class's threshold for it lies.

    `median`: the entropy over log O, as the paper has it. `published`: that over O log K, as its code has it: a mean
    over the O outputs where a sum was meant, divided once more by the entropy of K outputs that know nothing.
    """

    rule: ThresholdRule
    outputs: int
    """O, of the previous model, the background counted."""
    known: int
    """K, of the present one."""

    def of(self, old_logits: Tensor) -> tuple[Tensor, Tensor]:
        """Return of each pixel the uncertainty (B, H, W) and the likeliest output, int64 (B, H, W)."""
        images, _, *size = old_logits.shape
        z, entropy = old_logits.flatten(2), old_logits.new_empty(images, math.prod(size))
        likeliest = torch.empty_like(entropy, dtype=torch.int64)
        for image, tile in tiles(old_logits):
            p = z[image, :, tile].softmax(0)
            likeliest[image, tile] = p.max(0).indices  # `argmax` takes three times as long on a CPU
            entropy[image, tile] = -(p + 1e-8).log_().mul_(p).sum(0)
        scale = math.log(self.outputs)
        if self.rule == "published":
            scale *= self.outputs * math.log(self.known)
        return (entropy / scale).view(images, *size), likeliest.view(images, *size)

    def thresholds(self, counts: Tensor) -> Tensor:
        """Return each output's threshold, float32 (O,), of its pixels counted by bin, int64 (O, bins).

        One that was likeliest at no pixel has the least there is.
        """
        if self.rule == "published":
            found = torch.tensor([published_threshold(row) for row in counts.tolist()])
        else:
            found = medians(counts.cpu())
        return found.clamp(min=LEAST)


class UncertaintyCounts:
    """The background pixels of a step by the class that the previous model gives them and by their uncertainty.

    `counts`, int64 (O, bins), is all that is kept.
    """

    def __init__(self, uncertainty: Uncertainty, device: torch.device) -> None:
        self.uncertainty = uncertainty
        self.counts = torch.zeros(uncertainty.outputs, BINS[uncertainty.rule], dtype=torch.int64, device=device)

    def add(self, old_logits: Tensor, labels: Tensor) -> None:
        """Count the pixels with label 0."""
        unsure, likeliest = self.uncertainty.of(old_logits)
        background, bins = labels == BACKGROUND, self.counts.shape[1]
        places = (unsure[background] * bins).long().clamp(0, bins - 1)
        cells = likeliest[background] * bins + places
        self.counts += torch.bincount(cells, minlength=self.counts.numel()).view_as(self.counts)


def published_threshold(counts: Sequence[int]) -> float:
    """Return what PLOP's code takes for the median of pixels counted in bins over [0, 1].

    It sums the bins' numbers where their counts were meant. Infinity where no bin is reached: every pixel is accepted.
    """
    half, before = sum(counts) / 2, 0
    if half == 0:
        return 0.0
    for number, count in enumerate(counts):
        if half <= before + count:
            within = (half - before) / count if count else 0.0
            return (number + within) / len(counts)
        before += number
    return math.inf


def medians(counts: Tensor) -> Tensor:
    """Return the median of each row of pixels counted in bins over [0, 1], (O, bins): float32 (O,).

    Within its bin it lies where its pixels' share says, as if they were spread over it. 0 where there are none.
    """
    up_to, half = counts.cumsum(1), counts.sum(1, keepdim=True) / 2
    number = (up_to < half).sum(1, keepdim=True)
    count = counts.gather(1, number)
    within = (half - (up_to.gather(1, number) - count)) / count.clamp(min=1)
    return (number + within)[:, 0] / counts.shape[1]


def pseudo_labels(unsure: Tensor, likeliest: Tensor, labels: Tensor, thresholds: Tensor) -> tuple[Tensor, Tensor]:
    """Return labels (B, H, W) whose background is filled in, and how much of it was in each image, float64 (B,).

    A background pixel gets the likeliest output, which may be the background, where the uncertainty is below that
    output's threshold, and is void elsewhere. The shares are PLOP's adaptive factors: 0 for an image without
    background.
    """
    background = labels == BACKGROUND
    accepted = background & (unsure < thresholds[likeliest])
    filled = torch.where(background, likeliest.where(accepted, VOID), labels)
    return filled, accepted.sum((1, 2)) / (background.sum((1, 2)).double() + 1e-6)
