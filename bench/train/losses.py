"""The losses of a step that other processes trained, for the loggers of this one."""

from __future__ import annotations

from typing import Any

import torch
from avalanche.core import SupervisedPlugin
from avalanche.evaluation.metrics.loss import LossPluginMetric
from torch import Tensor

from strategies.learning.offline import OfflineTemplate
from strategies.learning.segmentation import SegmentationTemplate


class LossRecord(SupervisedPlugin):
    """Keeps the loss of every update of a step, and the number of its images, by epoch."""

    def __init__(self) -> None:
        super().__init__()
        self._epochs: list[list[tuple[Tensor, int]]] = []

    def before_training_epoch(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Begin an epoch."""
        self._epochs.append([])

    def after_training_iteration(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Keep an update's loss where it is: no device is waited for."""
        self._epochs[-1].append((strategy.loss.detach().reshape(()), len(strategy.mb_x)))

    def epochs(self) -> list[list[list[float]]]:
        """Return for every update of each epoch [loss, images]."""
        return [[[loss.item(), images] for loss, images in updates] for updates in self._epochs]


def log_losses(template: SegmentationTemplate, experience: Any, epochs: list[list[list[float]]], done: int) -> None:
    """Tell a template's loggers the losses of a step's `epochs`, as of the last of `done` updates.

    Its metrics of time are told nothing: the seconds of a step are in `costs.csv`. Of a step that was taken up again
    `epochs` are those since.
    """
    evaluator, clock = template.evaluator, template.clock
    metrics, evaluator.metrics = evaluator.metrics, [m for m in evaluator.metrics if isinstance(m, LossPluginMetric)]
    template.experience, template.is_training = experience, True
    clock.train_iterations = done - sum(map(len, epochs))
    if isinstance(template, OfflineTemplate):
        template.epochs_done = template.epochs - len(epochs)
    for updates in epochs:
        evaluator.before_training_epoch(template)
        for loss, images in updates:
            template.loss, template.mbatch = torch.tensor(loss), [torch.empty(int(images), 0)] * 2
            evaluator.before_training_iteration(template)
            evaluator.after_training_iteration(template)
            clock.train_iterations += 1
        evaluator.after_training_epoch(template)
        if isinstance(template, OfflineTemplate):
            template.epochs_done += 1
    evaluator.metrics, template.mbatch = metrics, []
