"""The protocols that start from the base model and train one increment after another."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

from bench.train.base import load_base
from bench.train.distributed import Rank
from bench.train.kept import run_checkpoints
from bench.train.offline import train_offline
from bench.train.protocol import Trained, Training
from bench.train.ranked import train_on_ranks
from bench.train.resume import Start
from strategies.learning.offline import OfflineTemplate
from strategies.learning.protocol import OnlineProtocol
from strategies.learning.template import OnlineTemplate


class Increments(Training):
    """From the base model through all increments, each of them trained once."""

    keeps_template = True

    def steps(self, start: Start) -> Iterator[Trained]:
        """Yield after the base step, which is not trained here, and after each increment."""
        stream = self.benchmark.train_stream
        template, done = start.template, start.done
        if template is None:
            template = self.untrained()
            template.method.begin_from(load_base(self.job.spec["base"]["hash"], template.network))
            template.begin(stream[0])
            yield Trained(0, done, template)
        for t in range(max(1, start.step + 1), len(stream)):
            self.train(template, t)
            done += template.cost.updates
            yield Trained(t, done, template)
            run_checkpoints(self.job).during(t).remove()

    @abstractmethod
    def train(self, template: Any, step: int) -> None:
        """Train an increment."""


class OnlineTraining(Increments):
    """One update per incoming batch; the template enforces the rest."""

    def train(self, template: OnlineTemplate, step: int) -> None:
        """Pass over the increment once, on one device or on several that share each batch."""
        assert isinstance(self.job.config.incremental, OnlineProtocol)
        devices = self.job.config.incremental.devices
        if devices == 1:
            template.train(self.benchmark.train_stream[step], eval_streams=[])
        else:
            train_on_ranks(self.job, self.benchmark, template, step, devices, self.report)


class OfflineTraining(Increments):
    """Epochs over each increment, on one device or shared by several."""

    def train(self, template: OfflineTemplate, step: int) -> None:
        """Train over the epochs of an increment, or go on within them."""
        devices = self.job.config.base.devices
        if devices == 1:
            train_offline(self.job, self.benchmark, template, step, Rank(template.device), self.report)
        else:
            train_on_ranks(self.job, self.benchmark, template, step, devices, self.report)
