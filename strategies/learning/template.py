"""The Avalanche template of the online protocol: a single pass over each step, one update per incoming batch."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from strategies.learning.arrivals import ArrivingImages, Holdings, OnePass, SeenExperience
from strategies.learning.cost import StepCost, peak_gpu_counted
from strategies.learning.devices import share_of
from strategies.learning.faults import OnlineContractError
from strategies.learning.protocol import OnlineProtocol
from strategies.learning.segmentation import SegmentationTemplate, listed


class OnlineTemplate(SegmentationTemplate):
    """Images come by once; the optimiser is made anew for every step.

    Hooks see experiences without images (`SeenExperience`); what a method reads again is counted against
    `memory_size`, in images, and against what it reports to keep (`Holdings`).
    """

    protocol: OnlineProtocol
    dataloader: OnePass

    def __init__(self, *, memory_size: int, **shared: Any) -> None:
        self._met: list[StorageWeakRef] = []
        self._whole: list[Tensor] = []
        self._holdings = Holdings(memory_size)
        self._images: dict[int, ArrivingImages] = {}
        super().__init__(**shared)

    def watched(self, exemplar: Any) -> Any:
        """Return an exemplar of the train stream as a method gets it: reading it is counted."""
        images = self._images.setdefault(exemplar.step, ArrivingImages(exemplar.data, self._holdings))
        return images.watched(exemplar)

    def _arrive(self, step: int, indices: Iterable[int]) -> None:
        self._holdings.arrive(step, indices)

    def make_train_dataloader(self, **kwargs: Any) -> None:
        """Order the step's images by (scenario, seed, step) alone: all methods meet the same batches."""
        data = self.experience.data
        order = np.random.default_rng([self.seeds.order, data.step]).permutation(len(data))
        seed = (self.seeds.augmentation, 0, data.step)
        given = self.augmentation, seed, self.workers
        self.dataloader = data.batches(self.train_mb_size, order, *given, device=self.device)

    def make_optimizer(self, **kwargs: Any) -> None:
        """Make the step's optimiser: its state does not outlive a step."""
        p = self.protocol
        self.optimizer = torch.optim.SGD(
            self.network.parameters(), p.lr, p.momentum, weight_decay=p.weight_decay, fused=self.fused or None
        )
        self.optimizer.register_step_post_hook(self._count_update)

    def train(self, experiences: Any, **kwargs: Any) -> Any:
        """Train on one experience or several."""
        return super().train([self._seen(e, self._holdings) for e in listed(experiences)], **kwargs)

    def eval(self, experiences: Any, **kwargs: Any) -> Any:
        """Evaluate on one experience or several; no image of these ever comes by."""
        return super().eval([self._seen(e, Holdings(0)) for e in listed(experiences)], **kwargs)

    def _seen(self, experience: Any, holdings: Holdings) -> SeenExperience:
        return SeenExperience(experience, ArrivingImages(experience.data, holdings))

    def _count_update(self, *args: Any) -> None:
        self.cost.updates += 1

    def _unpack_minibatch(self) -> None:
        """Move the batch to the device; the one before it must be gone by now."""
        self._require_forgotten()
        self._loaded = []
        if self.is_training:
            self._holdings.end_batch(self.method.kept())
            self._holdings.arrive(self.experience.data.step, self.mbatch[3].tolist())
        super()._unpack_minibatch()
        self._met = [StorageWeakRef(self.mbatch[0].untyped_storage())]

    def _before_forward(self, **kwargs: Any) -> None:
        """Go on with this device's part of the batch, which hooks have joined, until `backward` has its gradient."""
        if self.devices.size > 1:
            self._whole = self.mbatch
            self.mbatch = share_of(self._whole, self.devices.number, self.devices.size)
        super()._before_forward(**kwargs)

    def backward(self) -> None:
        """Make a backward pass; its gradient and loss are then those of the whole batch, a pixel counting once."""
        super().backward()
        if self.devices.size > 1:
            pixels = self.method.counted_pixels(self)
            self.loss = self.devices.average(self.network, self.loss.detach(), pixels)
            self.mbatch, self._whole = self._whole, []

    def _after_training_iteration(self, **kwargs: Any) -> None:
        where = f"step {self.experience.data.step}, batch {self._batches_met() + 1} of {self.cost.incoming_batches}"
        self._guard.follow(self.loss, where, self._images_told())
        super()._after_training_iteration(**kwargs)
        self._met.append(StorageWeakRef(self.mbatch[0].untyped_storage()))
        if self.cost.updates != self._batches_met():
            raise OnlineContractError(
                f"step {self.experience.data.step}: {self.cost.updates} updates from {self._batches_met()} incoming "
                f"batches; the online protocol allows one each"
            )

    def _batches_met(self) -> int:
        return int(self.clock.train_exp_iterations)

    def _require_forgotten(self) -> None:
        """Raise `OnlineContractError` where the last batch's images, or a view of them, are still referred to."""
        self.mb_output = None
        if not all(images.expired() for images in self._met):
            gc.collect()
        if not all(images.expired() for images in self._met):
            raise OnlineContractError(
                f"step {self.experience.data.step}: {type(self.method).__name__} keeps incoming images outside its "
                f"memory; the online protocol allows references from the memory alone"
            )
        self._met = []

    def training_epoch(self, **kwargs: Any) -> None:
        """Pass once over the step and measure what it costs."""
        self.cost = StepCost(incoming_batches=len(self.dataloader))
        tally = self.network.tally
        passes, images, started = tally.passes, tally.images, time.perf_counter()
        if self.protocol.batchnorm == "frozen":
            _freeze_batchnorm(self.network)
        if self.devices.size > 1:  # else all would drop out the same
            place = [self.seeds.initialisation, self.experience.data.step, self.devices.number]
            torch.manual_seed(int(np.random.SeedSequence(place).generate_state(1)[0]))
        with peak_gpu_counted(self.cost, self.device):
            self._update_all(**kwargs)
        self.cost.seconds = time.perf_counter() - started
        self.cost.forward_passes = tally.passes - passes
        self.cost.images = tally.images - images
        if self.devices.size > 1:
            passed = torch.tensor(self.cost.images, device=self.device)
            self.cost.images = int(self.devices.total(passed))
        self.mbatch = []
        self._require_forgotten()

    def _update_all(self, **kwargs: Any) -> None:
        try:
            super().training_epoch(**kwargs)
        except Exception:
            self._guard.settle()  # what went wrong may follow from the last loss
            raise
        self._guard.finish()

    def state_dict(self) -> dict[str, Any]:
        """Return what the next step goes on from, of the kinds that `Method.state_dict` names."""
        return {**super().state_dict(), "holdings": self._holdings.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` returned in a template built alike, in place of `begin`."""
        self._holdings.load_state_dict(state["holdings"])
        super().load_state_dict(state)


def _freeze_batchnorm(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | nn.SyncBatchNorm):
            module.eval()
