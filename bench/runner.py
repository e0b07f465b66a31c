"""One run: from streams through a learner to a run directory."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from avalanche.core import SupervisedPlugin
from avalanche.training.plugins import EvaluationPlugin

from bench.base import (
    augmentation,
    iterations,
    load_base,
    new_network,
    train_base,
)
from bench.config import Config
from bench.events import Event, Report, Throttle
from bench.log import log
from bench.loggers import RunLoggers
from bench.resume import Start, keep_step, run_checkpoints, start_run
from bench.seeds import derived_seed
from bench.stopping import stop_if_asked
from benchmarks.streams import AnnotatedImages, SegmentationScenario
from reports.metrics import mean_iou
from reports.records import RunWriter
from strategies.evaluation import ConfusionMeter
from strategies.faults import NonFiniteLossError
from strategies.method import Method
from strategies.network import SegmentationNetwork
from strategies.registry import method_class
from strategies.template import OnlineTemplate, Seeds

if TYPE_CHECKING:
    from bench.jobs import RunJob


def make_run(job: RunJob, benchmark: SegmentationScenario, report: Report) -> None:
    """Make a run, or go on with it, and write its directory, `done` last."""
    meter = ConfusionMeter()
    with RunLoggers(job, meter) as loggers:
        _make_steps(job, benchmark, meter, loggers, report)


def _make_steps(
    job: RunJob, benchmark: SegmentationScenario, meter: ConfusionMeter, loggers: RunLoggers, report: Report
) -> None:
    method = method_class(job.method)
    progress = _Progress(job, report)
    plugins = [meter, progress]

    def template_of(network: SegmentationNetwork) -> OnlineTemplate:
        return make_template(
            network,
            method,
            job.parameters,
            job.config,
            job.spec["scenario"],
            job.seed,
            torch.device(job.device),
            plugins,
            loggers.evaluator,
        )

    (job.folder / "error.txt").unlink(missing_ok=True)
    writer = RunWriter(job.folder)

    def unloaded() -> OnlineTemplate | None:
        return None if method.offline else template_of(_untrained(job, benchmark))

    start = start_run(job, benchmark, unloaded, writer, report)
    progress.done = start.done
    loggers.open(start)
    stream = benchmark.streams[job.config.evaluation.stream]
    shown = _Shown(stream[-1].data, job.config.evaluation.pictures)
    shown.write_images(writer)
    steps = _offline_steps if method.offline else _online_steps
    for t, done, template in steps(job, benchmark, template_of, start, report):
        started = time.perf_counter()
        template.eval(stream[t])
        cost = {"step": t, **dataclasses.asdict(template.measured())}
        cost["evaluation_seconds"] = time.perf_counter() - started
        shown.write_predictions(writer, template, t)
        writer.add_step(meter.matrix, cost)
        if not method.offline or t + 1 < len(stream):
            keep_step(job, t, done, template, writer)
        miou = mean_iou(meter.matrix)
        report(Event(job.key, "evaluated", done, job.units, t, miou=miou, finished_step=True))
        if t + 1 < len(stream):
            stop_if_asked()
    writer.finish()
    run_checkpoints(job).clear()


class _Shown:
    """The images whose predictions are kept: evenly spread over those of the last step."""

    def __init__(self, data: AnnotatedImages, count: int) -> None:
        self.data = data
        self.places = np.unique(np.linspace(0, len(data) - 1, min(count, len(data))).round().astype(int)).tolist()

    def write_images(self, writer: RunWriter) -> None:
        """Record the images and their true labels."""
        decoded = {self.data.ids[i]: self.data.annotated(i) for i in self.places}
        writer.add_pictures("images", {name: image.permute(1, 2, 0).numpy() for name, (image, _) in decoded.items()})
        writer.add_pictures("truth", {name: labels.numpy() for name, (_, labels) in decoded.items()})

    def write_predictions(self, writer: RunWriter, template: OnlineTemplate, step: int) -> None:
        """Record what is predicted after a step."""
        labels = {self.data.ids[i]: template.predicted(self.data[i][0][None])[0].numpy() for i in self.places}
        writer.add_pictures(f"step-{step}", labels)


TemplateOf = Callable[[SegmentationNetwork], OnlineTemplate]
Trained = Iterator[tuple[int, int, OnlineTemplate]]
"""After each trained step: its number, the updates done so far, the template to evaluate."""


def _untrained(job: RunJob, benchmark: SegmentationScenario) -> SegmentationNetwork:
    """Return a network of the base model's form."""
    classes = len(benchmark.train_stream[0].classes_in_this_experience)
    return new_network(job.config, job.recipe, classes, pretrained=False).to(job.device)


def _online_steps(
    job: RunJob, benchmark: SegmentationScenario, template_of: TemplateOf, start: Start, report: Report
) -> Trained:
    """Start from the base model, or go on, and pass once over each increment."""
    template, done = start.template, start.done
    if template is None:
        template = template_of(_untrained(job, benchmark))
        load_base(job.spec["base"]["hash"], template.network)
        template.begin(benchmark.train_stream[0])
        yield 0, done, template
    for t in range(max(1, start.step + 1), len(benchmark.train_stream)):
        template.train(benchmark.train_stream[t], eval_streams=[])
        done += template.cost.incoming_batches
        yield t, done, template


def _offline_steps(
    job: RunJob, benchmark: SegmentationScenario, template_of: TemplateOf, start: Start, report: Report
) -> Trained:
    """Train by the base protocol on the union of the steps: at every one, or at the last alone."""
    device = torch.device(job.device)
    joint = list(benchmark.joint_stream)
    done = start.done

    def moved(event: Event) -> None:
        report(dataclasses.replace(event, done=done + event.done, total=job.units))

    for t in offline_steps(job.parameters, len(joint)):
        if t <= start.step:
            continue
        data, classes = joint[t].data, len(joint[t].classes_seen_so_far)
        checkpoint = run_checkpoints(job).during(t)
        with told_of_losses(f"step {t}, ", ""):
            trained = train_base(data, classes, job.config, job.recipe, job.seed, device, job.key, moved, checkpoint)
        done += iterations(job.config, len(data))
        template = template_of(trained.network)
        template.clock.train_iterations = done
        yield t, done, template
        checkpoint.remove()


def offline_steps(parameters: Any, steps: int) -> list[int]:
    """Return the steps at which an offline method is trained and evaluated."""
    return list(range(steps)) if getattr(parameters, "every_step", False) else [steps - 1]


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
        memory_size=config.memory.size,
        augmentation=augmentation(config),
        eval_batch_size=config.evaluation.batch_size,
        workers=config.data.workers,
        device=device,
        plugins=plugins,
        evaluator=evaluator,
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
        if log.isEnabledFor(logging.DEBUG):
            log.debug("update %d of %d, loss %.8g", self.done, self.job.units, strategy.loss.item())
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
def told_of_losses(before: str, after: str) -> Iterator[None]:
    """Put words around those of a `NonFiniteLossError`."""
    try:
        yield
    except NonFiniteLossError as error:
        raise NonFiniteLossError(f"{before}{error}{after}") from None
