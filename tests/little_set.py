"""An image set of a few pixels an image, made from a table of which classes each image shows."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.imageset import ImageSet, Presence, Split

VOID = 255


@dataclass(frozen=True, eq=False)
class LittleSet(ImageSet):
    """`train` and `test` are bool (images, K + 1), column 0 unused; a label map is 2 x (K + 2) pixels.

    Its upper row holds each class the image shows in the column of its id, the lower one void and background.
    """

    train: np.ndarray
    test: np.ndarray

    name = "little"

    @classmethod
    def open(cls, data_root: Path | None) -> ImageSet:
        raise AssertionError("it is made from tables, not from a folder")

    @property
    def class_names(self) -> tuple[str, ...]:
        return ("background", *(f"class {c}" for c in range(1, self.train.shape[1])))

    def shown(self, split: Split) -> np.ndarray:
        return self.train if split == "train" else self.test

    def ids(self, split: Split) -> tuple[str, ...]:
        return tuple(f"{split}-{i}" for i in range(len(self.shown(split))))

    def read(self, split: Split, index: int) -> tuple[np.ndarray, np.ndarray]:
        shown = self.shown(split)[index]
        label_map = np.zeros((2, len(shown) + 1), dtype=np.uint8)
        label_map[0, : len(shown)] = np.arange(len(shown)) * shown
        label_map[1, 0] = VOID
        image = np.repeat(label_map[:, :, None], 3, axis=2) + np.uint8(index % 100)
        return image, label_map

    def presence(self, split: Split) -> Presence:
        labels = np.zeros((len(self.shown(split)), 256), dtype=bool)
        labels[:, : self.train.shape[1]] = self.shown(split)
        labels[:, [0, VOID]] = True
        return Presence(labels, hashlib.sha256(labels.tobytes()).hexdigest())

    def stamp(self) -> str:
        return hashlib.sha256(self.train.tobytes() + b"|" + self.test.tobytes()).hexdigest() + str(self.train.shape)

    def images_digest(self) -> str:
        return self.stamp()
