"""An increment on several devices: a process each, their gradients averaged over every batch."""

from __future__ import annotations

import dataclasses
import io
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist

from bench.plan.job import RunJob
from bench.screen.events import Report
from bench.train.distributed import Rank, run_ranks
from bench.train.kept import run_checkpoints
from bench.train.losses import LossRecord, log_losses
from bench.train.networks import new_network
from bench.train.offline import train_offline
from bench.train.state import load_packed, packed
from bench.train.template import Progress, make_template
from benchmarks.streams import SegmentationScenario
from strategies.learning.cost import StepCost
from strategies.learning.devices import Devices
from strategies.learning.offline import OfflineTemplate
from strategies.learning.registry import method_class
from strategies.learning.segmentation import SegmentationTemplate


class RankDevices(Devices):
    """The ranks of a process group, seen from one of them."""

    def __init__(self, rank: Rank) -> None:
        self.number, self.size, self.device = rank.number, rank.size, rank.device

    def average(self, network: nn.Module, loss: Tensor, weight: int | Tensor) -> Tensor:
        """Average the gradients and the loss over the ranks, each weighed; return the loss."""
        gradients = [p.grad for p in network.parameters() if p.grad is not None]
        joined = torch.cat([each.flatten() for each in (loss.detach().to(gradients[0]), *gradients)])
        own = torch.as_tensor(weight).to(joined)
        weighed = torch.cat([joined * own, own[None]])
        dist.all_reduce(weighed)
        mean = weighed[:-1] / weighed[-1].clamp(min=1)
        for gradient, part in zip(gradients, mean[1:].split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))
        return mean[:1].view_as(loss)

    def total(self, counts: Tensor) -> Tensor:
        """Return the sum of counts on this device over the ranks."""
        total = counts.clone()
        dist.all_reduce(total)
        return total

    def pooled(self, means: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        """Return means, each over so many values, and the counts, over the values of all ranks."""
        values = counts.double()
        sums = self.total(torch.stack([means * values, values]))
        return sums[0] / sums[1].clamp(min=1), sums[1]


@dataclass(frozen=True)
class RankedStep:
    """A step of a run for one of several ranks; `state` is the template's before it, packed, as `torch.save` has it,
    after `done` updates."""

    job: RunJob
    benchmark: SegmentationScenario
    step: int
    state: bytes
    done: int

    def __call__(self, rank: Rank, report: Report) -> None:
        """Train the step; the first rank leaves the end of it in the step's checkpoint."""
        job = self.job
        classes = len(self.benchmark.train_stream[0].classes_in_this_experience)
        network = new_network(job.config, job.recipe, classes, pretrained=False).to(rank.device)
        method, scenario = method_class(job.method), job.spec["scenario"]
        record = LossRecord()
        plugins = [Progress(job, report), *([record] if rank.leads and job.loggers else [])]
        given = network, method, job.parameters, job.config, scenario, job.seed, rank.device, plugins
        template = make_template(*given)
        state = torch.load(io.BytesIO(self.state), map_location="cpu", weights_only=True)
        load_packed(template, state, self.benchmark)
        template.clock.train_iterations = self.done
        rank.synchronise(network)
        template._distributed_check = True  # of Avalanche's plugins: no tensor of theirs needs the other ranks
        template.devices = RankDevices(rank)
        if isinstance(template, OfflineTemplate):
            train_offline(job, self.benchmark, template, self.step, rank, report)
        else:
            template.train(self.benchmark.train_stream[self.step], eval_streams=[])
        if rank.leads:
            run_checkpoints(job).during(self.step).write({"trained": _trained(template, record)})


def train_on_ranks(
    job: RunJob, benchmark: SegmentationScenario, template: SegmentationTemplate, step: int, size: int, report: Report
) -> None:
    """Train a step of a run in `size` processes, or go on within it, and take over what they have made of it."""
    checkpoint = run_checkpoints(job).during(step)
    if checkpoint.fault() or "trained" not in checkpoint.read():
        state = io.BytesIO()
        torch.save(packed(template.state_dict()), state)
        work = RankedStep(job, benchmark, step, state.getvalue(), template.clock.train_iterations)
        run_ranks(work, size, template.device.type, job.config.runtime, report)

    def take_over(state: Any) -> None:
        trained = state["trained"]
        load_packed(template, trained["template"], benchmark)
        template.cost = StepCost(**trained["cost"])
        log_losses(template, benchmark.train_stream[step], trained["losses"], trained["iterations"])

    checkpoint.restore(take_over)


def _trained(template: SegmentationTemplate, record: LossRecord) -> dict[str, Any]:
    return {
        "template": packed(template.state_dict()),
        "cost": dataclasses.asdict(template.cost),
        "iterations": template.clock.train_iterations,
        "losses": record.epochs(),
    }
