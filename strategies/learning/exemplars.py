"""The exemplars of the offline protocol: chosen anew after each step, balanced over the classes that images show."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from benchmarks.labels import BACKGROUND, UNKNOWN, VOID
from strategies.learning.memory import Exemplar, Memory
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
    they are, with the network as it is now.
    """
    found: list[Shown] = []
    with strategy.counted(), torch.no_grad(), evaluation_mode(strategy.network):
        for _, images, labels in strategy.inspected(exemplars):
            free = (labels == BACKGROUND) | (labels == UNKNOWN)
            filled = torch.where(free, sure_classes(strategy.network(images)), labels)
            found += [frozenset(image.unique().tolist()) - {BACKGROUND, VOID} for image in filled]
    return found
