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
        self._held = np.zeros(0, dtype=np.int64)
        self._reported = np.zeros(0, dtype=np.int64)
        self._last: dict[tuple[int, int], int] = {}

    @property
    def batch(self) -> int:
        """The batch under way."""
        return len(self._held)

    def end_batch(self, kept: int) -> None:
        """The batch under way is over; the memory reports `kept` images. Raises `OnlineContractError`."""
        if kept > self.size:
            raise OnlineContractError(f"the memory has {kept} images; memory.size allows {self.size}")
        self._held = np.append(self._held, 0)
        self._reported = np.append(self._reported, kept)

    def arrive(self, step: int, indices: Iterable[int]) -> None:
        """Images of a step come with the batch under way."""
        self._last.update(((step, index), self.batch) for index in indices)

    def has_come(self, step: int, index: int) -> bool:
        """Return whether an image has come by."""
        return (step, index) in self._last

    def read(self, step: int, index: int) -> None:
        """An image that has come by is read now. Raises `OnlineContractError` where the memory cannot have held it."""
        last, now = self._last[step, index], self.batch
        if last == now:
            return
        self._last[step, index] = now
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
        places = np.array([(*place, last) for place, last in self._last.items()]).reshape(-1, 3)
        return {"held": self._held, "reported": self._reported, "last": places}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        self._held, self._reported = state["held"].copy(), state["reported"].copy()
        self._last = {(step, index): last for step, index, last in state["last"].tolist()}


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
