"""Training over epochs, with a schedule: what base models and `joint` come from (METHODS, Protocol)."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.screen.events import Event, Report, Throttle
from bench.screen.stopping import Stopped, stop_asked
from bench.settings.schema import Config
from bench.train.checkpoint import Checkpoint, CheckpointError
from bench.train.distributed import Rank, run_ranks
from bench.train.held_out import held_out_miou, predicted_by
from bench.train.networks import augmentation, new_network
from bench.train.seeds import derived_seed
from benchmarks.annotated import AnnotatedImages
from strategies.learning.guard import LossGuard, listed
from strategies.learning.importance import BaseMeasures
from strategies.learning.losses import BaseLoss
from strategies.learning.protocol import BaseRecipe
from strategies.learning.randomness import generator_states, set_generator_states
from strategies.learning.schedule import learning_rate, make_optimizer, set_learning_rate
from strategies.networks.modes import set_modes
from strategies.networks.network import SegmentationNetwork
from strategies.networks.settings import NO_WEIGHTS

Batch = tuple[Tensor, Tensor]
"""Images and labels."""
CHECKPOINT_SECONDS = 30.0
"""An epoch's end writes a checkpoint if the last one is at least so old."""


@dataclass
class TrainingState:
    """A training between two epochs; `seconds` were spent on the `epochs` behind it."""

    network: SegmentationNetwork
    optimizer: torch.optim.Optimizer
    device: torch.device
    epochs: int = 0
    seconds: float = 0.0
    measures: BaseMeasures | None = None
    best: dict[str, Any] | None = None
    """Of the epoch that did best on held-out images its mIoU and its network's state, where the best is asked for."""

    def state_dict(self) -> dict[str, Any]:
        """Return what the next epoch goes on from, as plain data and tensors."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generators": generator_states(self.device),
            "epochs": self.epochs,
            "seconds": self.seconds,
            "best": self.best,
            "measures": self.measures.state_dict() if self.measures else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` returned, in a training started alike."""
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.epochs, self.seconds, self.best = state["epochs"], state["seconds"], state["best"]
        if self.measures:
            self.measures.load_state_dict(state["measures"])
        set_generator_states(state["generators"], self.device)


def train_epochs(task: EpochTraining, device: torch.device, report: Report) -> TrainingState:
    """Train a network (METHODS, Protocol) and return the end of the training, its network in eval mode.

    The training goes on from the task's checkpoint if that is sound and leaves it behind: the caller removes it when
    what was trained is kept. With `base.devices` above 1 so many processes share each batch. Raises
    `NonFiniteLossError`.
    """
    config = task.config
    if config.base.devices == 1:
        training = task.train(Rank(device), report)
    else:
        run_ranks(task.train, config.base.devices, device.type, config.runtime, report)
        training = task.started(Rank(device), pretrained=False)
        task.checkpoint.restore(training.load_state_dict)
    training.network.eval()
    return training


@dataclass(frozen=True)
class EpochTraining:
    """A network to train on some images over epochs, with warm-up and poly decay: a base model, or joint's."""

    data: AnnotatedImages
    classes: int
    config: Config
    recipe: BaseRecipe
    seed: int
    job: str
    checkpoint: Checkpoint
    held_out: AnnotatedImages | None = None
    """The images by which `base.weights=best` chooses."""

    @property
    def loss(self) -> BaseLoss:
        """The recipe's loss."""
        return BaseLoss(self.recipe, self.config.data.void == "negative")

    @property
    def total(self) -> int:
        """The number of updates."""
        return self.config.base.updates_over(len(self.data))

    @property
    def epochs(self) -> int:
        """The number of epochs."""
        return self.config.base.epochs_over(len(self.data))

    @property
    def updates_per_epoch(self) -> int:
        """The number of batches of an epoch."""
        return self.total // self.epochs

    def started(self, rank: Rank, pretrained: bool) -> TrainingState:
        """Return a training that has done nothing yet."""
        torch.manual_seed(derived_seed("base", self.seed, "initialisation"))
        network = new_network(self.config, self.recipe, self.classes, pretrained).to(rank.device).train()
        rank.synchronise(network)
        training = TrainingState(
            network, make_optimizer(network, self.config.base, self.config.runtime.fused), rank.device
        )
        training.measures = BaseMeasures(network) if self.recipe.importance else None
        return training

    def gone_on(self, rank: Rank, report: Report) -> TrainingState:
        """Return the training at the checkpoint, or at its start; the ranks start from the first one's weights."""

        def note(text: str) -> None:
            report(Event(self.job, "training", 0, self.total, note=text))

        pretrained = self.config.network.weights != NO_WEIGHTS and rank.leads
        training = self.started(rank, pretrained)
        if self.checkpoint.path.exists():
            try:
                self.checkpoint.restore(training.load_state_dict)
                note(f"goes on after epoch {training.epochs}")
            except CheckpointError as error:
                note(f"{error}; trained from the start")
                training = self.started(rank, pretrained)
        return training

    def train(self, rank: Rank, report: Report) -> TrainingState:
        """Do a rank's part of the training; the first of several leaves the end of it in the checkpoint."""
        training, epochs = self.gone_on(rank, report), self.epochs
        throttle, due = Throttle(), Throttle(CHECKPOINT_SECONDS)
        for epoch, batches in enumerate(self.passes(rank, training.epochs), training.epochs):
            set_modes(training.network, self.config.base.batchnorm, self.config.base.dropout)
            started = time.perf_counter()
            updates = self.updates(training, epoch, batches, rank)
            for done, loss in enumerate(updates, epoch * self.updates_per_epoch + 1):
                if throttle.due():
                    report(Event(self.job, f"epoch {epoch + 1}/{epochs}", done, self.total, loss=loss.item()))
            training.epochs = epoch + 1
            if training.measures and training.epochs == epochs:
                training.measures.finish()
            if self.config.base.weights == "best" and rank.leads:
                self.keep_if_best(training)
            training.seconds += time.perf_counter() - started
            last = training.epochs == epochs
            stopping = not last and rank.agreed(stop_asked())
            if rank.leads and (due.due() or stopping or (last and rank.size > 1)):
                self.checkpoint.write(training.state_dict())
            if stopping:
                raise Stopped
        return training

    def keep_if_best(self, training: TrainingState) -> None:
        """Remember the network if no epoch before did better on held-out images; the last one's becomes the best's."""
        assert self.held_out is not None
        network, sizes = training.network, (self.config.evaluation.batch_size, self.config.data.workers)
        predict = predicted_by(network, training.device)
        miou = held_out_miou(predict, network.outputs, self.held_out, *sizes)
        if training.best is None or miou > training.best["miou"]:
            state = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
            training.best = {"miou": miou, "network": state}
        if training.epochs == self.epochs:
            network.load_state_dict(training.best["network"])

    def updates(self, training: TrainingState, epoch: int, batches: Iterable[Batch], rank: Rank) -> Iterator[Tensor]:
        """Update the network with each batch of an epoch and yield the batch's loss."""
        if rank.size > 1:
            torch.manual_seed(derived_seed("base", self.seed, "dropout", epoch, rank.number))
        # Wrapped anew in every epoch: the order in which ranks add up gradients changes after the first update.
        network, guard = rank.parallel(training.network), LossGuard(training.network)
        optimizer, device = training.optimizer, rank.device
        order = self.order(epoch)
        for number, (images, labels) in enumerate(batches):
            iteration = epoch * self.updates_per_epoch + number
            base = self.config.base
            set_learning_rate(optimizer, learning_rate(base, iteration, self.total), base.min_lr)
            images, labels = images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
            optimizer.zero_grad()
            if self.config.base.accumulate == 1:
                own = self.loss(network(images), labels)
                share, loss = rank.of_whole_batch(own, self.loss.pixels(labels))
                torch.autograd.backward(share)
            else:
                loss = self.accumulated(network, images, labels)
            if training.measures:
                training.measures.follow()
            optimizer.step()
            where = f"epoch {epoch + 1}, batch {number + 1} of {self.updates_per_epoch}"
            guard.follow(loss, where, partial(self.images_told, order, number))
            yield loss
        guard.finish()

    def accumulated(self, network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        """Add up the gradients of a batch's parts and return its loss: the mean over all pixels that it counts."""
        whole = self.loss.pixels(labels).clamp(min=1)
        total = torch.zeros((), device=labels.device)
        parts = self.config.base.accumulate
        for some, truth in zip(images.chunk(parts), labels.chunk(parts), strict=True):
            loss = self.loss(network(some), truth) * (self.loss.pixels(truth) / whole)
            torch.autograd.backward(loss)
            total += loss.detach()
        return total

    def order(self, epoch: int) -> list[int]:
        """Return the images of an epoch, by their places in the data."""
        rng = np.random.default_rng([derived_seed("base", self.seed, "order"), epoch])
        order: list[int] = rng.permutation(len(self.data)).tolist()
        return order[: self.updates_per_epoch * self.config.base.batch_size]  # less what `drop_last` leaves out

    def passes(self, rank: Rank, first: int = 0) -> Iterator[Iterator[Batch]]:
        """Yield the batches of each epoch from the `first` on, as far as they are a rank's."""
        config, seed = self.config, derived_seed("base", self.seed, "augmentation")
        orders = ((self.order(epoch), (seed, epoch)) for epoch in range(first, self.epochs))
        given = augmentation(config), config.data.workers, (rank.number, rank.size)
        for shares in self.data.epochs(config.base.batch_size, orders, *given, device=rank.device):
            yield rank.filled_up(shares, self.updates_per_epoch)

    def images_told(self, order: list[int], number: int) -> str:
        """Return which images a whole batch has."""
        size = self.config.base.batch_size
        return listed("incoming", [self.data.ids[i] for i in order[number * size : (number + 1) * size]])
