"""Images of a split with the labels that a step gives them, and batches of them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from benchmarks.augmentation import AnyAugmentation, Normalisation, View, normalised
from benchmarks.labels import BACKGROUND, UNKNOWN, VOID, label_table
from benchmarks.loading import Pass, ordered_batches, passes
from benchmarks.packing import Reader
from benchmarks.saliency import Saliency

Order = Sequence[int] | np.ndarray
"""In which images come by, by their places."""


@dataclass(frozen=True)
class Exemplar:
    """A reference to one unaugmented training image and the annotation it arrived with.

    `classes` are the labels of the image's annotated classes, from its whole label map.
    """

    image_id: str
    step: int
    classes: frozenset[int]
    data: AnnotatedImages
    index: int

    def load(self, augmentation: AnyAugmentation | None, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Return image (float32 3 x H x W, normalised) and annotation (int64 H x W), augmented anew."""
        image, labels = self.data.sample(self.index, augmentation, rng, again=True)
        return normalised(image, self.data.normalisation), labels.long()

    def told_up_to(self, label: int) -> Exemplar:
        """Return a reference to the same image, annotated with every class whose label is at most this one."""
        return replace(self, data=self.data.told_up_to(label))

    def bytes(self) -> int:
        """Return the size of the image and its annotation as uint8."""
        return sum(part.nbytes for part in self.data.annotated(self.index))


class AnnotatedImages(Dataset[tuple[Tensor, Tensor, int]]):
    """The images of one experience with the labels its step gives them."""

    def __init__(
        self,
        pixels: Reader,
        places: np.ndarray,
        ids: Sequence[str],
        presence: np.ndarray,
        step: int,
        positions: Mapping[int, int],
        others: int = BACKGROUND,
        view: View | None = None,
        normalisation: Normalisation | None = None,
        void_is_background: bool = False,
        every_position: Mapping[int, int] | None = None,
        salient: Saliency | None = None,
        all_unknown: bool = False,
    ) -> None:
        """`places` are the images' places in the split's list, `positions` the labels of annotated classes.

        With `void_is_background` the void of the label maps is background; what an augmentation adds is not.
        `every_position` has the labels of all classes, for `told_up_to`. Of the pixels that are background then, those
        that are `salient` are of the unknown class, or with `all_unknown` all, and what an augmentation adds.
        """
        self.step = step
        self.normalisation = normalisation
        self.ids = tuple(ids[i] for i in places)
        self._pixels = pixels
        self._places = places
        self._view = view
        self._void_is_background = void_is_background
        self._every_position = positions if every_position is None else every_position
        self._salient = salient
        self._others = others
        self._all_unknown = all_unknown
        self._table = self._table_of(positions)
        self._labels = np.array(list(positions.values()))
        self._shown = np.packbits(presence[np.ix_(places, np.array(list(positions), dtype=int))], axis=1)

    def _table_of(self, positions: Mapping[int, int]) -> np.ndarray:
        table = label_table(positions, self._others)
        if self._salient is not None:
            table[UNKNOWN] = UNKNOWN
        if self._all_unknown:
            table[table == BACKGROUND] = UNKNOWN
        return table

    def told_up_to(self, label: int) -> AnnotatedImages:
        """Return the same images, annotated with every class whose label is at most this one."""
        other = copy.copy(self)
        other._table = self._table_of({raw: own for raw, own in self._every_position.items() if own <= label})
        return other

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, int]:
        image, labels = self.sample(index, None, None)
        return normalised(image, self.normalisation), labels.long(), self.step

    def annotated(self, index: int) -> tuple[Tensor, Tensor]:
        """Return image `index` (uint8 3 x H x W) and its annotation (uint8 H x W)."""
        image, labels = self.sample(index, None, None, again=True)
        return image.clone(), labels

    def sample(
        self, index: int, augmentation: AnyAugmentation | None, rng: np.random.Generator | None, *, again: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Return image and annotation like `annotated`, augmented; `again` tells that it will be read again.

        The image may share its memory with what is kept: it must not be changed in place.
        """
        read = self._pixels.again if again else self._pixels.read
        image, labels = (torch.from_numpy(part) for part in read(int(self._places[index])))
        if self._void_is_background:
            labels = labels.masked_fill(labels == VOID, BACKGROUND)
        if self._salient is not None:
            salient = torch.from_numpy(self._salient(int(self._places[index]), labels.shape))
            unlabelled = torch.from_numpy(self._table[labels.numpy()] == BACKGROUND)
            labels = labels.masked_fill(unlabelled & salient, UNKNOWN)
        if augmentation is not None:
            assert rng is not None
            image, labels = augmentation(image, labels, rng)
        if self._view is not None:
            image, labels = self._view(image, labels)
        return image, torch.from_numpy(self._table.take(labels.numpy()))

    def exemplar(self, index: int) -> Exemplar:
        """Return the reference by which a memory keeps image `index`."""
        shown = np.unpackbits(self._shown[index], count=len(self._labels)).view(bool)
        return Exemplar(self.ids[index], self.step, frozenset(self._labels[shown].tolist()), self, index)

    def batches(
        self,
        batch_size: int,
        order: Order | None = None,
        augmentation: AnyAugmentation | None = None,
        seed: Sequence[int] = (0,),
        workers: int = 0,
        share: tuple[int, int] = (0, 1),
        beside: Sequence[Exemplar] = (),
        device: torch.device | None = None,
    ) -> DataLoader[Any]:
        """Return batches [images float32 B x 3 x H x W, labels int64 B x H x W, steps B, indices B].

        The augmentation of each image depends on `seed` and its place in `order` alone, so that any number
        of `workers` gives the same batches. Images that do not lie in memory are decoded by at least one worker.
        `share` (r, n) takes images r, r + n, ... of each batch alone; a batch that has none of them is left out.
        Numbers in `order` from the number of images on are of the exemplars `beside`, whose indices are -1, -2, ...
        Images and labels come on `device` where that is a GPU: as uint8 from pinned memory, nobody waits for them.
        """
        places = _Places(batch_size, range(len(self)) if order is None else order, tuple(seed), share)
        return self._loader(augmentation, workers, beside, device)(places)

    def epochs(
        self,
        batch_size: int,
        orders: Iterable[tuple[Order, Sequence[int]]],
        augmentation: AnyAugmentation | None = None,
        workers: int = 0,
        share: tuple[int, int] = (0, 1),
        beside: Sequence[Exemplar] = (),
        device: torch.device | None = None,
    ) -> Iterator[Pass]:
        """Yield for each (order, seed) the same batches as `batches` does, one epoch after another.

        The workers are started once and read the next epoch's first images while the last ones of this are used.
        """
        places = (_Places(batch_size, order, tuple(seed), share) for order, seed in orders)
        return passes(self._loader(augmentation, workers, beside, device), places)

    def _loader(
        self,
        augmentation: AnyAugmentation | None,
        workers: int,
        beside: Sequence[Exemplar],
        device: torch.device | None,
    ) -> Callable[[Iterable[list[_Place]]], DataLoader[Any]]:
        """Return what loads a batch for each list of places."""
        workers = workers if self._pixels.kept else max(1, workers)
        on_gpu = device is not None and device.type == "cuda"
        prepared = partial(_for_training, self.normalisation, device if on_gpu else None)
        picks = _Picks(self, augmentation, beside)
        return lambda places: ordered_batches(picks, places, _joined, prepared, workers, on_gpu)


class _Place(NamedTuple):
    """An image's place in an epoch."""

    seed: tuple[int, ...]
    """Of the epoch's augmentation."""
    position: int
    image: int


@dataclass(frozen=True)
class _Places(Sequence[list[_Place]]):
    """Of each batch of an epoch the places of a share of its images, made as they are asked for.

    A batch without an image of the share, which is the last one or each, is left out.
    """

    batch_size: int
    order: Order
    seed: tuple[int, ...]
    share: tuple[int, int]

    def __len__(self) -> int:
        whole, rest = divmod(len(self.order), self.batch_size)
        first, _ = self.share
        return whole * (first < self.batch_size) + (first < rest)

    def __getitem__(self, batch: Any) -> Any:
        if not 0 <= batch < len(self):
            raise IndexError(batch)
        first, every = self.share
        start = batch * self.batch_size
        of_batch = range(start, min(start + self.batch_size, len(self.order)))
        return [_Place(self.seed, position, int(self.order[position])) for position in of_batch[first::every]]


@dataclass(frozen=True)
class _Picks(Dataset[tuple[Tensor, Tensor, int, int]]):
    data: AnnotatedImages
    augmentation: AnyAugmentation | None
    beside: Sequence[Exemplar]

    def __getitem__(self, place: _Place) -> tuple[Tensor, Tensor, int, int]:
        seed, position, index = place
        rng = np.random.default_rng([*seed, position])
        if index >= len(self.data):
            exemplar = self.beside[index - len(self.data)]
            image, labels = exemplar.data.sample(exemplar.index, self.augmentation, rng, again=True)
            return image, labels, exemplar.step, len(self.data) - 1 - index
        return *self.data.sample(index, self.augmentation, rng), self.data.step, index


def _joined(samples: Sequence[tuple[Tensor, Tensor, int, int]]) -> list[Tensor]:
    """Join samples (uint8 image, uint8 labels, step, index)."""
    images, labels, steps, indices = zip(*samples, strict=True)
    return [torch.stack(images), torch.stack(labels), torch.tensor(steps), torch.tensor(indices)]


def _for_training(
    normalisation: Normalisation | None, device: torch.device | None, batch: Sequence[Tensor]
) -> list[Tensor]:
    """Return a joined batch with its images normalised (float32) and its labels int64, on a device if one is named."""
    images, labels, steps, indices = batch
    if device is not None:
        images, labels = (part.to(device, non_blocking=True) for part in (images, labels))
    return [normalised(images, normalisation), labels.long(), steps, indices]
