"""Exemplar memories: what is kept of the stream, and by which rule.

A memory holds references to unaugmented images with the annotation they arrived with, never pixels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from torch import Tensor


class Exemplar(Protocol):
    """What a memory keeps of an image: its id, the step it was annotated at, its annotated classes."""

    @property
    def image_id(self) -> str:
        """The image's id."""
        ...

    @property
    def step(self) -> int:
        """The step it was annotated at."""
        ...

    @property
    def classes(self) -> frozenset[int]:
        """The labels of its annotated classes."""
        ...

    def load(self, augmentation: Any, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Return image (float32 3 x H x W, normalised) and annotation (int64 H x W), augmented anew."""
        ...


class Memory(ABC):
    """At most `size` exemplars; `rng` makes every random choice."""

    def __init__(self, size: int, rng: np.random.Generator) -> None:
        if size < 1:
            raise ValueError(f"memory size {size} is below 1")
        self.size = size
        self.rng = rng
        self.exemplars: list[Exemplar] = []

    def __len__(self) -> int:
        return len(self.exemplars)

    @abstractmethod
    def offer(self, exemplar: Exemplar, known_classes: int) -> None:
        """Keep the exemplar or not; `known_classes` is |Y_t|, the background not counted."""

    def draw(self, count: int) -> list[Exemplar]:
        """Draw `count` exemplars (or all, if there are fewer) uniformly, without replacement."""
        picks = self.rng.choice(len(self.exemplars), min(count, len(self.exemplars)), replace=False)
        return [self.exemplars[i] for i in picks]

    def holding(self, c: int) -> list[int]:
        """Return the places of the exemplars with a pixel annotated `c`: M^c."""
        return [i for i, e in enumerate(self.exemplars) if c in e.classes]


class Reservoir(Memory):
    """Reservoir sampling: after n images each is kept with probability size / n (Vitter 1985; ER [8])."""

    def __init__(self, size: int, rng: np.random.Generator) -> None:
        super().__init__(size, rng)
        self.seen = 0

    def offer(self, exemplar: Exemplar, known_classes: int) -> None:
        """Keep the exemplar in a free place, or in that of another with probability size / seen."""
        self.seen += 1
        if len(self) < self.size:
            self.exemplars.append(exemplar)
            return
        place = int(self.rng.integers(self.seen))
        if place < self.size:
            self.exemplars[place] = exemplar


class ClassBalanced(Memory):
    """Class-balanced exemplar selection, CBES (Sec. 3.4, Algorithm 2)."""

    def __init__(self, size: int, rng: np.random.Generator) -> None:
        super().__init__(size, rng)
        self.seen: Counter[int] = Counter()

    def offer(self, exemplar: Exemplar, known_classes: int) -> None:
        """Algorithm 2; ties are broken and classes visited at random, an unannotated image is not stored."""
        if not exemplar.classes:
            return
        self.seen.update(exemplar.classes)
        held = Counter(c for e in self.exemplars for c in e.classes)
        fewest = min(held[c] for c in exemplar.classes)
        if len(self) < self.size:
            self.exemplars.append(exemplar)
        elif fewest < self.size / known_classes:
            most = max(held.values())
            largest = self._pick(sorted(c for c in held if held[c] == most))
            del self.exemplars[self._pick(self.holding(largest))]
            self.exemplars.append(exemplar)
        else:
            self._replace_within_a_class(exemplar, held)

    def _replace_within_a_class(self, exemplar: Exemplar, held: Counter[int]) -> None:
        for c in self.rng.permutation(sorted(exemplar.classes)).tolist():
            if self.rng.random() <= held[c] / self.seen[c]:
                self.exemplars[self._pick(self.holding(c))] = exemplar
                return

    def _pick(self, among: Sequence[int]) -> int:
        return among[int(self.rng.integers(len(among)))]


POLICIES: dict[str, type[Memory]] = {"reservoir": Reservoir, "cbes": ClassBalanced}
