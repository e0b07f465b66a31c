"""An image set whose photographs and label maps are files, one each per image."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np

from benchmarks.cache import kept_text
from benchmarks.errors import DataError
from benchmarks.files import content_digest, read_ids, read_image, read_mask, stamp_of
from benchmarks.imageset import SPLITS, ImageSet, Presence, Split
from benchmarks.presence import cached_presence


@dataclass(frozen=True)
class FiledImageSet(ImageSet):
    """Images below a data root; only the label maps and lists are needed until an image is read."""

    root: Path
    read_list: Callable[[Path], tuple[str, ...]] = field(default=read_ids, repr=False, compare=False)
    """Returns the ids in a list file; by default it raises `DataError` at the first fault."""

    published_counts: ClassVar[Mapping[Split, int]] = {}
    """Images per split as published."""

    @classmethod
    def open(cls, data_root: Path | None) -> ImageSet:
        """Return the image set below a data root; raise `DataError` where it does not lie there."""
        return cls.located(data_root)

    @classmethod
    def located(cls, data_root: Path | None, read_list: Callable[[Path], tuple[str, ...]] = read_ids) -> FiledImageSet:
        """Return the image set below a data root, none of its files read; raise `DataError` without its folders."""
        if data_root is None:
            raise DataError(f"{cls.name} needs --data-root DIR (or BENCH_DATA_ROOT), the folder its files lie under")
        root = data_root.expanduser()
        if not root.is_dir():
            raise DataError(f"{cls.name}: the data root {root} is not a folder")
        return cls(root, read_list)

    @abstractmethod
    def image_path(self, split: Split, image_id: str) -> Path:
        """Return where the photograph of an image lies."""

    def photographs(self, split: Split, image_id: str) -> list[Path]:
        """Return the files that have an image's id, or where its one file should lie."""
        return [self.image_path(split, image_id)]

    @abstractmethod
    def mask_path(self, split: Split, image_id: str) -> Path:
        """Return where the label map of an image lies."""

    @abstractmethod
    def list_file(self, split: Split) -> Path | None:
        """Return the file that lists a split's ids; None where the list follows from the files that are there."""

    @abstractmethod
    def ids_without_list(self, split: Split) -> tuple[str, ...]:
        """Return a split's ids as they follow from the files that are there."""

    def ids(self, split: Split) -> tuple[str, ...]:
        """Return the image ids of a split in the order of its list."""
        return self._ids[split]

    @cached_property
    def _ids(self) -> dict[Split, tuple[str, ...]]:
        files = {split: self.list_file(split) for split in SPLITS}
        return {split: self.read_list(file) if file else self.ids_without_list(split) for split, file in files.items()}

    def mask_paths(self, split: Split) -> list[Path]:
        """Return the label maps of a split in the order of its list."""
        return [self.mask_path(split, i) for i in self.ids(split)]

    def image_paths(self, split: Split) -> list[Path]:
        """Return the photographs of a split in the order of its list."""
        return [self.image_path(split, i) for i in self.ids(split)]

    def presence(self, split: Split) -> Presence:
        """Return the labels of every image of a split."""
        return cached_presence(self.name, self.mask_paths(split))

    def stamp(self) -> str:
        """Return a key of the files' names, sizes and times."""
        paths = [path for split in SPLITS for path in (*self.image_paths(split), *self.mask_paths(split))]
        return stamp_of(paths, f"{self.name}: no file at {{}}; the data root is {self.root}")

    def images_digest(self) -> str:
        """Return the SHA-256 of the photographs' content."""
        paths = [path for split in SPLITS for path in self.image_paths(split)]
        stamp = stamp_of(paths, f"{self.name}: no photograph at {{}}; the data root is {self.root}")
        return kept_text("images", f"{self.name}-{stamp[:20]}", lambda: content_digest(paths))

    def read(self, split: Split, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return an image (uint8 H x W x 3) and its label map (uint8 H x W)."""
        image_id = self.ids(split)[index]
        mask_path, image_path = self.mask_path(split, image_id), self.image_path(split, image_id)
        label_map = read_mask(mask_path)
        image = read_image(image_path)
        if image.shape[:2] != label_map.shape:
            raise DataError(
                f"{self.name}: {image_path} is {image.shape[1]} x {image.shape[0]} pixels, its label map {mask_path} "
                f"is {label_map.shape[1]} x {label_map.shape[0]}; both must have one size"
            )
        return image, label_map
