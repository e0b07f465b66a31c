"""The joint protocol: a base training on the union of the steps so far, each from scratch."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import torch

from bench.plan.protocols import PROTOCOLS
from bench.screen.events import Event
from bench.train.computing import told_of_losses
from bench.train.epochs import EpochTraining, train_epochs
from bench.train.kept import run_checkpoints
from bench.train.protocol import Trained, Training
from bench.train.resume import Start


class JointTraining(Training):
    """Epochs as of the base model; no step needs another's network."""

    keeps_template = False

    def steps(self, start: Start) -> Iterator[Trained]:
        """Yield after the training of every step, or of the last alone."""
        job, joint, done = self.job, list(self.benchmark.joint_stream), start.done

        def moved(event: Event) -> None:
            self.report(dataclasses.replace(event, done=done + event.done, total=job.units))

        for t in PROTOCOLS["joint"].steps(job.parameters, len(joint)):
            if t <= start.step:
                continue
            data, classes = joint[t].data, len(joint[t].classes_seen_so_far)
            checkpoint = run_checkpoints(job).during(t)
            held_out = self.benchmark.valid_stream[t].data
            task = EpochTraining(data, classes, job.config, job.recipe, job.seed, job.key, checkpoint, held_out)
            with told_of_losses(f"step {t}, ", ""):
                trained = train_epochs(task, torch.device(job.device), moved)
            done += job.config.base.updates_over(len(data))
            template = self.template_of(trained.network)
            template.clock.train_iterations = done
            yield Trained(t, done, template)
            checkpoint.remove()
