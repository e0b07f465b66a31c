"""The Avalanche template of the offline protocol: epochs over each step, an optimiser and a schedule for each."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle, islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from strategies.learning.cost import StepCost, peak_gpu_counted
from strategies.learning.memory import Exemplar
from strategies.learning.protocol import OfflineProtocol
from strategies.learning.randomness import generator_states, set_generator_states
from strategies.learning.schedule import learning_rate, make_optimizer, set_learning_rate
from strategies.learning.segmentation import SegmentationTemplate
from strategies.networks.heads import LinearHead
from strategies.networks.modes import set_modes


class OfflineTemplate(SegmentationTemplate):
    """Trains a step over epochs; a memory may be empty, and methods may read the step's images as they like.

    `start_step` is called before a step's first update, where a training that was left within the step is taken up
    again (`load_epoch_state`), `end_epoch` after every epoch.
    """

    protocol: OfflineProtocol
    epochs_done: int
    """Of the present step."""

    def __init__(self, **shared: Any) -> None:
        self._beside: Sequence[Exemplar] = ()
        self.start_step: Callable[[], None] = lambda: None
        self.end_epoch: Callable[[], None] = lambda: None
        self._best: dict[str, Any] | None = None
        super().__init__(**shared)
        if self.protocol.tells_new and isinstance(self.network.head, LinearHead):
            self.network.head = self.network.head.stepwise()

    @property
    def epochs(self) -> int:
        """The number of epochs of the present step."""
        return self.protocol.epochs_over(self.images)

    @property
    def images(self) -> int:
        """The number of images of an epoch: the step's, and those that the method has beside them."""
        return len(self.experience.data) + len(self._beside)

    def make_train_dataloader(self, **kwargs: Any) -> None:
        """Read nothing yet: the training reads epoch after epoch."""
        self.dataloader = []

    def _epochs(self, end: int) -> Iterator[Any]:
        """Yield the batches of the epochs from the present one on, up to `end`."""
        data, share = self.experience.data, (self.devices.number, self.devices.size)
        orders = (self._order(epoch) for epoch in range(self.epochs_done, end))
        given = self.augmentation, self.workers, share, self._beside, self.device
        epochs: Iterator[Any] = data.epochs(self.train_mb_size, orders, *given)
        return epochs

    def _order(self, epoch: int) -> tuple[list[int], tuple[int, ...]]:
        """Order an epoch's images by (scenario, seed, step, epoch) alone: all methods meet the same batches.

        Where a method has exemplars beside the step's images they are among these. Beside it stands the seed of the
        epoch's augmentation.
        """
        step = self.experience.data.step
        order = np.random.default_rng([self.seeds.order, step, epoch]).permutation(self.images).tolist()
        taken = order[: self.protocol.updates_an_epoch(self.images) * self.train_mb_size]
        short = self.devices.size - (len(taken) % self.train_mb_size or self.train_mb_size)
        taken += islice(cycle(order), max(0, short))  # as torch's DistributedSampler, that every device has an image
        return taken, (self.seeds.augmentation, 0, step, epoch)

    def make_optimizer(self, **kwargs: Any) -> None:
        """Make the step's optimiser: its state does not outlive a step."""
        self.optimizer = make_optimizer(self.network, self.protocol, self.fused)
        self.optimizer.register_step_post_hook(self._count_update)

    def _count_update(self, *args: Any) -> None:
        self.cost.updates += 1

    def _before_training_exp(self, **kwargs: Any) -> None:
        self.epochs_done, self.cost, self._best, self._beside = 0, StepCost(), None, ()
        super()._before_training_exp(**kwargs)

    def _train_exp(self, experience: Any, eval_streams: Any = None, **kwargs: Any) -> None:
        self.start_step()
        self._beside = self.method.beside(self)
        for batches in self._epochs(self.epochs):
            self.dataloader = batches
            self._before_training_epoch(**kwargs)
            self.training_epoch(**kwargs)
            self._after_training_epoch(**kwargs)
            self.epochs_done += 1
            self.end_epoch()
        if self._best is not None:
            self.network.load_state_dict(self._best["network"])

    def training_epoch(self, **kwargs: Any) -> None:
        """Pass once over the step and add what it costs."""
        set_modes(self.network, self.protocol.batchnorm, self.protocol.dropout)
        if self.devices.size > 1:  # else all would drop out the same
            place = [self.seeds.initialisation, self.experience.data.step, self.epochs_done, self.devices.number]
            torch.manual_seed(int(np.random.SeedSequence(place).generate_state(1)[0]))
        with self.counted():
            try:
                for batch in self.dataloader:
                    self.mbatch = batch
                    self._update(**kwargs)
            except Exception:
                self._guard.settle()  # what went wrong may follow from the last loss
                raise
            self._guard.finish()
        self.cost.incoming_batches += len(self.dataloader)
        self.mbatch = []

    def looked_over(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images and labels of the epoch that is about to begin, in the parts that an update passes them in.

        What is done with them is added to the step's cost.
        """
        with self.counted():
            for images, labels, *_ in next(self._epochs(self.epochs_done + 1)):
                parts = (each.to(self.device).chunk(self.protocol.accumulate) for each in (images, labels))
                yield from zip(*parts, strict=True)

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Add a block's seconds, forward passes and images to what the step costs."""
        tally, started = self.network.tally, time.perf_counter()
        passes, images = tally.passes, tally.images
        with peak_gpu_counted(self.cost, self.device):
            yield
        self.cost.seconds += time.perf_counter() - started
        self.cost.forward_passes += tally.passes - passes
        self.cost.images += int(self.devices.total(torch.tensor(tally.images - images, device=self.device)))

    def _update(self, **kwargs: Any) -> None:
        """Make one update, as Avalanche's template does, of a batch that may be passed in parts."""
        self._loaded = [exemplar.image_id for exemplar in self._beside]
        self._unpack_minibatch()
        self._before_training_iteration(**kwargs)
        total = self.protocol.updates_over(self.images)
        rate = learning_rate(self.protocol, self.cost.updates, total)
        set_learning_rate(self.optimizer, rate, self.protocol.min_lr)
        self.optimizer.zero_grad()
        self._pass_in_parts(**kwargs)
        self.loss = self.devices.average(self.network, self.loss, len(self.mb_x))
        self._after_backward(**kwargs)
        self._before_update(**kwargs)
        self.optimizer_step()
        self._after_update(**kwargs)
        where = f"step {self.experience.data.step}, epoch {self.epochs_done + 1}, update {self.cost.updates} of {total}"
        self._guard.follow(self.loss, where, self._images_told())
        self._after_training_iteration(**kwargs)

    def _pass_in_parts(self, **kwargs: Any) -> None:
        """Add up the gradients of the batch's parts; `loss` is then the mean of theirs, each weighed by its images."""
        whole, total = self.mbatch, torch.zeros((), device=self.device)
        for part in zip(*(each.chunk(self.protocol.accumulate) for each in whole), strict=True):
            self.mbatch = list(part)
            self._before_forward(**kwargs)
            self.mb_output = self.forward()
            self._after_forward(**kwargs)
            loss, share = self.criterion(), len(part[0]) / len(whole[0])
            self.loss = loss if share == 1 else loss * share
            self._before_backward(**kwargs)
            self.backward()
            total = total + self.loss.detach()
        self.mbatch, self.loss = whole, total

    # ------------------------------------------------------------------------------------------- within a step

    def keep_if_best(self, miou: float) -> None:
        """Remember the network if its mIoU on held-out images is the step's best so far; it becomes the step's."""
        if self._best is None or miou > self._best["miou"]:
            state = {name: tensor.detach().clone() for name, tensor in self.network.state_dict().items()}
            self._best = {"miou": miou, "epoch": self.epochs_done, "network": state}

    def epoch_state(self) -> dict[str, Any]:
        """Return what the next epoch of the step goes on from, of the kinds that `Method.state_dict` names."""
        return {
            "epochs": self.epochs_done,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "best": self._best,
            "replay_rng": self._replay_rng.bit_generator.state,
            "generators": generator_states(self.device),
            "method": self.method.state_dict(),
            "cost": dataclasses.asdict(self.cost),
            "iterations": self.clock.train_iterations,
        }

    def load_epoch_state(self, state: dict[str, Any]) -> None:
        """Take over what `epoch_state` returned, in a template that has just grown for the step (`start_step`)."""
        self.epochs_done, self._best = state["epochs"], state["best"]
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self._replay_rng.bit_generator.state = state["replay_rng"]
        self.method.load_state_dict(self, state["method"])
        self.cost = StepCost(**state["cost"])
        self.clock.train_iterations = state["iterations"]
        set_generator_states(state["generators"], self.device)
