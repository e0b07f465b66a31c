"""The losses of the offline methods: means over all N pixels of a batch, void ones in the denominator.

A cross-entropy gives nothing at void pixels; a distillation reads no labels and is on these too. Shapes: logits float
(B, C, H, W), the previous model's `old_logits` (B, O, H, W) with O <= C; labels int64 (B, H, W) with 0 the background
and 255 void; `own` bool (B, C) as in `losses`.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from benchmarks.labels import VOID
from strategies.learning import losses


def _over_all(mean: Tensor, labels: Tensor) -> Tensor:
    """Turn a mean over the non-void pixels into one over all."""
    return mean * losses.pixel_count(labels) / labels.numel()


def _no_void(logits: Tensor) -> Tensor:
    """Return labels of which none is void, for a mean over all pixels."""
    return logits.new_zeros((logits.shape[0], *logits.shape[2:])).long()


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean of -log p(label), 0 at void pixels."""
    return _over_all(losses.cross_entropy(logits, labels), labels)


def weighed_cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Return the mean over all pixels of -log p(label) times the weight (B,) of the pixel's image, 0 at void pixels."""
    of_images = F.cross_entropy(logits, labels, ignore_index=VOID, reduction="none").sum((1, 2))
    return (of_images * weights.to(of_images.dtype)).sum() / labels.numel()


def one_vs_rest(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the binary cross-entropy with the label map: the sum over all C outputs, 0 at void pixels."""
    return _over_all(losses.one_vs_rest(logits, labels), labels)


def distillation(logits: Tensor, old_logits: Tensor) -> Tensor:
    """Return LwF's -(1 / O) sum_k q_old(k) log p'(k), p' the softmax over the first O logits alone."""
    return losses.distillation(logits, old_logits, _no_void(logits)) / old_logits.shape[1]


def sigmoid_distillation(logits: Tensor, old_logits: Tensor) -> Tensor:
    """Return the binary cross-entropy of the first O logits with the old model's sigmoids, the sum over these outputs.

    LwF.MC's O times the mean over pixels and outputs is this.
    """
    known = logits[:, : old_logits.shape[1]]
    return losses.binary_cross_entropy(known, old_logits.sigmoid(), _no_void(logits))


def feature_distillation(features: Tensor, old_features: Tensor) -> Tensor:
    """Return ILT's mean squared difference over all elements of two feature maps of one shape."""
    return F.mse_loss(features, old_features)


def unbiased_cross_entropy(log_p: Tensor, labels: Tensor, own: Tensor) -> Tensor:
    """Return MiB's cross-entropy, 0 at void pixels: label 0 is whatever the image's step does not annotate."""
    return _over_all(losses.unbiased_cross_entropy(log_p, labels, own), labels)


def unbiased_distillation(log_p: Tensor, old_logits: Tensor) -> Tensor:
    """Return MiB's distillation: p'(background) is the mass of the background and the new classes."""
    return losses.unbiased_distillation(log_p, old_logits, _no_void(log_p))
