"""Decoded images: kept in memory as uint8 where they fit in a budget, else decoded whenever they are read.

What is kept lies in the cache as flat files, mapped into memory, so that all processes share it. Either way every
image is decoded once before any training starts, so that a damaged file is found there.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, TypeVar

import numpy as np

from benchmarks.cache import appearing_folder, cache_folder, full_disk_names, kept_text
from benchmarks.imageset import SPLITS, ImageSet, Split
from benchmarks.resampling import resized_by_pillow

Progress = Callable[[str, int, int], None]
"""Told what is being done, how many are done, and how many there are."""

Decoded = tuple[np.ndarray, np.ndarray]
"""An image (uint8 3 x H x W) and its full label map (uint8 H x W)."""

T = TypeVar("T")

CHANNELS = 3
BYTES_PER_PIXEL = CHANNELS + 1
AHEAD = 8
"""Images a core that are decoded before they are asked for."""


class Reader(ABC):
    """How a split's pixels are read."""

    kept: ClassVar[bool]
    """Whether the decoded images lie in memory."""

    @abstractmethod
    def read(self, index: int) -> Decoded:
        """Return an image and its label map."""

    def again(self, index: int) -> Decoded:
        """Return the same, for an image that is likely to be read again and again."""
        return self.read(index)


@dataclass(frozen=True)
class PackedSplit(Reader):
    """A split's images and label maps (both flat uint8, one after the other), mapped from a folder of the cache."""

    folder: Path
    split: Split

    kept: ClassVar[bool] = True

    def __reduce__(self) -> tuple[Any, ...]:
        return PackedSplit, (self.folder, self.split)

    @cached_property
    def sizes(self) -> np.ndarray:
        """Height and width of each image, int64 (N, 2)."""
        return np.asarray(np.load(self.folder / f"{self.split}-sizes.npy", allow_pickle=False))

    @cached_property
    def _starts(self) -> np.ndarray:
        areas = self.sizes.prod(axis=1)
        return np.asarray(np.cumsum(areas) - areas)

    @cached_property
    def images(self) -> np.ndarray:
        """All images."""
        return self._mapped("images", CHANNELS)

    @cached_property
    def label_maps(self) -> np.ndarray:
        """All label maps."""
        return self._mapped("label-maps", 1)

    def _mapped(self, kind: str, channels: int) -> np.ndarray:
        pixels = np.memmap(_pixel_file(self.folder, self.split, kind), np.uint8, "c")
        if len(pixels) != channels * self.sizes.prod(axis=1).sum():
            raise ValueError(f"{self.folder} is damaged")
        return pixels

    def read(self, index: int) -> Decoded:
        """Return image (3, H, W) and label map (H, W) `index`; they are not to be changed in place."""
        height, width = self.sizes[index].tolist()
        start, pixels = int(self._starts[index]), height * width
        image = self.images[CHANNELS * start : CHANNELS * (start + pixels)]
        label_map = self.label_maps[start : start + pixels]
        return np.asarray(image.reshape(CHANNELS, height, width)), np.asarray(label_map.reshape(height, width))


@dataclass(frozen=True)
class PackedImages:
    """Both splits' decoded images, mapped from the cache."""

    parts: dict[Split, PackedSplit]


@dataclass(frozen=True)
class DecodingReader(Reader):
    """Decodes an image whenever it is read; `again` remembers the last `room` images."""

    imageset: ImageSet
    split: Split
    size: int | None
    room: int
    jpeg_draft: bool = False

    kept: ClassVar[bool] = False

    def __reduce__(self) -> tuple[Any, ...]:
        return DecodingReader, (self.imageset, self.split, self.size, self.room, self.jpeg_draft)

    def read(self, index: int) -> Decoded:
        """Return image (3, H, W) and label map (H, W) `index`."""
        return _prepared(self.imageset, self.split, index, self.size, self.jpeg_draft)

    def again(self, index: int) -> Decoded:
        """Return the same, from memory where it was read lately."""
        return self._remembered(index)

    @cached_property
    def _remembered(self) -> Callable[[int], Decoded]:
        return lru_cache(self.room)(self.read)


def readers(
    imageset: ImageSet,
    size: int | None = None,
    ram_budget: float = 4 * 2**30,
    progress: Progress | None = None,
    jpeg_draft: bool = False,
) -> dict[Split, Reader]:
    """Return how each split's pixels are read, every image having been decoded once.

    `size` squeezes all images to size x size pixels. Where the decoded images of both splits exceed `ram_budget`
    bytes they are decoded whenever they are read, and `again` remembers as many as fit in it. With `jpeg_draft` JPEGs
    that are squeezed are decoded at 1/2, 1/4 or 1/8 where that is not below `size`: other pixels, sooner. Raises
    `DataError` for a file that is missing, damaged, or of another size than its label map.
    """
    count = sum(len(imageset.ids(split)) for split in SPLITS)
    total = BYTES_PER_PIXEL * (size * size * count if size else _check_images(imageset, progress))
    if total <= ram_budget:
        return dict(pack(imageset, size, progress, jpeg_draft).parts)
    if size:
        _check_images(imageset, progress)
    room = max(1, int(ram_budget * count / total))
    return {split: DecodingReader(imageset, split, size, room, jpeg_draft) for split in SPLITS}


def _prepared(imageset: ImageSet, split: Split, index: int, size: int | None, jpeg_draft: bool) -> Decoded:
    read = imageset.read if size is None or not jpeg_draft else partial(imageset.read_reduced, least=size)
    image, label_map = read(split, index)
    return _squeezed(image.transpose(2, 0, 1), label_map, size)


def _squeezed(image: np.ndarray, label_map: np.ndarray, size: int | None) -> Decoded:
    if size is not None:
        image, label_map = resized_by_pillow(image, label_map, (size, size))
    return np.array(image), np.array(label_map)


def _check_images(imageset: ImageSet, progress: Progress | None) -> int:
    """Decode every image once, unless that was done since its files changed; return the number of pixels."""

    def pixels(split: Split, index: int) -> int:
        return imageset.read(split, index)[1].size

    def check() -> str:
        return str(sum(sum(_in_order(imageset, split, pixels, progress)) for split in SPLITS))

    return int(kept_text("sound", f"{imageset.name}-{_key(imageset)}", check))


def pack(
    imageset: ImageSet, size: int | None = None, progress: Progress | None = None, jpeg_draft: bool = False
) -> PackedImages:
    """Return both splits decoded, as they are or squeezed to `size` x `size`: made on the first call, then kept.

    Images and label maps are squeezed by `resized_by_pillow`; `jpeg_draft` is as for `readers`. Raises `DataError` for
    a file that is missing, damaged, or of another size than its label map.
    """
    folder = cache_folder("packed") / f"{imageset.name}-{_key(imageset, size, jpeg_draft)}"
    there = folder.is_dir()
    try:
        return _mapped(folder)
    except (OSError, ValueError):
        cache_folder("packed", write=True)
    if there:  # damaged; else another process may just have made it
        shutil.rmtree(folder, ignore_errors=True)

    as_painted = not imageset.embedded or size in (None, imageset.uniform_side)
    painted = None if as_painted else pack(imageset, imageset.uniform_side, progress)

    def work(split: Split, index: int) -> Decoded:
        if painted is not None:
            return _squeezed(*painted.parts[split].read(index), size)
        return _prepared(imageset, split, index, size, jpeg_draft)

    with full_disk_names(folder), appearing_folder(folder) as scratch:
        for split in SPLITS:
            _write_split(imageset, split, scratch, work, progress)
    return _mapped(folder)


def _key(imageset: ImageSet, size: int | None = None, jpeg_draft: bool = False) -> str:
    made_by = [imageset.stamp(), size, *(["jpeg_draft"] if jpeg_draft else [])]
    return hashlib.sha256(json.dumps(made_by).encode()).hexdigest()[:20]


def _mapped(folder: Path) -> PackedImages:
    """Map both splits; raise OSError or ValueError where a file is missing or damaged."""
    parts = {split: PackedSplit(folder, split) for split in SPLITS}
    for part in parts.values():
        _ = part.images, part.label_maps
    return PackedImages(parts)


def _pixel_file(folder: Path, split: Split, kind: str) -> Path:
    return folder / f"{split}-{kind}.u8"


def _write_split(
    imageset: ImageSet, split: Split, folder: Path, work: Callable[[Split, int], Decoded], progress: Progress | None
) -> None:
    sizes = []
    with (
        _pixel_file(folder, split, "images").open("wb") as images,
        _pixel_file(folder, split, "label-maps").open("wb") as label_maps,
    ):
        for image, label_map in _in_order(imageset, split, work, progress):
            _append(images, image)
            _append(label_maps, label_map)
            sizes.append(label_map.shape)
    buffer = io.BytesIO()  # to a file, np.save raises an OSError that does not say that the disk is full
    np.save(buffer, np.array(sizes, dtype=np.int64))
    (folder / f"{split}-sizes.npy").write_bytes(buffer.getvalue())


def _in_order(
    imageset: ImageSet, split: Split, work: Callable[[Split, int], T], progress: Progress | None
) -> Iterator[T]:
    """Yield the work's result on each image of a split, a few images ahead on all cores."""
    count, cores = len(imageset.ids(split)), os.cpu_count() or 1
    pool = ThreadPoolExecutor(cores)
    try:
        waiting = deque(pool.submit(work, split, index) for index in range(min(count, AHEAD * cores)))
        for done in range(1, count + 1):
            yield waiting.popleft().result()
            if done + len(waiting) < count:
                waiting.append(pool.submit(work, split, done + len(waiting)))
            if progress:
                progress(f"{imageset.name}: reading the {split} images", done, count)
    finally:
        pool.shutdown(cancel_futures=True)


def _append(file: BinaryIO, pixels: np.ndarray) -> None:
    file.write(np.ascontiguousarray(pixels).data)
