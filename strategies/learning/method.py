"""What a continual-learning method is here: an Avalanche plugin with a loss, a base recipe, a citation."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from avalanche.core import SupervisedPlugin
from pydantic.dataclasses import dataclass
from torch import Tensor

from benchmarks.labels import VOID
from strategies.learning.losses import cross_entropy, without_unlabelled
from strategies.learning.memory import Exemplar, Memory, StreamMemory
from strategies.learning.protocol import BaseRecipe, OfflineProtocol
from strategies.learning.strategy import Strategy
from strategies.networks.network import SegmentationNetwork
from strategies.networks.settings import STRICT


class Method(SupervisedPlugin):
    """A method that trains increments. Subclasses give the loss; the template makes one update of it.

    A method is built from its hyper-parameters (`Parameters`, a dataclass), the memory's size in images
    and the generator that makes its random choices.
    """

    citation: ClassVar[str]
    Parameters: ClassVar[type[Any]]
    protocols: ClassVar[tuple[str, ...]] = ("online",)
    """How its steps can be trained, the usual way first; `bench.plan.protocols` has them all."""
    void_is_negative: ClassVar[bool] = False
    """Whether its losses, its base model's too (`classes-bce`), can take void pixels as a negative of every class and
    count them, as the setting `data.void=negative` asks."""
    on_one_device: ClassVar[bool] = False
    """Whether its offline increments cannot be shared by several devices: each would have a memory of its own."""
    shares_batches: ClassVar[bool]
    """Whether several devices may share each batch of its online increments: its loss is a mean over
    `counted_pixels`, and nothing but its loss looks at the network's outputs. Never inherited, as `resumable`."""
    resumable: ClassVar[bool]
    """Whether `state_dict` gives all that outlives a step. Never inherited: a subclass may keep more, so it says
    so again. A run of a method that does not say so keeps no checkpoint and starts again from step 0."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.resumable = vars(cls).get("resumable", False)
        cls.shares_batches = vars(cls).get("shares_batches", False)

    def __init__(self, parameters: Any, memory_size: int, rng: np.random.Generator) -> None:
        super().__init__()
        self.parameters = parameters

    @classmethod
    def recipe(cls, parameters: Any) -> BaseRecipe:
        """Return what the method asks of the base model."""
        return BaseRecipe()

    def protocol_of(self, protocol: Any) -> Any:
        """Return how its increments are trained: as a run's settings say, but for what the method's definition says."""
        return protocol

    def begin_from(self, importance: Mapping[str, Mapping[str, dict[str, Tensor]]]) -> None:
        """Take over what the base training measured; there is nothing unless `recipe` asks for it."""

    def fill(self, strategy: Strategy, exemplars: list[Exemplar], known_classes: int) -> None:
        """Take the base step's images, offered once in random order before the first increment."""

    def grow(self, strategy: Strategy, outputs: int) -> None:
        """Append the new step's outputs to the network."""
        strategy.network.grow(outputs)

    def beside(self, strategy: Strategy) -> Sequence[Exemplar]:
        """Return the exemplars that every epoch of the present step passes over beside its images, offline."""
        return ()

    def loss(self, strategy: Strategy) -> Tensor:
        """Return the loss of the mini-batch: by default cross-entropy with the labels as they are stored."""
        return cross_entropy(strategy.mb_output, strategy.mb_y)

    def counted_pixels(self, strategy: Strategy) -> Tensor:
        """Return the number of pixels that the online loss of the mini-batch is a mean over; there may be none."""
        return (strategy.mb_y != VOID).sum()

    def predict(self, strategy: Strategy) -> Tensor:
        """Return scores (B, C, H, W) of the images under evaluation; the largest is the prediction."""
        return strategy.network.scores(strategy.mb_x)

    def prediction_state(self) -> dict[str, Tensor]:
        """Return the tensors that `predict` reads beside the network, by name: a network that is kept has them too.

        `predict` may use nothing else of a method but its parameters: it is asked of a method that was never trained.
        """
        return {}

    def load_prediction_state(self, state: Mapping[str, Tensor]) -> None:
        """Take over what `prediction_state` returned; the tensors come on the network's device."""

    def kept(self) -> int:
        """Return the number of images in memory."""
        return 0

    def memory_bytes(self) -> int:
        """Return what the memory holds, in bytes: images and annotations as uint8, and what is kept with them."""
        return 0

    def state_dict(self) -> dict[str, Any]:
        """Return what outlives a step beside the network, for a checkpoint after it.

        It is made of None, bool, int, float, str, tensors, numpy arrays and exemplars, in lists and in dicts by str
        or int.
        """
        return {}

    def load_state_dict(self, strategy: Strategy, state: dict[str, Any]) -> None:
        """Take over what `state_dict` returned; tensors come on the CPU."""


@dataclass(frozen=True, config=STRICT)
class CrossEntropyParameters:
    """Hyper-parameters of every method with a cross-entropy on the label maps."""

    unlabelled: Literal["ignore", "background"] = "ignore"
    """Label 0 of an image annotated at an increment is void in the cross-entropy, or the background (as in MiB's
    FT); the paper calls these pixels unlabelled and does not say (choice)."""


class CrossEntropy(Method):
    """A method with a cross-entropy on the label maps, and an option for what is unlabelled in them."""

    parameters: CrossEntropyParameters

    def targets(self, strategy: Strategy, labels: Tensor, steps: Tensor) -> Tensor:
        """Return the labels (B, H, W) of the cross-entropy, for images annotated at `steps` (B,).

        Where steps annotate every class seen so far (`sequential`), label 0 is the background, as in the base step.
        """
        if self.parameters.unlabelled == "background" or strategy.experience.annotates_all_seen:
            return labels
        return without_unlabelled(labels, steps)

    def loss(self, strategy: Strategy) -> Tensor:
        """Return the cross-entropy of the mini-batch."""
        return cross_entropy(strategy.mb_output, self.targets(strategy, strategy.mb_y, strategy.mb_step))

    def counted_pixels(self, strategy: Strategy) -> Tensor:
        """Return the number of pixels that the cross-entropy's labels tell."""
        return (self.targets(strategy, strategy.mb_y, strategy.mb_step) != VOID).sum()


class Remembering(Method):
    """A method with a memory of images, and a generator for its random choices."""

    def __init__(self, parameters: Any, memory_size: int, rng: np.random.Generator) -> None:
        super().__init__(parameters, memory_size, rng)
        self.rng = rng
        self.memory = self.make_memory(memory_size)

    @abstractmethod
    def make_memory(self, size: int) -> Memory:
        """Return an empty memory of `size` images under the method's policy."""

    def kept(self) -> int:
        """Return the number of images in memory."""
        return len(self.memory)

    def memory_bytes(self) -> int:
        """Return what the memory holds, in bytes."""
        return self.memory.bytes()

    def state_dict(self) -> dict[str, Any]:
        """Return the memory and the generator of the random choices."""
        return {"memory": self.memory.state_dict(), "rng": self.rng.bit_generator.state}

    def load_state_dict(self, strategy: Strategy, state: dict[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        self.memory.load_state_dict(state["memory"])
        self.rng.bit_generator.state = state["rng"]


class Replay(Remembering):
    """A method that joins as many memory images to the incoming ones as there are of these.

    Incoming images are offered to the memory after the update.
    """

    def draw(self, count: int) -> list[Exemplar]:
        """Return the exemplars to join to `count` incoming images."""
        return self.memory.draw(count)

    def before_training_iteration(self, strategy: Strategy, *args: Any, **kwargs: Any) -> None:
        """Join memory images to the incoming ones."""
        drawn = self.draw(len(strategy.mb_x))
        if drawn:
            strategy.join(strategy.load(drawn))


class StreamReplay(Replay):
    """Replay whose memory decides on each image from its annotated classes alone."""

    memory: StreamMemory

    @abstractmethod
    def make_memory(self, size: int) -> StreamMemory:
        """Return an empty memory of `size` images under the method's policy."""

    def fill(self, strategy: Strategy, exemplars: list[Exemplar], known_classes: int) -> None:
        """Offer the base step's images to the memory."""
        for exemplar in exemplars:
            self.memory.offer(exemplar, known_classes)

    def after_training_iteration(self, strategy: Strategy, *args: Any, **kwargs: Any) -> None:
        """Offer the incoming images to the memory; offline they come by again, and the step's end offers them."""
        if not isinstance(strategy.protocol, OfflineProtocol):
            for exemplar in strategy.incoming():
                self.memory.offer(exemplar, strategy.known_classes)

    def after_training_exp(self, strategy: Strategy, *args: Any, **kwargs: Any) -> None:
        """Offline, offer each of the step's images to the memory, once and in random order."""
        if isinstance(strategy.protocol, OfflineProtocol):
            data = strategy.experience.data
            for i in self.rng.permutation(len(data)).tolist():
                self.memory.offer(data.exemplar(i), strategy.known_classes)


class Distilling(Method):
    """A method that keeps the previous step's model, frozen, as `old`.

    No checkpoint needs it: the next step's `old` is the network itself, before it grows.
    """

    old: SegmentationNetwork

    def grow(self, strategy: Strategy, outputs: int) -> None:
        """Freeze the previous step's model, then append the new step's outputs."""
        self.old = copy.deepcopy(strategy.network).eval().requires_grad_(False)
        super().grow(strategy, outputs)

    def old_logits(self, images: Tensor) -> Tensor:
        """Return the previous step's logits (B, C_old, H, W), without gradient."""
        with torch.no_grad():
            logits: Tensor = self.old(images)
            return logits
