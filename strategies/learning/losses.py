"""Losses over pixels: every one is finite, leaves void pixels out, and divides by the number of the others, but where
it says otherwise.

Shapes: logits float (B, C, H, W) with C = 1 + |Y_t| and output 0 the background; labels int64 (B, H, W) with
0 unlabelled or background and 255 void; `own` bool (B, C), True where output c is in C_tau, the classes of
the step tau at which the image was annotated.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.labels import BACKGROUND, UNKNOWN, VOID
from strategies.learning.protocol import BaseRecipe


def own_classes(steps: Tensor, step_of_output: Tensor, all_seen: bool = False) -> Tensor:
    """Return bool (B, C): whether output c is of a class that the image's annotation tells.

    `steps` (B,) are the steps the images were annotated at, `step_of_output` int64 (C,) the step that added each
    output, -1 for the background. A step annotates its own classes, or with `all_seen` those of the steps before
    it too.
    """
    if all_seen:
        return (step_of_output[None, :] >= 0) & (step_of_output[None, :] <= steps[:, None])
    return step_of_output[None, :] == steps[:, None]


def pixel_count(labels: Tensor) -> Tensor:
    """Return the number of non-void pixels, at least 1."""
    return (labels != VOID).sum().clamp(min=1)


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean over non-void pixels of -log p(label)."""
    return F.cross_entropy(logits, labels, ignore_index=VOID, reduction="sum") / pixel_count(labels)


def without_unlabelled(labels: Tensor, steps: Tensor) -> Tensor:
    """Return the labels (B, H, W) with label 0 void in the images annotated at an increment, `steps` (B,) above 0.

    There it may be any class that the increment does not annotate; in the base step's images it is the background,
    as in the base training (METHODS, unlabelled pixels).
    """
    return labels.masked_fill((labels == BACKGROUND) & (steps > 0)[:, None, None], VOID)


def image_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Return (B,), each image's mean over its non-void pixels of -log p(label), 0 where all are void."""
    losses = F.cross_entropy(logits, labels, ignore_index=VOID, reduction="none").sum((1, 2))
    return losses / (labels != VOID).sum((1, 2)).clamp(min=1)


def one_hot(labels: Tensor, outputs: int, dtype: torch.dtype) -> Tensor:
    """Return (B, C, H, W): 1 at each pixel's label, nothing at void."""
    targets = torch.zeros(labels.shape[0], outputs, *labels.shape[1:], dtype=dtype, device=labels.device)
    known = labels != VOID
    return targets.scatter_(1, labels.where(known, 0)[:, None], known[:, None].to(dtype))


def binary_cross_entropy(logits: Tensor, targets: Tensor, labels: Tensor) -> Tensor:
    """Sum over the outputs, background included, mean over non-void pixels; targets (B, C, H, W) in [0, 1]."""
    losses = F.binary_cross_entropy_with_logits(logits, targets, reduction="none").sum(1)
    return (losses * (labels != VOID)).sum() / pixel_count(labels)


def one_vs_rest(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the binary cross-entropy with the label map."""
    return binary_cross_entropy(logits, one_hot(labels, logits.shape[1], logits.dtype), labels)


def distillation(logits: Tensor, old_logits: Tensor, labels: Tensor) -> Tensor:
    """Return -sum_k q_old(k) log p(k) over the old model's outputs, p softmax over these alone; mean over non-void."""
    log_p = logits[:, : old_logits.shape[1]].log_softmax(1)
    return -((old_logits.softmax(1) * log_p).sum(1) * (labels != VOID)).sum() / pixel_count(labels)


def one_vs_rest_with_unknown(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the binary cross-entropy with a label map in which `UNKNOWN` is the last output's."""
    return one_vs_rest(logits, labels.masked_fill(labels == UNKNOWN, logits.shape[1] - 1))


def classes_vs_rest(
    logits: Tensor,
    labels: Tensor,
    first: int,
    positive_weight: float = 1.0,
    void_is_negative: bool = False,
    images: Tensor | None = None,
) -> Tensor:
    """Return the binary cross-entropies of outputs with the label map, the sum over outputs and pixels.

    `logits` (B, n, H, W) are those of the outputs from `first` on; output 0 is 0 everywhere. A positive counts
    `positive_weight` times. Void pixels are left out, or a negative of every class; of `images`, bool (B,), those that
    are False are left out.
    """
    outputs = torch.arange(first, first + logits.shape[1], device=labels.device)
    positive = (labels[:, None] == outputs[:, None, None]) & (outputs != BACKGROUND)[:, None, None]
    counted = None if void_is_negative else labels != VOID
    if images is not None:
        counted = images[:, None, None].expand_as(labels) if counted is None else counted & images[:, None, None]
    share = None if counted is None else counted[:, None].to(logits)
    weight = None if positive_weight == 1 else logits.new_full((), positive_weight)
    return F.binary_cross_entropy_with_logits(logits, positive.to(logits), share, reduction="sum", pos_weight=weight)


def mean_classes_vs_rest(
    logits: Tensor, labels: Tensor, positive_weight: float | None = None, void_is_negative: bool = False
) -> Tensor:
    """Return the same of all outputs as a mean over the pixels that are not left out."""
    total = classes_vs_rest(logits, labels, 0, positive_weight or 1.0, void_is_negative)
    return total / (max(1, labels.numel()) if void_is_negative else pixel_count(labels))


BASE_LOSSES: dict[str, Callable[..., Tensor]] = {
    "cross-entropy": cross_entropy,
    "sigmoid-bce": one_vs_rest,
    "sigmoid-bce-unknown": one_vs_rest_with_unknown,
    "classes-bce": mean_classes_vs_rest,
}
"""The losses of base recipes, by name."""


@dataclass(frozen=True)
class BaseLoss:
    """The loss of a base training, of logits and labels: a mean over pixels, which `pixels` counts."""

    recipe: BaseRecipe
    void_is_negative: bool
    """Of every class, as `data.void=negative` asks; `classes-bce` alone takes void pixels so, and counts them."""

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean over the pixels of a batch, 0 where it counts none."""
        loss = BASE_LOSSES[self.recipe.loss]
        if self.recipe.loss == "classes-bce":
            return loss(logits, labels, self.recipe.positive_weight, self.void_is_negative)
        return loss(logits, labels)

    def pixels(self, labels: Tensor) -> Tensor:
        """Return the number of pixels that the mean is over; there may be none."""
        if self.recipe.loss == "classes-bce" and self.void_is_negative:
            return labels.new_full((), labels.numel())
        return (labels != VOID).sum()


class _LatentNll(torch.autograd.Function):
    """The gradient of -log sum_{z kept} p(z) in closed form: autograd takes twice the time for it."""

    @staticmethod
    def forward(ctx: Any, log_p: Tensor, latent: Tensor, own: Tensor) -> Tensor:
        outside = log_p.masked_fill(own[:, :, None, None], -torch.inf)
        top = outside.amax(1, keepdim=True)
        log_mass = (outside - top).exp_().sum(1, keepdim=True).log_().add_(top)
        ctx.save_for_backward(outside, log_mass, latent)
        return -(log_mass[:, 0] * latent).sum()

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        outside, log_mass, latent = ctx.saved_tensors
        share = (outside - log_mass).exp_()
        return share.mul_(-upstream * latent[:, None]), None, None


def latent_nll(log_p: Tensor, labels: Tensor, own: Tensor) -> Tensor:
    """Return the sum over unlabelled pixels of -log sum p(z) over all z that the step tau did not annotate."""
    loss: Tensor = _LatentNll.apply(log_p, labels == BACKGROUND, own)
    return loss


def relabel(log_p: Tensor, labels: Tensor, own: Tensor, delta: float) -> Tensor:
    """E-step, Eq. 6: fill in what the step tau did not annotate.

    Each unlabelled pixel gets the likeliest of (Y_t + background) without C_tau where its probability
    under the full softmax exceeds `delta`; the others become void. Returns labels (B, H, W).
    """
    with torch.no_grad():
        best, likeliest = log_p.masked_fill(own[:, :, None, None], -torch.inf).max(1)
        filled = torch.where(best.exp() > delta, likeliest, VOID)
        return torch.where(labels == BACKGROUND, filled, labels)


def composite_loss(log_p: Tensor, labels: Tensor, relabelled: Tensor, own: Tensor, gamma: float) -> Tensor:
    """M-step, Eq. 7: cross-entropy on annotated and pseudo-labelled pixels, and on every latent pixel
    gamma times -log of the probability of any class that the step tau could not have annotated.

    `labels` tell which pixels are latent, `relabelled` comes from `relabel`.
    """
    known = F.nll_loss(log_p, relabelled, ignore_index=VOID, reduction="sum")
    latent = latent_nll(log_p, labels, own)
    return (known + gamma * latent) / pixel_count(labels)


def unbiased_cross_entropy(log_p: Tensor, labels: Tensor, own: Tensor) -> Tensor:
    """MiB's cross-entropy [5]: an unlabelled pixel is background or any class that tau did not annotate."""
    known = F.nll_loss(log_p, labels.masked_fill(labels == BACKGROUND, VOID), ignore_index=VOID, reduction="sum")
    latent = latent_nll(log_p, labels, own)
    return (known + latent) / pixel_count(labels)


def unbiased_distillation(log_p: Tensor, old_logits: Tensor, labels: Tensor) -> Tensor:
    """MiB's distillation [5]: -1 / (|Y_{t-1}| + 1) sum_k q_old(k) log p'(k), mean over non-void pixels.

    `old_logits` are (B, C_old, H, W); p'(background) is the mass of the background and the new classes.
    """
    old = old_logits.shape[1]
    q = old_logits.softmax(1)
    background = torch.cat([log_p[:, :1], log_p[:, old:]], 1).logsumexp(1)
    agreement = q[:, 0] * background + (q[:, 1:] * log_p[:, 1:old]).sum(1)
    return -agreement[labels != VOID].sum() / (old * pixel_count(labels))


def class_confidences(log_p: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Eq. 4: per output the mean probability of c over the pixels annotated c, (C,), and their number (C,).

    The mean is 0 where there is no such pixel; the background is not counted.
    """
    with torch.no_grad():
        annotated = (labels != BACKGROUND) & (labels != VOID)
        own = labels[annotated]
        p = log_p.gather(1, labels.where(annotated, 0)[:, None])[:, 0].exp()[annotated]
        pixels = torch.bincount(own, minlength=log_p.shape[1])
        total = torch.bincount(own, weights=p.double(), minlength=log_p.shape[1])
        return total / pixels.clamp(min=1), pixels
