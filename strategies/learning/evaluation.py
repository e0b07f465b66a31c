"""What an evaluation measures: pixels by truth and prediction over the whole test set, and Avalanche's metrics."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from avalanche.core import SupervisedPlugin
from avalanche.training.plugins import EvaluationPlugin
from torch import Tensor

from benchmarks.labels import VOID


def best_classes(scores: Tensor) -> Tensor:
    """Return int64 (B, H, W): the class of the largest of scores (B, C, H, W), the first of equal ones."""
    return scores.max(1).indices  # what `argmax` gives, which takes three times as long on a CPU


def pixel_counts(prediction: Tensor, labels: Tensor, classes: int, outputs: int) -> Tensor:
    """Return int64 (classes + 2, outputs): pixels by label (row) and prediction (column).

    The row after the classes' is of label `classes`, those that no step learns; the last one is void.
    """
    rows = torch.where(labels == VOID, classes + 1, labels)
    return torch.bincount((rows * outputs + prediction).flatten(), minlength=(classes + 2) * outputs).view(-1, outputs)


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
        classes = 1 + len(experience.classes_seen_so_far) + len(experience.future_classes)
        if self._stream not in self._sums:
            shape = classes + 2, strategy.network.outputs
            self._sums[self._stream] = torch.zeros(shape, dtype=torch.int64, device=strategy.device)

    def after_eval_iteration(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Count a batch's pixels."""
        counts = self._sums[self._stream]
        rows, outputs = counts.shape
        counts += pixel_counts(best_classes(strategy.mb_output), strategy.mb_y, rows - 2, outputs)

    def after_eval(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Publish the counts."""
        self.counts = {stream: counts.cpu().numpy() for stream, counts in self._sums.items()}


def new_evaluator(*metrics: Any) -> EvaluationPlugin:
    """Return Avalanche's manager of metrics, without loggers; it warns of that at every construction."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return EvaluationPlugin(*metrics, collect_all=False)
