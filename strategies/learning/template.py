"""The one Avalanche template of all methods: a single pass over each step, one update per incoming batch."""

from __future__ import annotations

import gc
import itertools
import math
import resource
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from avalanche.core import SupervisedPlugin
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.templates import SupervisedTemplate
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from strategies.learning.arrivals import ArrivingImages, Holdings, OnePass, SeenExperience
from strategies.learning.faults import OnlineContractError, PredictionError
from strategies.learning.guard import LossGuard, listed
from strategies.learning.losses import own_classes
from strategies.learning.memory import Exemplar
from strategies.learning.method import Method
from strategies.learning.protocol import OnlineProtocol
from strategies.learning.randomness import generator_states, set_generator_states
from strategies.networks.network import SegmentationNetwork, evaluation_mode, trained_parameters


@dataclass(frozen=True)
class Seeds:
    """One seed per kind of randomness, so that a change of one leaves the others' draws alone."""

    initialisation: int
    order: int
    augmentation: int
    memory: int


@dataclass
class StepCost:
    """What the training of one step took; `images` counts an image once per forward pass."""

    incoming_batches: int = 0
    updates: int = 0
    seconds: float = 0.0
    forward_passes: int = 0
    backward_passes: int = 0
    images: int = 0
    memory_images: int = 0
    memory_bytes: int = 0
    peak_ram_bytes: int = 0
    """Of the process, since it started."""
    peak_gpu_bytes: int = 0
    """Allocated by torch during the step."""


class OnlineTemplate(SupervisedTemplate):
    """Trains a method on the increments of a stream and evaluates it.

    Hooks see experiences without images (`SeenExperience`); what a method reads again is counted against
    `memory_size`, in images, and against what it reports to keep (`Holdings`).
    Mini-batches are [images float32 B x 3 x H x W, labels int64 B x H x W, steps B, indices B], the incoming
    images first; `indices` is negative for a memory image. The optimiser is made anew for every step.
    """

    model: SegmentationNetwork
    mbatch: list[Tensor]
    mb_output: Any
    dataloader: OnePass

    def __init__(
        self,
        *,
        network: SegmentationNetwork,
        method: Method,
        protocol: OnlineProtocol,
        seeds: Seeds,
        memory_size: int,
        augmentation: Any = None,
        eval_batch_size: int = 1,
        workers: int = 0,
        device: str | torch.device = "cpu",
        plugins: Sequence[SupervisedPlugin] = (),
        evaluator: EvaluationPlugin | None = None,
    ) -> None:
        self.method = method
        self.protocol = protocol
        self.seeds = seeds
        self.augmentation = augmentation
        self.workers = workers
        self.cost = StepCost()
        self._step_of_output = torch.tensor([-1])
        self._met: list[StorageWeakRef] = []
        self._loaded: list[str] = []
        self._holdings = Holdings(memory_size)
        self._images: dict[int, ArrivingImages] = {}
        self._guard = LossGuard(network)
        self._replay_rng = np.random.default_rng([seeds.augmentation, 1])
        super().__init__(
            model=network,
            optimizer=torch.optim.SGD(network.parameters(), lr=protocol.lr),
            train_mb_size=protocol.batch_size,
            eval_mb_size=eval_batch_size,
            device=device,
            plugins=[method, *plugins],
            evaluator=evaluator or new_evaluator(),
        )

    @property
    def network(self) -> SegmentationNetwork:
        """The network that is trained."""
        return self.model

    @property
    def mb_step(self) -> Tensor:
        """The step (B,) each image of the mini-batch was annotated at."""
        return self.mbatch[2]

    @property
    def known_classes(self) -> int:
        """|Y_t|, the background not counted."""
        return len(self.experience.classes_seen_so_far)

    @property
    def own(self) -> Tensor:
        """Bool (B, C): of which classes the annotation of each image of the mini-batch tells."""
        return own_classes(self.mb_step, self._step_of_output, self.experience.annotates_all_seen)

    @property
    def is_memory(self) -> Tensor:
        """Bool (B,): which images of the mini-batch come from memory."""
        return self.mbatch[3] < 0

    def begin(self, base: Any) -> None:
        """Offer the base step's images to the method, once, in random order."""
        order = np.random.default_rng([self.seeds.memory, 1]).permutation(len(base.data)).tolist()
        exemplars = [self.watched(base.data.exemplar(i)) for i in order]
        self._holdings.arrive(0, order)
        classes = len(base.classes_in_this_experience)
        self._step_of_output = torch.tensor([-1] + [0] * classes)
        self.network.to(self.device)
        with torch.no_grad():
            self.method.fill(self, exemplars, classes)

    def watched(self, exemplar: Any) -> Any:
        """Return an exemplar of the train stream as a method gets it: reading it is counted."""
        images = self._images.setdefault(exemplar.step, ArrivingImages(exemplar.data, self._holdings))
        return images.watched(exemplar)

    def load(self, exemplars: Sequence[Exemplar]) -> list[Tensor]:
        """Return exemplars, augmented anew, as a mini-batch."""
        images, labels = zip(*(e.load(self.augmentation, self._replay_rng) for e in exemplars), strict=True)
        first = len(self._loaded)
        self._loaded += [e.image_id for e in exemplars]
        batch = (
            torch.stack(images),
            torch.stack(labels),
            torch.tensor([e.step for e in exemplars]),
            torch.tensor([~place for place in range(first, len(self._loaded))]),
        )
        return [part.to(self.device) for part in batch]

    def join(self, memory: Sequence[Tensor]) -> None:
        """Append a mini-batch from memory to the incoming images."""
        self.mbatch = [torch.cat(parts) for parts in zip(self.mbatch, memory, strict=True)]

    def inspected(self, exemplars: Sequence[Exemplar]) -> Iterator[tuple[list[Exemplar], Tensor, Tensor]]:
        """Yield exemplars with their images and annotations as they are, in order, a few of one size at a time."""
        for i in range(0, len(exemplars), self.eval_mb_size):
            loaded = [(e, *e.load(None, self._replay_rng)) for e in exemplars[i : i + self.eval_mb_size]]
            for _, of_one_size in itertools.groupby(loaded, key=lambda one: one[1].shape):
                chunk, images, labels = zip(*of_one_size, strict=True)
                yield list(chunk), torch.stack(images).to(self.device), torch.stack(labels).to(self.device)

    def gradient(self, loss: Tensor) -> list[Tensor]:
        """Return the gradient of a loss by the parameters that are trained, counted as a backward pass.

        It is 0 for a parameter that the loss does not depend on.
        """
        self.cost.backward_passes += 1
        trained = list(trained_parameters(self.network).values())
        return list(torch.autograd.grad(loss, trained, allow_unused=True, materialize_grads=True))

    def incoming(self) -> list[Exemplar]:
        """Return references to the incoming images of the mini-batch."""
        return [self.experience.data.exemplar(i) for i in self.mbatch[3].tolist() if i >= 0]

    def model_adaptation(self, model: nn.Module | None = None) -> nn.Module:
        """Grow the network before a training step; never while evaluating."""
        new = 1 + self.known_classes - self.network.outputs
        if self.is_training and new > 0:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.seeds.initialisation + self.experience.data.step)
                self.method.grow(self, new)
            grown = torch.full((new,), self.experience.data.step)
            self._step_of_output = torch.cat([self._step_of_output, grown])
        self._step_of_output = self._step_of_output.to(self.device)
        return self.network.to(self.device)

    def make_optimizer(self, **kwargs: Any) -> None:
        """Make the step's optimiser: its state does not outlive a step."""
        p = self.protocol
        self.optimizer = torch.optim.SGD(self.network.parameters(), p.lr, p.momentum, weight_decay=p.weight_decay)
        self.optimizer.register_step_post_hook(self._count_update)
        self.optimized_param_id: dict[str, Tensor] = {}

    def train(self, experiences: Any, *args: Any, **kwargs: Any) -> Any:
        """Train on one experience or several."""
        return super().train([self._seen(e, self._holdings) for e in _listed(experiences)], *args, **kwargs)

    def eval(self, experiences: Any, **kwargs: Any) -> Any:
        """Evaluate on one experience or several; no image of these ever comes by."""
        return super().eval([self._seen(e, Holdings(0)) for e in _listed(experiences)], **kwargs)

    def _seen(self, experience: Any, holdings: Holdings) -> SeenExperience:
        images = ArrivingImages(experience.data, holdings)
        if holdings is self._holdings:
            self._images[images.step] = images
        return SeenExperience(experience, images)

    def train_dataset_adaptation(self, **kwargs: Any) -> None:
        """Adapt nothing: the experience's batches come from `make_train_dataloader`."""

    def eval_dataset_adaptation(self, **kwargs: Any) -> None:
        """Adapt nothing: the experience's batches come from `make_eval_dataloader`."""

    def make_train_dataloader(self, **kwargs: Any) -> None:
        """Order the step's images by (scenario, seed, step) alone: all methods meet the same batches."""
        data = self.experience.data
        order = np.random.default_rng([self.seeds.order, data.step]).permutation(len(data)).tolist()
        seed = (self.seeds.augmentation, 0, data.step)
        self.dataloader = data.batches(self.train_mb_size, order, self.augmentation, seed, self.workers)

    def make_eval_dataloader(self, **kwargs: Any) -> None:
        """Read the evaluation images in their list's order, as they are."""
        self.dataloader = self.experience.data.batches(self.eval_mb_size, workers=self.workers)

    def forward(self) -> Tensor:
        """Return the network's logits in training, the method's scores in evaluation."""
        return self.network(self.mb_x) if self.is_training else self._scores()

    def _scores(self) -> Tensor:
        """Return the method's scores (B, C, H, W) of the mini-batch; raise `PredictionError` where they are none.

        A pixel whose largest score is NaN or minus infinity has no prediction; `argmax` would say one.
        """
        scores = self.method.predict(self)
        expected = (len(self.mb_x), self.network.outputs, *self.mb_x.shape[-2:])
        if scores.shape != expected:
            raise self._refused(f"scores of shape {tuple(scores.shape)}, not {expected}")
        decided = scores.amax(1) > -math.inf
        if not decided.all():
            lost = decided.numel() - int(decided.sum())
            raise self._refused(f"NaN, or minus infinity alone, at {lost:,} of {decided.numel():,} pixels")
        return scores

    def _refused(self, scores: str) -> PredictionError:
        kind, step = type(self.method), f"step {self.experience.data.step}: " if self.experience else ""
        return PredictionError(f"{step}{kind.__module__}.{kind.__qualname__}.predict gives {scores}")

    def criterion(self) -> Tensor:
        """Return the method's loss; evaluation has none."""
        return self.method.loss(self) if self.is_training else self._make_empty_loss()

    def backward(self) -> None:
        """Count and make a backward pass."""
        self.cost.backward_passes += 1
        super().backward()

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

    def _images_told(self) -> Callable[[], str]:
        """Return what tells the ids of the mini-batch's images and refers to none of these."""
        indices, ids, loaded = self.mbatch[3], self.experience.data.ids, self._loaded

        def told() -> str:
            places = indices.tolist()
            incoming = [ids[i] for i in places if i >= 0]
            memory = [loaded[~i] if ~i < len(loaded) else "unknown" for i in places if i < 0]
            return f"{listed('incoming', incoming)}; {listed('memory', memory)}"

        return told

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
        on_gpu = self.device.type == "cuda"
        if on_gpu:
            torch.cuda.reset_peak_memory_stats(self.device)
        if self.protocol.batchnorm == "frozen":
            _freeze_batchnorm(self.network)
        self._update_all(**kwargs)
        if on_gpu:
            torch.cuda.synchronize(self.device)
            self.cost.peak_gpu_bytes = torch.cuda.max_memory_allocated(self.device)
        self.cost.seconds = time.perf_counter() - started
        self.cost.forward_passes = tally.passes - passes
        self.cost.images = tally.images - images
        self.mbatch = []
        self._require_forgotten()

    def _update_all(self, **kwargs: Any) -> None:
        try:
            super().training_epoch(**kwargs)
        except Exception:
            self._guard.settle()  # what went wrong may follow from the last loss
            raise
        self._guard.finish()

    def predicted(self, images: Tensor) -> Tensor:
        """Return the labels uint8 (B, H, W) that the method predicts for images float32 (B, 3, H, W)."""
        self.mbatch = [images.to(self.device)]
        with torch.no_grad(), evaluation_mode(self.network):
            labels = self._scores().argmax(1)
        self.mbatch = []
        return labels.to("cpu", torch.uint8)

    def state_dict(self) -> dict[str, Any]:
        """Return what the next step goes on from, of the kinds that `Method.state_dict` names."""
        return {
            "outputs": self.network.outputs,
            "network": self.network.state_dict(),
            "step_of_output": self._step_of_output,
            "holdings": self._holdings.state_dict(),
            "replay_rng": self._replay_rng.bit_generator.state,
            "generators": generator_states(self.device),
            "method": self.method.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` returned in a template built alike, in place of `begin`."""
        new = state["outputs"] - self.network.outputs
        if new > 0:
            self.network.grow(new)
        self.network.load_state_dict(state["network"])
        self._step_of_output = state["step_of_output"]
        self._holdings.load_state_dict(state["holdings"])
        self._replay_rng.bit_generator.state = state["replay_rng"]
        self.method.load_state_dict(self, state["method"])
        set_generator_states(state["generators"], self.device)

    def measured(self) -> StepCost:
        """Return the last step's cost with what is held now."""
        self.cost.memory_images = self.method.kept()
        self.cost.memory_bytes = self.method.memory_bytes()
        self.cost.peak_ram_bytes = peak_ram_bytes()
        return self.cost


def peak_ram_bytes() -> int:
    """Return the most memory that the process has held since it started.

    Linux carries `ru_maxrss` over from the process that started this one; `VmHWM` is this one's own.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    except (OSError, IndexError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _listed(experiences: Any) -> list[Any]:
    return list(experiences) if isinstance(experiences, Iterable) else [experiences]


def new_evaluator(*metrics: Any) -> EvaluationPlugin:
    """Return Avalanche's manager of metrics, without loggers; it warns of that at every construction."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return EvaluationPlugin(*metrics, collect_all=False)


def _freeze_batchnorm(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
