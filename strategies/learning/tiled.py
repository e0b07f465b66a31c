"""Losses of many outputs, tile by tile: value and gradient in one pass over a few thousand pixels at a time.

They give what `losses` gives, where each step of a formula makes tensors as large as the logits: here the gradient
alone is one. Shapes are those of `losses`; within a tile logits are (C, n), of one image. Nothing waits for a device.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from benchmarks.labels import BACKGROUND, VOID
from strategies.learning.losses import pixel_count

_ELEMENTS = 350_000
"""Of a tile on a CPU: those of its few tensors lie in its second cache."""

Compute = Callable[[Tensor, int, slice], tuple[Tensor, Tensor]]
"""From a tile's logits (C, n), its image and its pixels to its share of the loss and the gradient (C, n) of that."""


class _Tiled(torch.autograd.Function):
    """A loss that is a sum over tiles; its gradient is kept, and given once."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, compute: Compute) -> Tensor:
        images, outputs, height, width = logits.shape
        count = height * width
        step = max(1, _ELEMENTS // outputs) if logits.device.type == "cpu" else count
        dense = (
            torch.channels_last if logits.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
        )
        gradient = torch.empty_like(logits, memory_format=dense)
        pixels, slopes = logits.flatten(2), gradient.view(images, outputs, count)
        total = torch.zeros((), dtype=torch.float64, device=logits.device)
        for image in range(images):
            for start in range(0, count, step):
                tile = slice(start, min(start + step, count))
                loss, slopes[image, :, tile] = compute(pixels[image, :, tile], image, tile)
                total += loss
        ctx.gradient = gradient
        return total.to(logits.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        gradient, ctx.gradient = ctx.gradient, None
        if gradient is None:
            raise RuntimeError("the gradient of a tiled loss is given once")
        return gradient.mul_(upstream), None


class EmLoss(NamedTuple):
    """The M-step's loss (Eq. 7), and per output the mean probability and the number of its annotated pixels (Eq. 4)."""

    loss: Tensor
    confidences: Tensor
    pixels: Tensor


def em_loss(logits: Tensor, labels: Tensor, own: Tensor, delta: float, gamma: float) -> EmLoss:
    """Return `losses.composite_loss` on what `losses.relabel` fills in, and `losses.class_confidences`, of logits."""
    outputs, flat, one = logits.shape[1], labels.flatten(1), pixel_count(labels).to(logits).reciprocal()
    annotated = (labels != BACKGROUND) & (labels != VOID)
    pixels = torch.bincount(labels.where(annotated, BACKGROUND).flatten(), minlength=outputs)
    pixels[BACKGROUND] = 0
    sums = torch.zeros(outputs, dtype=torch.float64, device=logits.device)

    def compute(z: Tensor, image: int, tile: slice) -> tuple[Tensor, Tensor]:
        y, mine = flat[image, tile], own[image]
        latent, void = y == BACKGROUND, y == VOID
        parts = _Parts(z, mine)
        found, filled = _sure(z - parts.log_sum if delta < 0.5 else z, parts.log_sum, mine, delta)
        sure = found & latent
        target = torch.where(sure, filled, y.masked_fill(void, BACKGROUND))
        known = (sure | ~(latent | void)).to(z)
        log_p = z.gather(0, target[None])[0] - parts.log_sum
        sums.index_add_(0, y.masked_fill(latent | void, BACKGROUND), log_p.exp().double())
        weight = gamma * latent.to(z)
        loss = -(known * log_p).sum() - (weight * parts.log_others).sum()
        slope = parts.slopes(one * (known + weight), one * weight)
        return one * loss, slope.scatter_add_(0, target[None], -(one * known)[None])

    loss: Tensor = _Tiled.apply(logits, compute)
    sums[BACKGROUND] = 0
    return EmLoss(loss, sums / pixels.clamp(min=1), pixels)


def unbiased_loss(
    logits: Tensor, old_logits: Tensor, labels: Tensor, own: Tensor, weight: float, over_all: bool = False
) -> Tensor:
    """Return MiB's `losses.unbiased_cross_entropy` + `weight` times `losses.unbiased_distillation` of logits.

    With `over_all` both are those of `offline_losses`: means over all pixels, the distillation on void ones too.
    """
    old, flat = old_logits.shape[1], labels.flatten(1)
    one = logits.new_tensor(1 / labels.numel()) if over_all else pixel_count(labels).to(logits).reciprocal()
    before = old_logits.flatten(2)

    def compute(z: Tensor, image: int, tile: slice) -> tuple[Tensor, Tensor]:
        y, mine = flat[image, tile], own[image]
        latent, void = y == BACKGROUND, y == VOID
        parts = _Parts(z, mine)
        target, known = y.masked_fill(void, BACKGROUND), (~(latent | void)).to(z)
        log_p = z.gather(0, target[None])[0] - parts.log_sum
        loss = -(known * log_p).sum() - (latent * parts.log_others).sum()

        counted = (torch.ones_like(known) if over_all else (~void).to(z)) * (weight / old)
        q = before[image, :, tile].softmax(0).mul_(counted)
        behind = torch.cat([z[:1], z[old:]])  # the background of before: its own output and those of new classes
        log_behind = behind.logsumexp(0)
        loss = loss - (q[1:] * z[1:old]).sum() + ((counted - q[0]) * parts.log_sum).sum()
        loss = loss - (q[0] * (log_behind - parts.log_sum)).sum()

        slope = parts.slopes(one * (known + latent + counted), one * latent)
        slope[1:old] -= q[1:].mul_(one)
        shares = (behind - log_behind).exp_().mul_(one * q[0])
        slope[0] -= shares[0]
        slope[old:] -= shares[1:]
        return one * loss, slope.scatter_add_(0, target[None], -(one * known)[None])

    loss: Tensor = _Tiled.apply(logits, compute)
    return loss


class _Parts:
    """The softmax of a tile with the outputs that an image's step tells apart from the others."""

    def __init__(self, z: Tensor, own: Tensor) -> None:
        self.own = own[:, None]
        top, of_others = z.amax(0), z.masked_fill(self.own, -math.inf).amax(0)
        self.exp = (z - torch.where(self.own, top, of_others)).exp_()
        both = _weighed(torch.stack([own, ~own]).to(z), self.exp)
        self.others = both[1]
        scaled = (of_others - top).exp()
        log_total = (both[0] + scaled * self.others).log()
        self.log_sum = top + log_total
        """log sum exp z (n,)."""
        self.log_others = of_others + self.others.log() - self.log_sum
        """log of the others' probability (n,)."""
        self._scale_own, self._scale_others = (-log_total).exp(), (of_others - self.log_sum).exp()

    def slopes(self, of_all: Tensor, of_others: Tensor) -> Tensor:
        """Return of_all p - of_others p / (the others' probability), the latter for these alone, (C, n); once."""
        others = of_all * self._scale_others - of_others / self.others
        return self.exp.mul_(torch.where(self.own, of_all * self._scale_own, others))


def _sure(scores: Tensor, log_sum: Tensor, own: Tensor, delta: float) -> tuple[Tensor, Tensor]:
    """Return whether a class that is not own is likelier than `delta`, bool (n,), and the likeliest of them (n,).

    `scores` are logits, or where several can be so likely, with `delta` below 1/2, their logarithms of probability.
    """
    if delta < 0.5:
        best, place = scores.masked_fill(own[:, None], -math.inf).max(0)
        return best.exp() > delta, place
    if delta >= 1:
        return torch.zeros_like(log_sum, dtype=torch.bool), torch.zeros_like(log_sum, dtype=torch.long)
    others = (~own).to(scores)
    numbers = torch.arange(len(own), device=own.device) * others
    found, place = _weighed(torch.stack([others, numbers]), (scores > log_sum + math.log(delta)).to(scores))
    return found > 0, place.long()


def _weighed(rows: Tensor, columns: Tensor) -> Tensor:
    """Return rows (k, C) @ columns (C, n), on a GPU in full precision whatever is allowed for matrices."""
    if columns.device.type == "cpu":
        return rows @ columns
    return torch.stack([(row[:, None] * columns).sum(0) for row in rows])
