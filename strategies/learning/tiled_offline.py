"""The losses of plop, ssul and dkd, tile by tile as those of `tiled`: value and gradient in one pass.

They give what formulas of whole tensors give, and make no other tensor as large as the logits than their gradient.
Shapes are those of `losses`; within a tile logits are (C, n), of one image. Nothing waits for a device.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.labels import BACKGROUND, VOID
from strategies.learning.losses import pixel_count
from strategies.learning.tiled import over_tiles

_LINEAR = 40.0
"""From here on log(1 + exp z) is z, to the last digit of a double."""


def weighed_cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Return `offline_losses.weighed_cross_entropy`: -log p(label) times its image's weight (B,), over all pixels."""
    flat, shares = labels.flatten(1), weights.to(logits) / labels.numel()

    def compute(z: Tensor, slope: Tensor, image: int, tile: slice) -> Tensor:
        y = flat[image, tile]
        void = y == VOID
        share, target = shares[image] * ~void, y.masked_fill(void, BACKGROUND)[None]
        top = z.amax(0)
        mass = torch.sub(z, top, out=slope).exp_().sum(0)
        loss: Tensor = (share * (top + mass.log() - z.gather(0, target)[0])).sum()
        slope.mul_(share / mass)
        slope.scatter_add_(0, target, -share[None])
        return loss

    return over_tiles(logits, compute)


def one_vs_rest(logits: Tensor, labels: Tensor) -> Tensor:
    """Return `losses.one_vs_rest`: binary cross-entropies with the label map, summed, the mean over non-void pixels."""
    flat, one = labels.flatten(1), pixel_count(labels).to(logits).reciprocal()

    def compute(z: Tensor, slope: Tensor, image: int, tile: slice) -> Tensor:
        y = flat[image, tile]
        void = y == VOID
        share, target = one * ~void, y.masked_fill(void, BACKGROUND)[None]
        loss: Tensor = (share * (F.softplus(z, threshold=_LINEAR).sum(0) - z.gather(0, target)[0])).sum()
        torch.sigmoid(z, out=slope).mul_(share)
        slope.scatter_add_(0, target, -share[None])
        return loss

    return over_tiles(logits, compute)


def labels_and_distillation(
    logits: Tensor,
    old_logits: Tensor,
    labels: Tensor,
    weight: float,
    positive_weight: float = 1.0,
    void_is_negative: bool = False,
    telling_old: Tensor | None = None,
) -> Tensor:
    """Return DKD's binary cross-entropies of logits (B, C, H, W): sums over outputs, means over all pixels.

    New outputs, which the old model's `old_logits` (B, O, H, W) have none of, are compared with the label map, output 0
    with 0; a positive counts `positive_weight` times, void pixels are left out or negatives. `weight` times the other
    old outputs are compared with the old model's sigmoids everywhere; in the images `telling_old`, bool (B,), with the
    label map too.
    """
    old, flat, before = old_logits.shape[1], labels.flatten(1), old_logits.flatten(2)
    one, count = 1 / labels.numel(), logits.shape[1]

    def compute(z: Tensor, slope: Tensor, image: int, tile: slice) -> Tensor:
        y = flat[image, tile]
        void, new = y == VOID, (y >= old) & (y < count)
        counted = torch.ones_like(y, dtype=z.dtype) if void_is_negative else (~void).to(z)
        positive, of_old = new, counted.new_zeros(())
        if telling_old is not None:
            of_old = telling_old[image].to(z)
            positive = new | (telling_old[image] & (y > BACKGROUND) & (y < old))
        target = y.where(positive, BACKGROUND)[None]
        of_positive = positive.to(z)
        soft, chosen = F.softplus(z, threshold=_LINEAR), z.gather(0, target)[0]
        of_chosen, p = soft.gather(0, target)[0], torch.sigmoid(z, out=slope)
        q = before[image, 1:, tile].sigmoid()

        sums = soft[0] + soft[old:].sum(0) + of_old * soft[1:old].sum(0)
        turned = of_positive * (positive_weight * (of_chosen - chosen) - of_chosen)
        distilled = soft[1:old].sum(0) - (q * z[1:old]).sum(0)
        loss: Tensor = one * (counted * sums + turned + weight * distilled).sum()

        of_target = p.gather(0, target)[0]
        slope[0] *= one * counted
        slope[old:] *= one * counted
        slope[1:old] *= one * (weight + of_old * counted)
        slope[1:old] -= q.mul_(one * weight)
        slope.scatter_add_(0, target, (one * of_positive * (positive_weight * (of_target - 1) - of_target))[None])
        return loss

    return over_tiles(logits, compute)
