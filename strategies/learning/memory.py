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
        """The labels of those classes that its step annotates and it shows: without the background, maybe none.

        An increment's image has no label for what it shows of other steps' classes, unless its step annotates all seen.
        """
        ...

    def told_up_to(self, label: int) -> Exemplar:
        """Return a reference to the same image, annotated with every class whose label is at most this one."""
        ...

    def bytes(self) -> int:
        """The size of the image and its annotation as uint8."""
        ...

    def load(self, augmentation: Any, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Return image (float32 3 x H x W, normalised) and annotation (int64 H x W), augmented anew."""
        ...


class Memory:
    """At most `size` exemplars, which its policy sees to, maybe none; `rng` makes every random choice."""

    def __init__(self, size: int, rng: np.random.Generator) -> None:
        if size < 0:
            raise ValueError(f"memory size {size} is below 0")
        self.size = size
        self.rng = rng
        self.exemplars: list[Exemplar] = []

    def __len__(self) -> int:
        return len(self.exemplars)

    def draw(self, count: int, among: Sequence[Exemplar] | None = None) -> list[Exemplar]:
        """Draw `count` exemplars (or all, if there are fewer) uniformly, without replacement, `among` some or all."""
        pool = self.exemplars if among is None else among
        picks = self.rng.choice(len(pool), min(count, len(pool)), replace=False)
        return [pool[i] for i in picks]

    def bytes(self) -> int:
        """Return the size of what is kept: images and annotations as uint8."""
        return sum(e.bytes() for e in self.exemplars)

    def holding(self, c: int) -> list[int]:
        """Return the places of the exemplars with a pixel annotated `c`: M^c."""
        return [i for i, e in enumerate(self.exemplars) if c in e.classes]

    def state_dict(self) -> dict[str, Any]:
        """Return what is kept, of the kinds that `Method.state_dict` names; `rng` is its owner's to keep."""
        return {"exemplars": list(self.exemplars)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        self.exemplars = state["exemplars"]


class StreamMemory(Memory, ABC):
    """A memory that decides on each image as it passes, from its annotated classes alone."""

    @abstractmethod
    def offer(self, exemplar: Exemplar, known_classes: int) -> None:
        """Put the exemplar among `exemplars` or not, and what it displaces away: `size` of them are allowed, no more.

        `known_classes` is |Y_t|, the background not counted.
        """


class Reservoir(StreamMemory):
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

    def state_dict(self) -> dict[str, Any]:
        """Return what is kept and how many images have passed."""
        return {**super().state_dict(), "seen": self.seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        super().load_state_dict(state)
        self.seen = state["seen"]


class ClassBalanced(StreamMemory):
    """Class-balanced exemplar selection, CBES (Sec. 3.4, Algorithm 2)."""

    def __init__(self, size: int, rng: np.random.Generator) -> None:
        super().__init__(size, rng)
        self.seen: Counter[int] = Counter()

    def offer(self, exemplar: Exemplar, known_classes: int) -> None:
        """Algorithm 2; ties are broken and classes visited at random, an unannotated image is not stored."""
        if not exemplar.classes or not self.size:
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

    def state_dict(self) -> dict[str, Any]:
        """Return what is kept and how many images of each class have passed."""
        return {**super().state_dict(), "seen": dict(self.seen)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        super().load_state_dict(state)
        self.seen = Counter(state["seen"])


POLICIES: dict[str, type[StreamMemory]] = {"reservoir": Reservoir, "cbes": ClassBalanced}


class ConfidenceMemory(Memory):
    """Keeps, balanced over classes, the images that scored highest when they arrived (CoRiSeg [24])."""

    def __init__(self, size: int, rng: np.random.Generator) -> None:
        super().__init__(size, rng)
        self.scores: dict[Exemplar, dict[int, float]] = {}

    def offer(self, exemplar: Exemplar, scores: dict[int, float]) -> None:
        """Keep the exemplar if it ranks high enough; `scores` are by annotated class, an image has one at least."""
        if not exemplar.classes:
            return
        self.scores[exemplar] = scores
        self.exemplars.append(exemplar)
        if len(self) > self.size:
            self.exemplars = balanced(self.rankings(), self.size)
            self.scores = {e: self.scores[e] for e in self.exemplars}

    def rankings(self) -> dict[int, list[Exemplar]]:
        """Return each class's images, the highest score first; of equals the earlier kept."""
        classes = sorted({c for e in self.exemplars for c in e.classes})
        return {
            c: sorted((e for e in self.exemplars if c in e.classes), key=lambda e: -self.scores[e][c]) for c in classes
        }

    def state_dict(self) -> dict[str, Any]:
        """Return what is kept and, in the same order, its scores."""
        return {**super().state_dict(), "scores": [self.scores[e] for e in self.exemplars]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        super().load_state_dict(state)
        self.scores = dict(zip(self.exemplars, state["scores"], strict=True))


class HerdingMemory(Memory):
    """Keeps the images whose mean class features together come nearest to the class's mean (iCaRL [28]).

    A class's mean is the running mean of its pixels' features as the stream has passed; the candidates that
    herding picks from are the images kept so far and the one that arrives (METHODS, icarl).
    """

    def __init__(self, size: int, rng: np.random.Generator) -> None:
        super().__init__(size, rng)
        self.features: dict[Exemplar, dict[int, np.ndarray]] = {}
        self._sums: dict[int, np.ndarray] = {}
        self._pixels: Counter[int] = Counter()

    def offer(self, exemplar: Exemplar, features: dict[int, np.ndarray], pixels: dict[int, int]) -> None:
        """Count the image's pixels and keep it if herding picks it.

        `features` are the mean features (D,) of the image's pixels of each class, `pixels` their number.
        """
        for c, mean in features.items():
            self._sums[c] = self._sums.get(c, 0) + pixels[c] * mean
            self._pixels[c] += pixels[c]
        if not features:
            return
        self.features[exemplar] = features
        self.exemplars.append(exemplar)
        if len(self) > self.size:
            self.exemplars = balanced(self.rankings(), self.size)
            self.features = {e: self.features[e] for e in self.exemplars}

    def bytes(self) -> int:
        """Return the size of what is kept: images and annotations as uint8, and the class features."""
        features = [f for each in self.features.values() for f in each.values()]
        return super().bytes() + sum(f.nbytes for f in (*features, *self._sums.values()))

    def rankings(self) -> dict[int, list[Exemplar]]:
        """Return each class's images in herding order."""
        return {c: self._herded(c) for c in sorted({c for f in self.features.values() for c in f})}

    def _herded(self, c: int) -> list[Exemplar]:
        among = [e for e in self.exemplars if c in self.features[e]]
        order = herding_order(np.stack([self.features[e][c] for e in among]), self._sums[c] / self._pixels[c])
        return [among[i] for i in order]

    def state_dict(self) -> dict[str, Any]:
        """Return what is kept, in the same order its features, and the running means' sums and pixels."""
        features = [self.features[e] for e in self.exemplars]
        return {**super().state_dict(), "features": features, "sums": dict(self._sums), "pixels": dict(self._pixels)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        super().load_state_dict(state)
        self.features = dict(zip(self.exemplars, state["features"], strict=True))
        self._sums = state["sums"]
        self._pixels = Counter(state["pixels"])


def herding_order(features: np.ndarray, mean: np.ndarray) -> list[int]:
    """Return the greedy order of `features` (n, D): each next one brings the mean of those taken nearest to `mean`."""
    left = list(range(len(features)))
    order: list[int] = []
    total = np.zeros_like(mean)
    while left:
        means = (total + features[left]) / (len(order) + 1)
        best = left.pop(int(np.argmin(((means - mean) ** 2).sum(axis=1))))
        total = total + features[best]
        order.append(best)
    return order


def balanced(rankings: dict[int, list[Exemplar]], size: int) -> list[Exemplar]:
    """Return at most `size` exemplars: the class that has fewest takes its next in rank, until the places are filled.

    An image counts for every class annotated in it, so that each class gets its quota of size / |Y_t| where it
    has as many; of classes with equally many the smaller id goes first.
    """
    kept: dict[Exemplar, None] = {}
    held = dict.fromkeys(rankings, 0)
    queues = {c: iter(ranking) for c, ranking in rankings.items()}
    while queues and len(kept) < size:
        c = min(queues, key=lambda c: (held[c], c))
        exemplar = next((e for e in queues[c] if e not in kept), None)
        if exemplar is None:
            del queues[c]
            continue
        kept[exemplar] = None
        for other in exemplar.classes & held.keys():
            held[other] += 1
    return list(kept)
