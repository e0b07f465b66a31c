"""What an evaluation measures: the confusion matrix, accumulated over the whole test set, and Avalanche's metrics."""

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


def confusion_matrix(prediction: Tensor, labels: Tensor, outputs: int) -> Tensor:
    """Return int64 (outputs, outputs): pixels by label (row) and prediction (column); void is left out."""
    counted = labels != VOID
    pairs = labels[counted] * outputs + prediction[counted]
    return torch.bincount(pairs, minlength=outputs**2).view(outputs, outputs)


class ConfusionMeter(SupervisedPlugin):
    """Accumulates the confusion matrix of one `eval` call; `matrix` is int64 (C, C) after it."""

    matrix: np.ndarray

    def before_eval(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Start from zero."""
        outputs = strategy.network.outputs
        self._counts = torch.zeros(outputs, outputs, dtype=torch.int64, device=strategy.device)

    def after_eval_iteration(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Count a batch's pixels."""
        self._counts += confusion_matrix(best_classes(strategy.mb_output), strategy.mb_y, len(self._counts))

    def after_eval(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Publish the matrix."""
        self.matrix = self._counts.cpu().numpy()


def new_evaluator(*metrics: Any) -> EvaluationPlugin:
    """Return Avalanche's manager of metrics, without loggers; it warns of that at every construction."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return EvaluationPlugin(*metrics, collect_all=False)
