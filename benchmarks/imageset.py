"""What an image set is: ids, images, label maps, and which classes stand in which image."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from benchmarks.errors import DataError
from benchmarks.labels import VOID

Split = Literal["train", "test"]
SPLITS: tuple[Split, ...] = ("train", "test")


@dataclass(frozen=True)
class Presence:
    """Which labels stand in which image of a split.

    `labels` is bool of shape (images, 256); `digest` is the SHA-256 of the label maps' files.
    """

    labels: np.ndarray
    digest: str


class ImageSet(ABC):
    """Images with full label maps, in a training and a test split.

    Label maps are uint8 with 0 for the background, 1..K for the classes and 255 for void.
    """

    name: ClassVar[str]
    fixed_class_names: ClassVar[tuple[str, ...] | None] = None
    """Names by label, the background first; None where each root has classes of its own."""
    disjoint_rule: ClassVar[str] = "voc"
    """How the disjoint setup divides the images, of `benchmarks.division.RULES`."""
    embedded: ClassVar[bool] = False
    """Whether the images are generated here: such results are no results on a published data set."""
    published_sizes: ClassVar[Mapping[str, tuple[int, ...]]] = {}
    """Training images per step as published, by scenario name without the data set."""

    class_orders: ClassVar[Mapping[str, tuple[int, ...]]] = {}
    """Published orders of learning other than that of the ids, by the name that `order=` has for them."""
    uniform_side: ClassVar[int | None] = None
    """Pixels a side where all images are square and of one size."""

    root: Path | None = None

    @property
    def saliency_folders(self) -> list[Path]:
        """Where a folder of saliency maps is looked for, the first one that is there has them."""
        return []

    @classmethod
    @abstractmethod
    def open(cls, data_root: Path | None) -> ImageSet:
        """Return the image set below a data root; raise `DataError` where there is none."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names by label, the background first."""
        assert self.fixed_class_names is not None
        return self.fixed_class_names

    @property
    def class_count(self) -> int:
        """K, the background not counted."""
        return len(self.class_names) - 1

    @abstractmethod
    def ids(self, split: Split) -> tuple[str, ...]:
        """Return the image ids of a split in the order of its list."""

    @abstractmethod
    def read(self, split: Split, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return an image (uint8 H x W x 3) and its full label map (uint8 H x W); raise `DataError`."""

    def read_reduced(self, split: Split, index: int, least: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the same; the image may be smaller where that is read faster, but by no side below `least` pixels."""
        return self.read(split, index)

    @abstractmethod
    def presence(self, split: Split) -> Presence:
        """Return the labels of every image of a split, from the cache where nothing has changed."""

    @abstractmethod
    def stamp(self) -> str:
        """Return a quick key of the files on this machine (names, sizes, times, inodes) for the cache."""

    @abstractmethod
    def images_digest(self) -> str:
        """Return the SHA-256 of both splits' photographs."""

    def remarks(self) -> list[str]:
        """Return what has to be told of the images before they are used, a line each."""
        return []

    def shared_ids(self) -> list[str]:
        """Return the ids in both splits that stand for one and the same image, sorted."""
        return []

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of both splits' ids and of all files' content: the same wherever the same files lie."""
        content = hashlib.sha256(self.images_digest().encode())
        for split in SPLITS:
            content.update("\n".join(self.ids(split)).encode())
            content.update(self.presence(split).digest.encode())
        return content.hexdigest()

    def class_presence(self, split: Split) -> np.ndarray:
        """Return bool (images, K + 1): column c tells whether class c stands in the image.

        Column 0, the background, is always False. Raises `DataError` for a label outside 0..K and 255.
        """
        labels = self.presence(split).labels
        first = self.class_count + 1
        if labels[:, first:VOID].any():
            image, label = np.argwhere(labels[:, first:VOID])[0] + (0, first)
            raise DataError(
                f"{self.name}: the label map of {self.ids(split)[image]} holds label {label}; "
                f"allowed are 0..{self.class_count} and {VOID}"
            )
        classes = labels[:, : self.class_count + 1].copy()
        classes[:, 0] = False
        return classes
