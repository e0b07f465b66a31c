"""Losses of many outputs, tile by tile: value and gradient in one pass over a few thousand pixels at a time.

They give what `losses` gives, where each step of a formula makes tensors as large as the logits: here the gradient
alone is one. Shapes are those of `losses`; within a tile logits are (C, n), of one image. Nothing waits for a device.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from benchmarks.labels import BACKGROUND, VOID
from strategies.learning.losses import pixel_count

_ELEMENTS = 350_000
"""Of a tile on a CPU: those of its few tensors lie in its second cache."""

Compute = Callable[[Tensor, Tensor, int, slice], Tensor]
"""From a tile's logits (C, n), the place for their gradient (C, n), image and pixels to its part of the loss."""


class _Tiled(torch.autograd.Function):
    """A loss that is a sum over tiles; its gradient is kept, and given once."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, compute: Compute) -> Tensor:
        by_pixels = logits.is_contiguous(memory_format=torch.channels_last)
        dense = torch.channels_last if by_pixels else torch.contiguous_format
        gradient = torch.empty_like(logits, memory_format=dense)
        z, slopes = logits.flatten(2), gradient.view(*logits.shape[:2], -1)
        total = torch.zeros((), dtype=torch.float64, device=logits.device)
        for image, tile in tiles(logits):
            if slopes.is_contiguous():
                total += compute(z[image, :, tile], slopes[image, :, tile], image, tile)
            else:  # outputs side by side: turned within the tile
                turned = z[image, :, tile].contiguous()
                slope = torch.empty_like(turned)
                total += compute(turned, slope, image, tile)
                slopes[image, :, tile] = slope
        ctx.gradient = gradient
        return total.to(logits.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        gradient, ctx.gradient = ctx.gradient, None
        if gradient is None:
            raise RuntimeError("the gradient of a tiled loss is given once")
        return gradient.mul_(upstream), None


def tiles(logits: Tensor) -> Iterator[tuple[int, slice]]:
    """Yield images (their numbers) and tiles of their H * W pixels; on a GPU an image is one."""
    images, outputs, height, width = logits.shape
    count = height * width
    step = max(1, _ELEMENTS // outputs) if logits.device.type == "cpu" else count
    for image in range(images):
        for start in range(0, count, step):
            yield image, slice(start, min(start + step, count))


def over_tiles(logits: Tensor, compute: Compute) -> Tensor:
    """Return a loss of logits (B, C, H, W), float of no dimension: the sum of what `compute` returns for each tile."""
    loss: Tensor = _Tiled.apply(logits, compute)
    return loss


class EmLoss(NamedTuple):
    """The M-step's loss (Eq. 7), and per output the mean probability and the number of its annotated pixels (Eq. 4)."""

    loss: Tensor
    confidences: Tensor
    pixels: Tensor


def em_loss(logits: Tensor, labels: Tensor, own: Tensor, delta: float, gamma: float) -> EmLoss:
    """Return `losses.composite_loss` on what `losses.relabel` fills in, and `losses.class_confidences`, of logits."""
    outputs, flat = logits.shape[1], labels.flatten(1)
    one: Tensor = pixel_count(labels).to(logits).reciprocal()
    annotated = (labels != BACKGROUND) & (labels != VOID)
    pixels = torch.zeros(outputs, dtype=torch.long, device=labels.device)
    pixels.index_add_(0, labels.where(annotated, BACKGROUND).flatten(), annotated.long().flatten())
    sums = torch.zeros(outputs, dtype=torch.float64, device=logits.device)

    def compute(z: Tensor, slope: Tensor, image: int, tile: slice) -> Tensor:
        y, mine = flat[image, tile], own[image]
        latent, void = y == BACKGROUND, y == VOID
        parts = _Parts(z, mine, slope)
        sure, filled = parts.likeliest(z, delta)
        sure &= latent
        target = torch.where(sure, filled, y.masked_fill(void, BACKGROUND))
        known = (sure | ~(latent | void)).to(z)
        log_p = z.gather(0, target[None])[0] - parts.log_sum
        sums.index_add_(0, y.masked_fill(latent | void, BACKGROUND), log_p.exp().double())
        weight = gamma * latent.to(z)
        loss: Tensor = -(known * log_p).sum() - (weight * parts.log_others).sum()
        parts.slope(one * (known + weight), one * weight)
        slope.scatter_add_(0, target[None], -(one * known)[None])
        return one * loss

    loss = over_tiles(logits, compute)
    sums[BACKGROUND] = 0
    return EmLoss(loss, sums / pixels.clamp(min=1), pixels)


def unbiased_loss(
    logits: Tensor, old_logits: Tensor, labels: Tensor, own: Tensor, weight: float, over_all: bool = False
) -> Tensor:
    """Return MiB's `losses.unbiased_cross_entropy` + `weight` times `losses.unbiased_distillation` of logits.

    With `over_all` both are those of `offline_losses`: means over all pixels, the distillation on void ones too.
    """
    old, flat = old_logits.shape[1], labels.flatten(1)
    count = logits.new_tensor(labels.numel()) if over_all else pixel_count(labels).to(logits)
    one: Tensor = count.reciprocal()
    before = old_logits.flatten(2)

    def compute(z: Tensor, slope: Tensor, image: int, tile: slice) -> Tensor:
        y = flat[image, tile]
        latent, void = y == BACKGROUND, y == VOID
        parts = _Parts(z, own[image], slope)
        target, known = y.masked_fill(void, BACKGROUND), (~(latent | void)).to(z)
        log_p = z.gather(0, target[None])[0] - parts.log_sum
        loss: Tensor = -(known * log_p).sum() - (latent * parts.log_others).sum()

        counted = (torch.ones_like(known) if over_all else (~void).to(z)) * (weight / old)
        q = before[image, :, tile].softmax(0).mul_(counted)
        behind = torch.cat([z[:1], z[old:]])  # the background of before: its own output and those of new classes
        log_behind = behind.logsumexp(0)
        loss = loss - (q[1:] * z[1:old]).sum() + ((counted - q[0]) * parts.log_sum).sum()
        loss = loss - (q[0] * (log_behind - parts.log_sum)).sum()

        parts.slope(one * (known + latent + counted), one * latent)
        slope[1:old] -= q[1:].mul_(one)
        shares = (behind - log_behind).exp_().mul_(one * q[0])
        slope[0] -= shares[0]
        slope[old:] -= shares[1:]
        slope.scatter_add_(0, target[None], -(one * known)[None])
        return one * loss

    return over_tiles(logits, compute)


class _Parts:
    """The softmax of a tile with the outputs that an image's step tells apart from the others; its exponentials lie in
    the gradient's place until `slope` makes this of them.
    """

    def __init__(self, z: Tensor, own: Tensor, place: Tensor) -> None:
        self.own, self.exp = own.to(z)[:, None], place
        self.others = 1 - self.own
        top = z.amax(0)
        of_others = torch.add(z, z.new_zeros(len(own), 1).masked_fill(own[:, None], -math.inf), out=place).amax(0)
        torch.sub(z, torch.lerp(of_others, top, self.own), out=place).exp_()
        mass_own, self.mass_others = _weighed(torch.cat([self.own, self.others], 1).T, place)
        log_total = (mass_own + (of_others - top).exp() * self.mass_others).log()
        self.log_sum: Tensor = top + log_total
        """log sum exp z (n,)."""
        self.log_others: Tensor = of_others + self.mass_others.log() - self.log_sum
        """log of the others' probability (n,)."""
        self._scale_own, self._scale_others = (-log_total).exp(), (of_others - self.log_sum).exp()

    def likeliest(self, z: Tensor, delta: float) -> tuple[Tensor, Tensor]:
        """Return whether one of the others is likelier than `delta`, bool (n,), and the likeliest of them (n,).

        Where several can be, it is looked for; else it is the only one of them whose exponential is 1.
        """
        sure = self._scale_others > delta
        if delta < 0.5:
            return sure, z.masked_fill(self.own > 0, -math.inf).argmax(0)
        numbers = torch.arange(len(z), device=z.device).to(z)[:, None]
        tops = torch.threshold(self.exp, 1 - torch.finfo(z.dtype).eps / 2, 0.0)
        count, place = _weighed(torch.cat([self.others, numbers * self.others], 1).T, tops)
        return sure & (count == 1), place.long()

    def slope(self, of_all: Tensor, of_others: Tensor) -> None:
        """Make it of_all p - of_others p / (the others' probability), the latter for these alone."""
        others = of_all * self._scale_others - of_others / self.mass_others
        self.exp.mul_(torch.lerp(others, of_all * self._scale_own, self.own))


def _weighed(rows: Tensor, columns: Tensor) -> Tensor:
    """Return rows (k, C) @ columns (C, n), on a GPU in full precision whatever is allowed for matrices."""
    if columns.device.type == "cpu":
        return rows @ columns
    return torch.stack([(row[:, None] * columns).sum(0) for row in rows])
