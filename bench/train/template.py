"""The Avalanche template of a run."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from avalanche.core import SupervisedPlugin
from avalanche.training.plugins import EvaluationPlugin

from bench.plan.job import RunJob
from bench.screen.events import Event, Report, Throttle
from bench.screen.log import log
from bench.settings.schema import Config
from bench.train.networks import augmentation
from bench.train.seeds import derived_seed
from strategies.learning.method import Method
from strategies.learning.offline import OfflineTemplate
from strategies.learning.randomness import Seeds
from strategies.learning.segmentation import SegmentationTemplate
from strategies.learning.template import OnlineTemplate
from strategies.networks.network import SegmentationNetwork


def make_template(
    network: SegmentationNetwork,
    method: type[Method],
    parameters: Any,
    config: Config,
    scenario: str,
    seed: int,
    device: torch.device,
    plugins: Sequence[SupervisedPlugin] = (),
    evaluator: EvaluationPlugin | None = None,
) -> SegmentationTemplate:
    """Return the Avalanche template of a run; its randomness comes from the scenario's name and the seed."""
    kinds = ("initialisation", "order", "augmentation", "memory")
    seeds = Seeds(*(derived_seed(scenario, seed, kind) for kind in kinds))
    torch.manual_seed(seeds.initialisation)
    shared: dict[str, Any] = {
        "network": network,
        "method": method(parameters, config.memory.size, np.random.default_rng(seeds.memory)),
        "protocol": config.incremental,
        "seeds": seeds,
        "augmentation": augmentation(config),
        "eval_batch_size": config.evaluation.batch_size,
        "workers": config.data.workers,
        "void_is_negative": config.data.void == "negative",
        "fused": config.runtime.fused,
        "device": device,
        "plugins": plugins,
        "evaluator": evaluator,
    }
    if config.protocol == "offline":
        return OfflineTemplate(**shared)
    return OnlineTemplate(memory_size=config.memory.size, **shared)


class Progress(SupervisedPlugin):
    """Reports the batch under way a few times a second."""

    def __init__(self, job: RunJob, report: Report) -> None:
        super().__init__()
        self.job = job
        self.report = report
        self.throttle = Throttle()

    def after_training_iteration(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Report an update."""
        done = strategy.clock.train_iterations + 1
        if log.isEnabledFor(logging.DEBUG):
            log.debug("update %d of %d, loss %.8g", done, self.job.units, strategy.loss.item())
        if self.throttle.due():
            offline = isinstance(strategy, OfflineTemplate)
            self.report(
                Event(
                    self.job.key,
                    f"epoch {strategy.epochs_done + 1}/{strategy.epochs}" if offline else "training",
                    done,
                    self.job.units,
                    step=strategy.experience.data.step,
                    batch=strategy.clock.train_epoch_iterations + 1,
                    batches=len(strategy.dataloader),
                    loss=strategy.loss.item(),
                )
            )
