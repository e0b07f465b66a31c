"""An offline increment on several devices: a process each, their gradients averaged over every batch."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist

from bench.plan.job import RunJob
from bench.screen.events import Report
from bench.train.distributed import Rank, run_ranks
from bench.train.kept import run_checkpoints
from bench.train.networks import new_network
from bench.train.offline import train_offline
from bench.train.state import exemplars_of, packed, unpacked
from bench.train.template import Progress, make_template
from benchmarks.streams import SegmentationScenario
from strategies.learning.cost import StepCost
from strategies.learning.offline import Devices, OfflineTemplate
from strategies.learning.registry import method_class


class RankDevices(Devices):
    """The ranks of a process group, seen from one of them."""

    def __init__(self, rank: Rank) -> None:
        self.number, self.size, self.device = rank.number, rank.size, rank.device

    def average(self, network: nn.Module, images: int) -> None:
        """Average the gradients over the ranks, weighed by their images."""
        gradients = [p.grad for p in network.parameters() if p.grad is not None]
        joined = torch.cat([gradient.flatten() for gradient in gradients])
        weighed = torch.cat([joined * images, torch.full((1,), float(images)).to(joined)])
        dist.all_reduce(weighed)
        mean = weighed[:-1] / weighed[-1]
        for gradient, part in zip(gradients, mean.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def total(self, counts: Tensor) -> Tensor:
        """Return the sum of counts, int64 on this device, over the ranks."""
        total = counts.clone()
        dist.all_reduce(total)
        return total


@dataclass(frozen=True)
class RankedStep:
    """A step of a run for one of several ranks; `state` is the template's before it, packed."""

    job: RunJob
    benchmark: SegmentationScenario
    step: int
    state: Any

    def __call__(self, rank: Rank, report: Report) -> None:
        """Train the step; the first rank leaves the end of it in the step's checkpoint."""
        job = self.job
        classes = len(self.benchmark.train_stream[0].classes_in_this_experience)
        network = new_network(job.config, job.recipe, classes, pretrained=False).to(rank.device)
        method, scenario = method_class(job.method), job.spec["scenario"]
        given = network, method, job.parameters, job.config, scenario, job.seed, rank.device, [Progress(job, report)]
        template = make_template(*given)
        assert isinstance(template, OfflineTemplate)
        template.load_state_dict(unpacked(self.state, exemplars_of(self.benchmark)))
        rank.synchronise(network)
        template._distributed_check = True  # of Avalanche's plugins: no tensor of theirs needs the other ranks
        template.devices = RankDevices(rank)
        train_offline(job, self.benchmark, template, self.step, rank, report)
        if rank.leads:
            run_checkpoints(job).during(self.step).write({"trained": _trained(template)})


def train_on_ranks(
    job: RunJob, benchmark: SegmentationScenario, template: OfflineTemplate, step: int, size: int, report: Report
) -> None:
    """Train a step of a run in `size` processes, or go on within it, and take over what they have made of it."""
    checkpoint = run_checkpoints(job).during(step)
    if checkpoint.fault() or "trained" not in checkpoint.read():
        state = packed(template.state_dict())
        work = RankedStep(job, benchmark, step, state)
        run_ranks(work, size, template.device.type, job.config.runtime, report)

    def take_over(state: Any) -> None:
        trained = state["trained"]
        template.load_state_dict(unpacked(trained["template"], exemplars_of(benchmark)))
        template.cost = StepCost(**trained["cost"])
        template.clock.train_iterations = trained["iterations"]

    checkpoint.restore(take_over)


def _trained(template: OfflineTemplate) -> dict[str, Any]:
    return {
        "template": packed(template.state_dict()),
        "cost": dataclasses.asdict(template.cost),
        "iterations": template.clock.train_iterations,
    }
