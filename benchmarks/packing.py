"""Every image decoded once before any training starts, so that a damaged file is found there.

Images squeezed to one size are kept as two arrays in the cache, mapped into memory and shared by all
processes; of others the cache keeps that they were found sound.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.cache import appearing_folder, cache_folder
from benchmarks.imageset import SPLITS, ImageSet, Split

Progress = Callable[[str, int, int], None]
"""Told what is being done, how many are done, and how many there are."""


@dataclass(frozen=True)
class PackedImages:
    """A split's images, uint8 (N, 3, S, S), and full label maps, uint8 (N, S, S)."""

    images: np.ndarray
    label_maps: np.ndarray

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return image (3, S, S) and label map (S, S) `index`."""
        return self.images[index], self.label_maps[index]


def pack(imageset: ImageSet, split: Split, size: int, progress: Progress | None = None) -> PackedImages:
    """Return a split squeezed to `size` x `size` pixels, decoded on the first call and kept after it.

    Images are reduced with an antialiased bilinear filter, label maps by the nearest pixel. Raises
    `DataError` for a file that is missing, damaged, or of another size than its label map.
    """
    key = hashlib.sha256(json.dumps([imageset.stamp(), size]).encode()).hexdigest()[:20]
    folder = cache_folder("packed") / f"{imageset.name}-{key}"
    try:
        return _mapped(folder, split)
    except (OSError, ValueError):
        shutil.rmtree(folder, ignore_errors=True)  # damaged, or not there
    with appearing_folder(folder) as scratch:
        for each in SPLITS:
            _write_split(imageset, each, size, scratch, progress)
    return _mapped(folder, split)


def _mapped(folder: Path, split: Split) -> PackedImages:
    images, label_maps = (np.load(folder / f"{split}-{kind}.npy", mmap_mode="r") for kind in ("images", "label-maps"))
    return PackedImages(images, label_maps)


def check_images(imageset: ImageSet, progress: Progress | None = None) -> None:
    """Decode every image once, unless that was done since its files changed; raise `DataError` like `pack`."""
    sound = cache_folder("sound") / f"{imageset.name}-{imageset.stamp()[:20]}"
    if not sound.is_file():
        for split in SPLITS:
            _for_each(imageset, split, lambda split, index: imageset.read(split, index), progress)
        sound.touch()


def _write_split(imageset: ImageSet, split: Split, size: int, folder: Path, progress: Progress | None) -> None:
    count = len(imageset.ids(split))
    images = np.empty((count, 3, size, size), dtype=np.uint8)
    label_maps = np.empty((count, size, size), dtype=np.uint8)

    def one(split: Split, index: int) -> None:
        image, label_map = _squeezed(*imageset.read(split, index), size)
        images[index] = image.transpose(2, 0, 1)
        label_maps[index] = label_map

    _for_each(imageset, split, one, progress)
    np.save(folder / f"{split}-images.npy", images)
    np.save(folder / f"{split}-label-maps.npy", label_maps)


def _for_each(
    imageset: ImageSet, split: Split, work: Callable[[Split, int], object], progress: Progress | None
) -> None:
    count = len(imageset.ids(split))
    pool = ThreadPoolExecutor(os.cpu_count() or 1)
    try:
        for done, _ in enumerate(pool.map(lambda index: work(split, index), range(count)), 1):
            if progress:
                progress(f"{imageset.name}: reading the {split} images", done, count)
    finally:
        pool.shutdown(cancel_futures=True)


def _squeezed(image: np.ndarray, label_map: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    if label_map.shape == (size, size):
        return image, label_map
    small = Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR)
    labels = Image.fromarray(label_map).resize((size, size), Image.Resampling.NEAREST)
    return np.asarray(small), np.asarray(labels)
