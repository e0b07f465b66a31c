"""One run: from streams through a learner to a run directory."""

from __future__ import annotations

import dataclasses
import time

import numpy as np
import torch

from bench.plan.job import RunJob, below_bar
from bench.plan.protocols import protocol_of
from bench.screen.events import Event, Report
from bench.screen.stopping import stop_if_asked
from bench.train.evaluating import count_pixels
from bench.train.increments import OfflineTraining, OnlineTraining
from bench.train.joint import JointTraining
from bench.train.keeping import forget_networks, keep_network
from bench.train.kept import run_checkpoints
from bench.train.loggers import RunLoggers
from bench.train.protocol import Training
from bench.train.resume import keep_step, start_run
from bench.train.template import Progress, make_template
from benchmarks.annotated import AnnotatedImages
from benchmarks.streams import SegmentationScenario
from reports.metrics import mean_iou
from reports.run_writer import RunWriter
from reports.steps import own_confusion
from strategies.learning.evaluation import PixelMeter
from strategies.learning.registry import method_class
from strategies.learning.segmentation import SegmentationTemplate
from strategies.networks.network import SegmentationNetwork

TRAININGS: dict[str, type[Training]] = {"online": OnlineTraining, "offline": OfflineTraining, "joint": JointTraining}
"""By the names of `bench.plan.protocols`."""


def make_run(job: RunJob, benchmark: SegmentationScenario, report: Report) -> None:
    """Make a run, or go on with it, and write its directory, `done` last."""
    meter = PixelMeter()
    with RunLoggers(job, meter) as loggers:
        _make_steps(job, benchmark, meter, loggers, report)


def _make_steps(
    job: RunJob, benchmark: SegmentationScenario, meter: PixelMeter, loggers: RunLoggers, report: Report
) -> None:
    method = method_class(job.method)

    def template_of(network: SegmentationNetwork) -> SegmentationTemplate:
        return make_template(
            network,
            method,
            job.parameters,
            job.config,
            job.spec["scenario"],
            job.seed,
            torch.device(job.device),
            [meter, Progress(job, report)],
            loggers.evaluator,
        )

    training = TRAININGS[protocol_of(method.protocols, job.config.protocol)](job, benchmark, template_of, report)
    (job.folder / "error.txt").unlink(missing_ok=True)
    writer = RunWriter(job.folder)
    start = start_run(job, benchmark, training.untrained if training.keeps_template else None, writer, report)
    forget_networks(job.folder, start.step + 1)
    loggers.open(start)
    stream = benchmark.streams[job.config.evaluation.stream]
    shown = _Shown(stream[-1].data, job.config.evaluation.pictures)
    shown.write_images(writer)
    for t, done, template in training.steps(start):
        started = time.perf_counter()
        counts, contours = count_pixels(template, benchmark, job.config.evaluation.stream, t, meter)
        cost = {"step": t, **dataclasses.asdict(template.measured())}
        cost["evaluation_seconds"] = time.perf_counter() - started
        shown.write_predictions(writer, template, t)
        keep_network(job, template, t)
        writer.add_step(counts, cost, contours)
        if not training.keeps_template:
            if t + 1 < len(stream):
                keep_step(job, t, done, None, writer)
        elif method.resumable:
            keep_step(job, t, done, template, writer)
        miou = mean_iou(own_confusion(job.spec, counts))
        report(Event(job.key, "evaluated", done, job.units, t, miou=miou, finished_step=True))
        if t + 1 < len(stream):
            if below_bar(miou, t, job.bars):
                run_checkpoints(job).clear()
                return
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

    def write_predictions(self, writer: RunWriter, template: SegmentationTemplate, step: int) -> None:
        """Record what is predicted after a step."""
        labels = {self.data.ids[i]: template.predicted(self.data[i][0][None])[0].numpy() for i in self.places}
        writer.add_pictures(f"step-{step}", labels)
