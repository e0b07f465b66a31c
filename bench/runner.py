"""One base model or one run: from streams through a learner to a run directory."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from avalanche.core import SupervisedPlugin

from bench.base import augmentation, load_base, save_base, train_base
from bench.config import Config
from bench.events import Event, Report, Throttle
from bench.spec import derived_seed
from benchmarks.scenarios import load_scenario
from benchmarks.streams import SegmentationScenario, build_benchmark
from reports.metrics import mean_iou
from reports.records import RunWriter
from strategies.evaluation import ConfusionMeter
from strategies.method import Method
from strategies.network import SegmentationNetwork
from strategies.protocol import BaseRecipe
from strategies.registry import method_class
from strategies.template import OnlineTemplate, Seeds


@dataclass(frozen=True)
class BaseJob:
    """A base model to train."""

    key: str
    scenario: str
    data_root: Path | None
    config: Config
    recipe: BaseRecipe
    seed: int
    device: str
    base: dict[str, Any]
    units: int

    def execute(self, report: Report) -> None:
        """Train the base model and keep it."""
        with threads(self.config.runtime.threads):
            benchmark = _benchmark(self.scenario, self.data_root, self.config)
            experience = benchmark.train_stream[0]
            classes = len(experience.classes_in_this_experience)
            device = torch.device(self.device)
            network = train_base(
                experience.data, classes, self.config, self.recipe, self.seed, device, self.key, report
            )
            save_base(network, self.base)


@dataclass(frozen=True)
class RunJob:
    """A run to make: the increments of a scenario under one method and seed."""

    key: str
    scenario: str
    data_root: Path | None
    config: Config
    method: str
    parameters: Any
    recipe: BaseRecipe
    seed: int
    device: str
    spec: dict[str, Any]
    folder: Path
    units: int

    def execute(self, report: Report) -> None:
        """Make the run and write its directory, `done` last."""
        with threads(self.config.runtime.threads):
            benchmark = _benchmark(self.scenario, self.data_root, self.config)
            _make_run(self, benchmark, report)


def _benchmark(scenario: str, data_root: Path | None, config: Config) -> SegmentationScenario:
    return build_benchmark(
        load_scenario(scenario, data_root),
        size=config.data.size,
        future_classes=config.evaluation.future_classes,
        valid_fraction=config.evaluation.valid_fraction,
    )


def _make_run(job: RunJob, benchmark: SegmentationScenario, report: Report) -> None:
    device = torch.device(job.device)
    base_classes = len(benchmark.train_stream[0].classes_in_this_experience)
    network = load_base(job.spec["base"]["hash"], job.config, job.recipe, base_classes, device)
    meter = ConfusionMeter()
    method = method_class(job.method)
    template = make_template(
        network, method, job.parameters, job.config, job.scenario, job.seed, device, [meter, _Progress(job, report)]
    )
    evaluated = benchmark.streams[job.config.evaluation.stream]
    writer = RunWriter(job.folder)
    writer.start(job.spec)
    done = 0
    for t, experience in enumerate(benchmark.train_stream):
        if t == 0:
            template.begin(experience)
        else:
            template.train(experience, eval_streams=[])
            done += template.cost.incoming_batches
        template.eval(evaluated[t])
        cost = {"step": t, **dataclasses.asdict(template.cost), "memory_images": template.method.kept()}
        writer.add_step(meter.matrix, cost)
        miou = mean_iou(meter.matrix)
        report(Event(job.key, "evaluated", done, job.units, t, miou=miou, finished_step=True))
    writer.finish()


def make_template(
    network: SegmentationNetwork,
    method: type[Method],
    parameters: Any,
    config: Config,
    scenario: str,
    seed: int,
    device: torch.device,
    plugins: Sequence[SupervisedPlugin] = (),
) -> OnlineTemplate:
    """Return the Avalanche template of a run; its randomness comes from the scenario's name and the seed."""
    kinds = ("initialisation", "order", "augmentation", "memory")
    seeds = Seeds(*(derived_seed(scenario, seed, kind) for kind in kinds))
    torch.manual_seed(seeds.initialisation)
    return OnlineTemplate(
        network=network,
        method=method(parameters, config.memory.size, np.random.default_rng(seeds.memory)),
        protocol=config.incremental,
        seeds=seeds,
        augmentation=augmentation(config),
        eval_batch_size=config.evaluation.batch_size,
        workers=config.data.workers,
        device=device,
        plugins=plugins,
    )


class _Progress(SupervisedPlugin):
    """Reports the batch under way a few times a second."""

    def __init__(self, job: RunJob, report: Report) -> None:
        super().__init__()
        self.job = job
        self.report = report
        self.done = 0
        self.throttle = Throttle()

    def after_training_iteration(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        self.done += 1
        if self.throttle.due():
            self.report(
                Event(
                    self.job.key,
                    "training",
                    self.done,
                    self.job.units,
                    step=strategy.experience.data.step,
                    batch=strategy.clock.train_exp_iterations + 1,
                    batches=len(strategy.dataloader),
                    loss=strategy.loss.item(),
                )
            )


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Compute with `count` threads for a block: equal numbers of threads give equal sums."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
