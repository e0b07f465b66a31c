"""What a method may see of the stream: a step's classes at once, its images as they come, each batch once.

An image that came by may be read again as long as it can be in the memory, whatever the method says it keeps.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from strategies.learning.faults import OnlineContractError


class Holdings:
    """How many images a method must have held at the end of each batch to read what it has read.

    An image that came with batch s and is read at batch t was in memory at the end of the batches s, ..., t - 1. At
    the end of none may more images have been so than the method's memory reported then. The filling of the memory
    from the base step is batch 0; batches count over all steps.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.batch = 0
        """The batch under way."""
        self._held, self._reported = (np.zeros(1, dtype=np.int64) for _ in range(2))
        self._last: dict[int, np.ndarray] = {}  # by step, the batch that each image was last read or came with, or -1

    def end_batch(self, kept: int) -> None:
        """The batch under way is over; the memory reports `kept` images. Raises `OnlineContractError`."""
        if kept > self.size:
            raise OnlineContractError(f"the memory has {kept} images; memory.size allows {self.size}")
        self._held, self._reported = (with_place(each, self.batch, 0) for each in (self._held, self._reported))
        self._reported[self.batch] = kept
        self.batch += 1

    def arrive(self, step: int, indices: Iterable[int]) -> None:
        """Images of a step come with the batch under way."""
        places = np.fromiter(indices, dtype=np.int64)
        if len(places):
            self._last[step] = with_place(self._last.get(step, np.full(1, -1)), int(places.max()), -1)
            self._last[step][places] = self.batch

    def has_come(self, step: int, index: int) -> bool:
        """Return whether an image has come by."""
        return step in self._last and index < len(self._last[step]) and bool(self._last[step][index] >= 0)

    def read(self, step: int, index: int) -> None:
        """An image that has come by is read now. Raises `OnlineContractError` where the memory cannot have held it."""
        last, now = int(self._last[step][index]), self.batch
        if last == now:
            return
        self._last[step][index] = now
        held = self._held[last:now]
        held += 1
        over = np.flatnonzero(held > self._reported[last:now])
        if len(over):
            batch, read = last + over[0], held[over[0]]
            raise OnlineContractError(
                f"after batch {batch} the memory had {self._reported[batch]} images (memory.size is {self.size}), and "
                f"{read} from until then have been read since; the online protocol allows those in memory alone"
            )

    def state_dict(self) -> dict[str, Any]:
        """Return what the next step goes on from, of the kinds that `Method.state_dict` names."""
        come = [(step, np.flatnonzero(last >= 0), last) for step, last in self._last.items()]
        places = [np.stack([np.full_like(images, step), images, last[images]], 1) for step, images, last in come]
        last = np.concatenate([np.zeros((0, 3), dtype=np.int64), *places])
        return {"held": self._held[: self.batch], "reported": self._reported[: self.batch], "last": last}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        self.batch = len(state["held"])
        self._held, self._reported = (with_place(state[name], self.batch, 0) for name in ("held", "reported"))
        self._last, (steps, images, last) = {}, state["last"].T
        for step in np.unique(steps).tolist():
            of_step = images[steps == step]
            self._last[step] = with_place(np.full(1, -1), int(of_step.max()), -1)
            self._last[step][of_step] = last[steps == step]


def with_place(values: np.ndarray, place: int, filling: int) -> np.ndarray:
    """Return values (n,) with a place among them, if need be a copy of twice as many filled up."""
    lacking = place + 1 - len(values)
    if lacking <= 0:
        return values
    return np.pad(values, (0, max(lacking, len(values))), constant_values=filling)


class ArrivingImages:
    """A step's images as a method sees them: those that have come by, and its batches for the one pass over them.

    Reading an image is told to the method's `Holdings`.
    """

    def __init__(self, images: Any, holdings: Holdings) -> None:
        self.step: int = images.step
        self._images = images
        self._holdings = holdings
        self._passed = False

    @property
    def ids(self) -> Sequence[str]:
        """The ids of all images of the step."""
        ids: Sequence[str] = self._images.ids
        return ids

    @property
    def normalisation(self) -> Any:
        """What a network takes them by; see `AnnotatedImages`."""
        return self._images.normalisation

    def __len__(self) -> int:
        return len(self._images)

    def exemplar(self, index: int) -> Any:
        """Return the reference by which a memory keeps an image that has come by."""
        self._require_come(index)
        return self.watched(self._images.exemplar(index))

    def watched(self, exemplar: Any) -> Any:
        """Return an exemplar of these images that reads its image here."""
        return dataclasses.replace(exemplar, data=self)

    def annotated(self, index: int) -> Any:
        """Return an image that has come by and its annotation; see `AnnotatedImages`."""
        self._read(index)
        return self._images.annotated(index)

    def sample(self, index: int, *args: Any, **kwargs: Any) -> Any:
        """Return an image that has come by and its annotation, augmented; see `AnnotatedImages`."""
        self._read(index)
        return self._images.sample(index, *args, **kwargs)

    def batches(self, *args: Any, **kwargs: Any) -> OnePass:
        """Return the batches of the step, once; see `AnnotatedImages`."""
        if self._passed:
            raise OnlineContractError(
                f"step {self.step}: its batches are asked for again; the online protocol has one pass"
            )
        self._passed = True
        return OnePass(self._images.batches(*args, **kwargs))

    def _read(self, index: int) -> None:
        self._require_come(index)
        try:
            self._holdings.read(self.step, index)
        except OnlineContractError as error:
            raise OnlineContractError(f"image {self.ids[index]} of step {self.step}: {error}") from None

    def _require_come(self, index: int) -> None:
        if not self._holdings.has_come(self.step, index):
            raise OnlineContractError(
                f"image {self.ids[index]} of step {self.step} has not come by in an incoming batch; the online "
                f"protocol gives no other images"
            )


class OnePass:
    """Batches that can be passed over once."""

    def __init__(self, batches: Any) -> None:
        self._batches = batches
        self._count = len(batches)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Any]:
        batches, self._batches = self._batches, None
        if batches is None:
            raise OnlineContractError("the batches of a step are passed over again; the online protocol has one pass")
        return iter(batches)


class SeenExperience:
    """An Avalanche experience as a strategy's hooks see it: all but the images of it and of its stream."""

    def __init__(self, experience: Any, data: ArrivingImages) -> None:
        self._experience = experience
        self.data = data
        self.origin_stream = SimpleNamespace(name=experience.origin_stream.name)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._experience, name)

    @property
    def dataset(self) -> Any:
        """There is none: raises `OnlineContractError`."""
        raise OnlineContractError(
            f"step {self.data.step}: the experience's images are asked for; the online protocol gives those of the "
            f"incoming batches alone"
        )

    def logging(self) -> SeenExperience:
        """Return itself, for Avalanche's metrics."""
        return self
