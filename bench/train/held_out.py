"""How good a network is on images that were held out of its training, between epochs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.annotated import AnnotatedImages
from benchmarks.labels import BACKGROUND, VOID
from reports.metrics import mean_iou
from strategies.learning.evaluation import largest_of, pixel_counts
from strategies.networks.network import SegmentationNetwork, evaluation_mode

Predict = Callable[[Tensor], Tensor]
"""From images float32 (B, 3, H, W) to labels (B, H, W)."""


def held_out_miou(predict: Predict, outputs: int, data: AnnotatedImages, batch_size: int, workers: int) -> float:
    """Return the mIoU in per cent on images, the background included; classes beyond the outputs count as it."""
    counts = torch.zeros(outputs + 2, outputs, dtype=torch.int64)
    for images, labels, *_ in data.batches(batch_size, workers=workers):
        known = labels.where((labels < outputs) | (labels == VOID), BACKGROUND)
        counts += pixel_counts(predict(images).long().cpu(), known, outputs, outputs).sum((0, 1))
    return mean_iou(counts[:outputs].numpy())


def predicted_by(network: SegmentationNetwork, device: torch.device) -> Predict:
    """Return what predicts by the largest of a network's scores, in eval mode."""

    def predict(images: Tensor) -> Tensor:
        with torch.no_grad(), evaluation_mode(network):
            there = images.to(device)
            return largest_of(network, there, lambda: network.scores(there))

    return predict
