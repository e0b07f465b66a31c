"""The mini-batches of a template: a step's images, and those that a method reads again."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from avalanche.training.templates import SupervisedTemplate
from torch import Tensor

from strategies.learning.copies import sent
from strategies.learning.guard import listed
from strategies.learning.losses import own_classes
from strategies.learning.memory import Exemplar
from strategies.learning.randomness import Seeds


class MiniBatches(SupervisedTemplate):
    """An Avalanche template whose mini-batches are images with label maps.

    They are [images float32 B x 3 x H x W, labels int64 B x H x W, steps B, indices B], the incoming images first;
    `indices` is negative for a memory image.
    """

    mbatch: list[Tensor]

    def __init__(self, *, seeds: Seeds, augmentation: Any, workers: int, **of_avalanche: Any) -> None:
        self.seeds = seeds
        self.augmentation = augmentation
        self.workers = workers
        self._step_of_output = torch.tensor([-1])
        self._loaded: list[str] = []
        self._came: list[int] = []
        self._replay_rng = np.random.default_rng([seeds.augmentation, 1])
        super().__init__(**of_avalanche)

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

    def _unpack_minibatch(self) -> None:
        """Move the batch to the device; its indices are read before, for which the host would wait after it."""
        self._came = self.mbatch[3].tolist()
        super()._unpack_minibatch()

    def watched(self, exemplar: Any) -> Any:
        """Return an exemplar of the train stream as a method gets it."""
        return exemplar

    def load(self, exemplars: Sequence[Exemplar]) -> list[Tensor]:
        """Return exemplars, augmented anew, as a mini-batch."""
        images, labels = zip(*(e.load(self.augmentation, self._replay_rng) for e in exemplars), strict=True)
        first = len(self._loaded)
        self._loaded += [e.image_id for e in exemplars]
        steps = torch.tensor([e.step for e in exemplars])
        indices = torch.tensor([~place for place in range(first, len(self._loaded))])
        return [sent(part, self.device) for part in (torch.stack(images), torch.stack(labels), steps, indices)]

    def join(self, memory: Sequence[Tensor]) -> None:
        """Append a mini-batch from memory to the incoming images."""
        self.mbatch = [torch.cat(parts) for parts in zip(self.mbatch, memory, strict=True)]

    def replace(self, memory: Sequence[Tensor], places: Tensor) -> None:
        """Put a mini-batch from memory at `places` (n,), best on the CPU, of the mini-batch."""
        for place in places.tolist():
            self._came[place] = -1
        there = sent(places.cpu(), self.device)
        self.mbatch = [part.index_copy(0, there, own) for part, own in zip(self.mbatch, memory, strict=True)]

    def inspected(self, exemplars: Sequence[Exemplar]) -> Iterator[tuple[list[Exemplar], Tensor, Tensor]]:
        """Yield exemplars with their images and annotations as they are, in order, a few of one size at a time."""
        for i in range(0, len(exemplars), self.eval_mb_size):
            loaded = [(e, *e.load(None, self._replay_rng)) for e in exemplars[i : i + self.eval_mb_size]]
            for _, of_one_size in itertools.groupby(loaded, key=lambda one: one[1].shape):
                chunk, images, labels = zip(*of_one_size, strict=True)
                yield list(chunk), torch.stack(images).to(self.device), torch.stack(labels).to(self.device)

    def incoming(self) -> list[Exemplar]:
        """Return references to the incoming images of the mini-batch."""
        of_a_part = len(self.mbatch[3]) < len(self._came)
        indices = self.mbatch[3].tolist() if of_a_part else self._came
        return [self.experience.data.exemplar(i) for i in indices if i >= 0]

    def train_dataset_adaptation(self, **kwargs: Any) -> None:
        """Adapt nothing: the experience's batches come from `make_train_dataloader`."""

    def eval_dataset_adaptation(self, **kwargs: Any) -> None:
        """Adapt nothing: the experience's batches come from `make_eval_dataloader`."""

    def make_eval_dataloader(self, **kwargs: Any) -> None:
        """Read the evaluation images in their list's order, as they are."""
        self.dataloader = self.experience.data.batches(self.eval_mb_size, workers=self.workers, device=self.device)

    def _images_told(self) -> Callable[[], str]:
        """Return what tells the ids of the mini-batch's images and refers to none of these."""
        indices, ids, loaded = self.mbatch[3], self.experience.data.ids, self._loaded

        def told() -> str:
            places = indices.tolist()
            incoming = [ids[i] for i in places if i >= 0]
            memory = [loaded[~i] if ~i < len(loaded) else "unknown" for i in places if i < 0]
            return f"{listed('incoming', incoming)}; {listed('memory', memory)}"

        return told
