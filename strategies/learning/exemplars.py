"""The exemplars of the offline protocol: chosen anew after each step, balanced over the classes that images show."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from benchmarks.labels import BACKGROUND, UNKNOWN, VOID
from strategies.learning.memory import Exemplar, Memory
from strategies.learning.method import Remembering
from strategies.learning.strategy import Strategy
from strategies.networks.network import evaluation_mode

Shown = frozenset[int]
"""The labels of the classes that an image shows, or is thought to."""


class ChosenExemplars(Memory):
    """`size` images chosen after each step among the step's and those chosen before (SSUL-M, DKD-M; OFFLINE, 1.4)."""

    def choose(self, candidates: Mapping[Exemplar, Shown]) -> None:
        """Replace what is kept: the classes, in one random order, take a random image that shows them round by round.

        It ends when `size` images are taken or no class has one left; images that show no class are never taken.
        """
        images, classes = list(candidates), sorted({c for shown in candidates.values() for c in shown})
        order = self.rng.permutation(len(classes)).tolist()
        showing = [[i for i, image in enumerate(images) if classes[c] in candidates[image]] for c in order]
        queues = [iter(self.rng.permutation(places).tolist()) for places in showing]
        taken: dict[int, None] = {}
        found = True
        while found and len(taken) < self.size:
            found = False
            for queue in queues:
                place = next((i for i in queue if i not in taken), None)
                if place is not None and len(taken) < self.size:
                    taken[place], found = None, True
        self.exemplars = [images[i] for i in taken]


def shown_classes(
    strategy: Strategy, exemplars: Sequence[Exemplar], sure_classes: Callable[[Tensor], Tensor]
) -> list[Shown]:
    """Return the classes annotated in each image, and those that the network is sure of where none is.

    `sure_classes` gives labels (B, H, W) of logits, 0 where it is sure of none. It takes one pass over the images as
    they are, with the network as it is now; where steps annotate every class seen so far (`sequential`) none is asked.
    """
    found: list[Shown] = []
    with strategy.counted(), torch.no_grad(), evaluation_mode(strategy.network):
        for _, images, labels in strategy.inspected(exemplars):
            if not strategy.experience.annotates_all_seen:
                free = (labels == BACKGROUND) | (labels == UNKNOWN)
                labels = torch.where(free, sure_classes(strategy.network(images)), labels)
            found += [frozenset(image.unique().tolist()) - {BACKGROUND, VOID, UNKNOWN} for image in labels]
    return found


class ExemplarMethod(Remembering):
    """A method that keeps `parameters.exemplars` images, chosen anew after each step (`ChosenExemplars`).

    What an image shows is what is annotated in it, and after an increment what the network is sure of too.
    """

    on_one_device: ClassVar[bool] = True

    memory: ChosenExemplars

    def make_memory(self, size: int) -> ChosenExemplars:
        """Return an empty memory of as many images as the method's parameter says, whatever `memory.size` is."""
        return ChosenExemplars(self.parameters.exemplars, self.rng)

    @abstractmethod
    def sure_classes(self, logits: Tensor) -> Tensor:
        """Return (B, H, W): the class that logits (B, C, H, W) are sure of at a pixel, 0 where there is none."""

    def told(self, strategy: Strategy, exemplars: Sequence[Exemplar]) -> list[Exemplar]:
        """Return references to the same images with the truth of all classes seen so far."""
        return [exemplar.told_up_to(strategy.known_classes) for exemplar in exemplars]

    def fill(self, strategy: Strategy, exemplars: list[Exemplar], known_classes: int) -> None:
        """Choose among the base step's images by what is annotated in them."""
        self.memory.choose({exemplar: exemplar.classes for exemplar in exemplars})

    def after_training_exp(self, strategy: Strategy, *args: Any, **kwargs: Any) -> None:
        """Choose among the step's images and those in memory."""
        super().after_training_exp(strategy, *args, **kwargs)
        data, ids = strategy.experience.data, set(strategy.experience.data.ids)
        step = [data.exemplar(i) for i in range(len(data))]
        others = [exemplar for exemplar in self.memory.exemplars if exemplar.image_id not in ids]
        shown = shown_classes(strategy, [*step, *self.told(strategy, others)], self.sure_classes)
        self.memory.choose(dict(zip([*step, *others], shown, strict=True)))
