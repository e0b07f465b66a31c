"""An image set that is generated from a seed: square images of one size, made on the first use and kept."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from benchmarks.cache import kept_text
from benchmarks.imageset import SPLITS, ImageSet, Presence, Split
from benchmarks.packing import pack
from benchmarks.presence import kept_presence


@dataclass(frozen=True)
class GeneratedImageSet(ImageSet):
    """Images that a function of (split, index, seed) paints."""

    seed: int = 0

    embedded: ClassVar[bool] = True
    sizes: ClassVar[Mapping[Split, int]]
    """Images per split."""
    version: ClassVar[int]
    """Raised with every change of a pixel."""

    @classmethod
    def open(cls, data_root: Path | None) -> ImageSet:
        """Return the image set; a data root is not needed."""
        return cls()

    @abstractmethod
    def generate(self, split: Split, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return an image (uint8 S x S x 3) and its label map (uint8 S x S)."""

    @property
    def _side(self) -> int:
        assert self.uniform_side is not None
        return self.uniform_side

    def ids(self, split: Split) -> tuple[str, ...]:
        """Return `train-0000` ... or `test-0000` ..."""
        return tuple(f"{split}-{i:04d}" for i in range(self.sizes[split]))

    def read(self, split: Split, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return an image (uint8 S x S x 3) and its label map (uint8 S x S)."""
        return self.generate(split, index)

    def stamp(self) -> str:
        """Return the version and the seed."""
        return f"version {self.version}, seed {self.seed}"

    def presence(self, split: Split) -> Presence:
        """Return the labels of every image of a split."""

        def scan() -> Presence:
            label_maps = pack(self, self._side).parts[split].label_maps
            flat = label_maps.reshape(self.sizes[split], -1)
            labels = np.stack([np.bincount(row, minlength=256) > 0 for row in flat])
            return Presence(labels, hashlib.sha256(label_maps.data).hexdigest())

        return kept_presence(f"{self.name}-{self.version}-{self.seed}-{split}", scan)

    def images_digest(self) -> str:
        """Return the SHA-256 of the images' pixels."""

        def digest() -> str:
            content = hashlib.sha256()
            packed = pack(self, self._side)
            for split in SPLITS:
                content.update(packed.parts[split].images.data)
            return content.hexdigest()

        return kept_text("images", f"{self.name}-{self.version}-{self.seed}", digest)
