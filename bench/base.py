"""Base models: trained once per recipe, kept under the hash of what determines them, shared by all."""

from __future__ import annotations

import io
import json
import math
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.checkpoint import Checkpoint, CheckpointError
from bench.code import code_digest
from bench.config import Config
from bench.events import Event, Report, Throttle
from bench.faults import explained
from bench.spec import derived_seed
from bench.stopping import stop_asked, stop_if_asked
from benchmarks.augmentation import Augmentation
from benchmarks.cache import cache_folder
from benchmarks.streams import AnnotatedImages
from reports.records import write_atomic, write_atomic_bytes
from strategies.guard import LossGuard, listed
from strategies.losses import BASE_LOSSES
from strategies.network import SegmentationNetwork, build_network
from strategies.protocol import BaseRecipe
from strategies.randomness import generator_states, set_generator_states

CHECKPOINT_SECONDS = 30.0
"""An epoch's end writes a checkpoint if the last one is at least so old."""


def base_file(base_hash: str) -> Path:
    """Return where the base model of a hash is kept."""
    return cache_folder("bases") / f"{base_hash}.pt"


def base_checkpoint(base_hash: str) -> Checkpoint:
    """Return the checkpoint of the training of a base model."""
    return Checkpoint(base_file(base_hash).with_suffix(".ckpt"), {"base": base_hash, "code": code_digest()})


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
    was trained is kept. Raises `NonFiniteLossError`.
    """
    total = iterations(config, len(data))

    def note(text: str) -> None:
        report(Event(job, "training", 0, total, note=text))

    training = _started(classes, config, recipe, seed, device)
    if checkpoint.path.exists():
        try:
            checkpoint.restore(training.load_state_dict)
            note(f"goes on after epoch {training.epochs}")
        except CheckpointError as error:
            note(f"{error}; trained from the start")
            training = _started(classes, config, recipe, seed, device)
    network, optimizer = training.network, training.optimizer
    throttle, due, guard = Throttle(), Throttle(CHECKPOINT_SECONDS), LossGuard(network)
    done = training.epochs * total // config.base.epochs
    for epoch in range(training.epochs, config.base.epochs):
        started = time.perf_counter()
        order = np.random.default_rng([derived_seed("base", seed, "order"), epoch]).permutation(len(data)).tolist()
        key = (derived_seed("base", seed, "augmentation"), epoch)
        batches = data.batches(config.base.batch_size, order, augmentation(config), key, config.data.workers)
        for number, (images, labels, _, indices) in enumerate(batches, start=1):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(config, done, total)
            logits = network(images.to(device, non_blocking=True))
            loss = BASE_LOSSES[recipe.loss](logits, labels.to(device, non_blocking=True))
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            where = f"epoch {epoch + 1}, batch {number} of {len(batches)}"
            guard.follow(loss, where, partial(_images_told, data, indices))
            done += 1
            if throttle.due():
                report(Event(job, f"epoch {epoch + 1}/{config.base.epochs}", done, total, loss=loss.item()))
        guard.finish()
        training.epochs = epoch + 1
        training.seconds += time.perf_counter() - started
        last = training.epochs == config.base.epochs
        if due.due() or (stop_asked() and not last):
            checkpoint.write(training.state_dict())
        if not last:
            stop_if_asked()
    network.eval()
    return training


def _images_told(data: AnnotatedImages, indices: Tensor) -> str:
    return listed("incoming", [data.ids[i] for i in indices.tolist()])


def _started(classes: int, config: Config, recipe: BaseRecipe, seed: int, device: torch.device) -> BaseTraining:
    torch.manual_seed(derived_seed("base", seed, "initialisation"))
    network = new_network(config, recipe, classes, config.network.pretrained).to(device).train()
    return BaseTraining(network, _optimizer(network, config), device)


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
    final = base_file(base["hash"])
    measured = {"network": base["inputs"]["network"]["name"], "device": base["inputs"]["device"]}
    write_atomic(final.with_suffix(".json"), json.dumps({**measured, "seconds_per_update": seconds_per_update}))
    buffer = io.BytesIO()
    torch.save({"inputs": base["inputs"], "network": network.state_dict()}, buffer)
    write_atomic_bytes(final, buffer.getvalue())


def load_base(
    base_hash: str, config: Config, recipe: BaseRecipe, classes: int, device: torch.device
) -> SegmentationNetwork:
    """Return a kept base model in eval mode."""
    network = new_network(config, recipe, classes, pretrained=False)
    file = base_file(base_hash)
    try:
        network.load_state_dict(torch.load(file, map_location="cpu", weights_only=True)["network"])
    except Exception as error:
        if explained(error):
            raise
        raise RuntimeError(f"the base model {file} is damaged, delete it to have it trained again ({error})") from error
    return network.to(device).eval()
