"""How the steps of a run are trained: a class for each of `bench.plan.protocols`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import ClassVar, NamedTuple

from bench.plan.job import RunJob
from bench.screen.events import Report
from bench.train.networks import new_network
from bench.train.resume import Start
from benchmarks.streams import SegmentationScenario
from strategies.learning.segmentation import SegmentationTemplate
from strategies.networks.network import SegmentationNetwork


class Trained(NamedTuple):
    """After a trained step: its number, the updates done so far, the template to evaluate."""

    step: int
    done: int
    template: SegmentationTemplate


class Training(ABC):
    """Trains the steps of a run, one after another.

    `template_of` wraps a network in the run's template.
    """

    keeps_template: ClassVar[bool]
    """Whether the next step goes on from the template of the one before, which a checkpoint keeps."""

    def __init__(
        self,
        job: RunJob,
        benchmark: SegmentationScenario,
        template_of: Callable[[SegmentationNetwork], SegmentationTemplate],
        report: Report,
    ) -> None:
        self.job = job
        self.benchmark = benchmark
        self.template_of = template_of
        self.report = report

    @abstractmethod
    def steps(self, start: Start) -> Iterator[Trained]:
        """Yield after each step that is evaluated, from `start` on; the caller evaluates it and keeps it."""

    def untrained(self) -> SegmentationTemplate:
        """Return a template with a network of the base model's form, to load a state into."""
        classes = len(self.benchmark.train_stream[0].classes_in_this_experience)
        network = new_network(self.job.config, self.job.recipe, classes, pretrained=False)
        return self.template_of(network.to(self.job.device))
