"""What an evaluation measures: pixels by truth and prediction over the whole test set, and Avalanche's metrics."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from avalanche.core import SupervisedPlugin
from avalanche.training.plugins import EvaluationPlugin
from torch import Tensor

from benchmarks.labels import VOID
from strategies.learning.contours import contour_width, on_contours
from strategies.learning.guard import all_finite
from strategies.networks.largest import largest_scaled
from strategies.networks.network import SegmentationNetwork


def best_classes(scores: Tensor) -> Tensor:
    """Return int64 (B, H, W): the class of the largest of scores (B, C, H, W), the first of equal ones."""
    return scores.max(1).indices  # what `argmax` gives, which takes three times as long on a CPU


def largest_of(network: SegmentationNetwork, images: Tensor, scores: Callable[[], Tensor]) -> Tensor:
    """Return int64 (B, H, W): the class of the largest of a network's scores at each pixel of images (B, 3, H, W).

    `scores` gives those of all pixels (B, C, H, W) where the cells' do not tell: some are not finite, or the head's do
    not scale.
    """
    if network.head.scores_scale:
        cells = network.cell_scores(images)
        if all_finite(cells):
            return largest_scaled(cells, images.shape[-2:])
    return best_classes(scores())


def pixel_counts(prediction: Tensor, labels: Tensor, classes: int, outputs: int) -> Tensor:
    """Return int64 (2, 2, classes + 2, outputs): pixels by label (row) and prediction (column), both (B, H, W).

    Apart are those off and on the contours of the labels (first axis), and of the prediction (second). The row after
    the classes' is of label `classes`, those that no step learns; the last one is void.
    """
    width = contour_width(*labels.shape[1:])
    shape = 2, 2, classes + 2, outputs
    place = torch.where(labels == VOID, classes + 1, labels)
    place += (classes + 2) * (on_contours(prediction, width) + 2 * on_contours(labels, width).long())
    place *= outputs
    place += prediction
    return place.flatten().bincount(minlength=math.prod(shape)).view(shape)


class PixelMeter(SupervisedPlugin):
    """Counts the pixels of one `eval` call, apart for each stream that it has an experience of.

    `counts` is then, by the streams' names, what `pixel_counts` returns: a row for every class of the benchmark, known
    by then or not, one for classes that no step learns, and one for void.
    """

    counts: dict[str, np.ndarray]

    def before_eval(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Start from zero."""
        self._sums: dict[str, Tensor] = {}

    def before_eval_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Learn of which stream the next pixels are."""
        experience = strategy.experience
        self._stream = experience.origin_stream.name
        self._classes = 1 + len(experience.classes_seen_so_far) + len(experience.future_classes)
        if self._stream not in self._sums:
            shape = 2, 2, self._classes + 2, strategy.network.outputs
            self._sums[self._stream] = torch.zeros(shape, dtype=torch.int64, device=strategy.device)

    def after_eval_iteration(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Count a batch's pixels."""
        prediction = strategy.largest()
        self._sums[self._stream] += pixel_counts(prediction, strategy.mb_y, self._classes, strategy.network.outputs)

    def after_eval(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Publish the counts."""
        self.counts = {stream: counts.cpu().numpy() for stream, counts in self._sums.items()}


class _Evaluator(EvaluationPlugin):
    """Avalanche's manager of metrics; it copies the experience at each callback, here not where nobody listens."""

    def _update_metrics_and_loggers(self, strategy: Any, callback: str) -> Any:
        return super()._update_metrics_and_loggers(strategy, callback) if self.metrics or self.loggers else []


def new_evaluator(*metrics: Any) -> EvaluationPlugin:
    """Return Avalanche's manager of metrics, without loggers; it warns of that at every construction."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return _Evaluator(*metrics, collect_all=False)
