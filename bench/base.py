"""Base models: trained once per recipe, kept under the hash of what determines them, shared by all."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from bench.checkpoint import Checkpoint, CheckpointError
from bench.code import code_digest
from bench.config import Config
from bench.distributed import Rank, run_ranks
from bench.events import Event, Report, Throttle
from bench.log import log
from bench.seeds import derived_seed
from bench.stopping import Stopped, stop_asked
from benchmarks.augmentation import Augmentation
from benchmarks.cache import cache_folder
from benchmarks.streams import AnnotatedImages, SegmentationScenario
from reports.atomic import write_atomic
from strategies.guard import LossGuard, listed
from strategies.losses import BASE_LOSSES
from strategies.network import SegmentationNetwork, build_network
from strategies.protocol import BaseRecipe
from strategies.randomness import generator_states, set_generator_states

if TYPE_CHECKING:
    from bench.jobs import BaseJob

CHECKPOINT_SECONDS = 30.0
"""An epoch's end writes a checkpoint if the last one is at least so old."""


def base_model(base_hash: str) -> Checkpoint:
    """Return the file in which the base model of a hash is kept: what determines it, and its network."""
    return Checkpoint(cache_folder("bases") / f"{base_hash}.base", {"base": base_hash})


def base_checkpoint(base_hash: str) -> Checkpoint:
    """Return the checkpoint of the training of a base model."""
    return Checkpoint(cache_folder("bases") / f"{base_hash}.ckpt", {"base": base_hash, "code": code_digest()})


def augmentation(config: Config) -> Augmentation:
    """Return what is done to every training image."""
    return Augmentation(config.data.scale, config.data.crop, config.data.flip)


def new_network(config: Config, recipe: BaseRecipe, classes: int, pretrained: bool) -> SegmentationNetwork:
    """Return an untrained network with the recipe's head, in the memory layout that convolutions like best."""
    network = build_network(config.network.name, classes, recipe.head, recipe.tau, pretrained)
    network.precision = config.runtime.precision
    return network.to(memory_format=torch.channels_last)


def iterations(config: Config, images: int) -> int:
    """Return the number of updates of a base training."""
    return config.base.epochs * math.ceil(images / config.base.batch_size)


@dataclass
class BaseTraining:
    """A base training between two epochs; `seconds` were spent on the `epochs` behind it."""

    network: SegmentationNetwork
    optimizer: torch.optim.Optimizer
    device: torch.device
    epochs: int = 0
    seconds: float = 0.0

    def state_dict(self) -> dict[str, Any]:
        """Return what the next epoch goes on from, as plain data and tensors."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generators": generator_states(self.device),
            "epochs": self.epochs,
            "seconds": self.seconds,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` returned, in a training started alike."""
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.epochs, self.seconds = state["epochs"], state["seconds"]
        set_generator_states(state["generators"], self.device)


def make_base(job: BaseJob, benchmark: SegmentationScenario, report: Report) -> None:
    """Train the base model of a job on the first step of a benchmark, or go on with it, and keep it."""
    experience = benchmark.train_stream[0]
    classes = len(experience.classes_in_this_experience)
    checkpoint = base_checkpoint(job.base["hash"])
    device = torch.device(job.device)
    trained = train_base(
        experience.data, classes, job.config, job.recipe, job.seed, device, job.key, report, checkpoint
    )
    save_base(trained.network, job.base, trained.seconds / job.units)
    checkpoint.remove()


def train_base(
    data: AnnotatedImages,
    classes: int,
    config: Config,
    recipe: BaseRecipe,
    seed: int,
    device: torch.device,
    job: str,
    report: Report,
    checkpoint: Checkpoint,
) -> BaseTraining:
    """Train a base model (METHODS, Protocol) and return the training, its network in eval mode.

    The training goes on from `checkpoint` if that is sound and leaves it behind: the caller removes it when what
    was trained is kept. With `base.devices` above 1 so many processes share each batch. Raises `NonFiniteLossError`.
    """
    task = _Task(data, classes, config, recipe, seed, job, checkpoint)
    if config.base.devices == 1:
        training = task.train(Rank(device), report)
    else:
        run_ranks(task.train, config.base.devices, device.type, config.runtime, report)
        training = task.started(Rank(device), pretrained=False)
        checkpoint.restore(training.load_state_dict)
    training.network.eval()
    return training


@dataclass(frozen=True)
class _Task:
    """A base model to train."""

    data: AnnotatedImages
    classes: int
    config: Config
    recipe: BaseRecipe
    seed: int
    job: str
    checkpoint: Checkpoint

    @property
    def total(self) -> int:
        """The number of updates."""
        return iterations(self.config, len(self.data))

    @property
    def updates_per_epoch(self) -> int:
        """The number of batches of an epoch."""
        return self.total // self.config.base.epochs

    def started(self, rank: Rank, pretrained: bool) -> BaseTraining:
        """Return a training that has done nothing yet."""
        torch.manual_seed(derived_seed("base", self.seed, "initialisation"))
        network = new_network(self.config, self.recipe, self.classes, pretrained).to(rank.device).train()
        rank.synchronise(network)
        return BaseTraining(network, _optimizer(network, self.config), rank.device)

    def gone_on(self, rank: Rank, report: Report) -> BaseTraining:
        """Return the training at the checkpoint, or at its start; the ranks start from the first one's weights."""

        def note(text: str) -> None:
            report(Event(self.job, "training", 0, self.total, note=text))

        pretrained = self.config.network.pretrained and rank.leads
        training = self.started(rank, pretrained)
        if self.checkpoint.path.exists():
            try:
                self.checkpoint.restore(training.load_state_dict)
                note(f"goes on after epoch {training.epochs}")
            except CheckpointError as error:
                note(f"{error}; trained from the start")
                training = self.started(rank, pretrained)
        return training

    def train(self, rank: Rank, report: Report) -> BaseTraining:
        """Do a rank's part of the training; the first of several leaves the end of it in the checkpoint."""
        training, epochs = self.gone_on(rank, report), self.config.base.epochs
        throttle, due = Throttle(), Throttle(CHECKPOINT_SECONDS)
        for epoch in range(training.epochs, epochs):
            started = time.perf_counter()
            for done, loss in enumerate(self.updates(training, epoch, rank), epoch * self.updates_per_epoch + 1):
                if throttle.due():
                    report(Event(self.job, f"epoch {epoch + 1}/{epochs}", done, self.total, loss=loss.item()))
            training.epochs = epoch + 1
            training.seconds += time.perf_counter() - started
            last = training.epochs == epochs
            stopping = not last and rank.agreed(stop_asked())
            if rank.leads and (due.due() or stopping or (last and rank.size > 1)):
                self.checkpoint.write(training.state_dict())
            if stopping:
                raise Stopped
        return training

    def updates(self, training: BaseTraining, epoch: int, rank: Rank) -> Iterator[Tensor]:
        """Update the network with each batch of an epoch and yield the batch's loss."""
        if rank.size > 1:
            torch.manual_seed(derived_seed("base", self.seed, "dropout", epoch, rank.number))
        # Wrapped anew in every epoch: the order in which ranks add up gradients changes after the first update.
        network, guard = rank.parallel(training.network), LossGuard(training.network)
        loss_of, optimizer, device = BASE_LOSSES[self.recipe.loss], training.optimizer, rank.device
        order = self.order(epoch)
        for number, (images, labels) in enumerate(self.batches(order, epoch, rank)):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(self.config, epoch * self.updates_per_epoch + number, self.total)
            logits, labels = network(images.to(device, non_blocking=True)), labels.to(device, non_blocking=True)
            share, loss = rank.of_whole_batch(loss_of(logits, labels), labels)
            optimizer.zero_grad()
            torch.autograd.backward(share)
            optimizer.step()
            where = f"epoch {epoch + 1}, batch {number + 1} of {self.updates_per_epoch}"
            guard.follow(loss, where, partial(self.images_told, order, number))
            yield loss
        guard.finish()

    def order(self, epoch: int) -> list[int]:
        """Return the images of an epoch, by their places in the data."""
        rng = np.random.default_rng([derived_seed("base", self.seed, "order"), epoch])
        order: list[int] = rng.permutation(len(self.data)).tolist()
        return order

    def batches(self, order: list[int], epoch: int, rank: Rank) -> Iterator[tuple[Tensor, Tensor]]:
        """Return a rank's images and labels of each batch of an epoch."""
        config = self.config
        key = (derived_seed("base", self.seed, "augmentation"), epoch)
        shares = self.data.batches(
            config.base.batch_size, order, augmentation(config), key, config.data.workers, (rank.number, rank.size)
        )
        return rank.filled_up(shares, self.updates_per_epoch)

    def images_told(self, order: list[int], number: int) -> str:
        """Return which images a whole batch has."""
        size = self.config.base.batch_size
        return listed("incoming", [self.data.ids[i] for i in order[number * size : (number + 1) * size]])


def learning_rate(config: Config, iteration: int, total: int) -> float:
    """Return the base step's learning rate: linear warm-up times poly decay."""
    warmup = min(1.0, (iteration + 1) / config.base.warmup_steps) if config.base.warmup_steps else 1.0
    return float(config.base.lr * warmup * (1 - iteration / total) ** config.base.poly_power)


def _optimizer(network: SegmentationNetwork, config: Config) -> torch.optim.Optimizer:
    b = config.base
    if b.optimizer == "adamw":
        return torch.optim.AdamW(network.parameters(), b.lr, weight_decay=b.weight_decay)
    return torch.optim.SGD(network.parameters(), b.lr, b.momentum, weight_decay=b.weight_decay)


def save_base(network: SegmentationNetwork, base: dict[str, Any], seconds_per_update: float) -> None:
    """Keep a base model under its hash, and beside it what an update took; each file appears by one rename."""
    kept, inputs = base_model(base["hash"]), base["inputs"]
    kind = {
        "network": inputs["network"]["name"],
        "device": inputs["device"],
        "devices": inputs["protocol"]["devices"],
    }
    write_atomic(kept.path.with_suffix(".json"), json.dumps({**kind, "seconds_per_update": seconds_per_update}))
    kept.write({"inputs": inputs, "code": code_digest(), "network": network.state_dict()})


def load_base(base_hash: str, network: SegmentationNetwork) -> None:
    """Load a kept base model into a network of its form, in eval mode; raise RuntimeError where that cannot be done."""

    def load(state: Any) -> None:
        network.load_state_dict(state["network"])
        log.info("base model %s, trained by code %s", base_hash[:12], state["code"])

    try:
        base_model(base_hash).restore(load)
    except CheckpointError as error:
        raise RuntimeError(f"{error}; the same command trains the base model again") from error
    network.eval()
