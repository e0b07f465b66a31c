"""An image set whose photographs and label maps are files, one each per image."""

from __future__ import annotations

import errno
import os
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np

from benchmarks.cache import cache_folder, kept_text, text_in
from benchmarks.decoding import MAX_MEGAPIXELS
from benchmarks.errors import DataError, FileNameError, printable
from benchmarks.files import and_why, content_digest, files_by_id, joint_digest, read_ids, read_mask, stamp_of
from benchmarks.imageset import SPLITS, ImageSet, Presence, Split
from benchmarks.paths import user_path
from benchmarks.presence import cached_presence, presence_file, presence_in
from benchmarks.sets.photographs import read_photograph

EXAMPLES = 3
"""Files that a remark names."""


@dataclass(frozen=True)
class FiledImageSet(ImageSet):
    """Images below a data root; only the label maps and lists are needed until an image is read."""

    root: Path
    read_list: Callable[[Path], tuple[str, ...]] = field(default=read_ids, repr=False, compare=False)
    """Returns the ids in a list file; by default it raises `DataError` at the first fault."""
    train_list: Path | None = None
    """The list of the training images where it is not the data root's own."""
    max_megapixels: float = MAX_MEGAPIXELS
    """Larger images are refused."""

    published_counts: ClassVar[Mapping[Split, int]] = {}
    """Images per split as published."""
    photograph_extensions: ClassVar[tuple[str, ...]] = (".jpg", ".jpeg")
    """Of the files that are photographs, in any case."""
    without_list: ClassVar[str] = ""
    """Which images train where no list says it, if that has to be told."""

    @classmethod
    def open(
        cls, data_root: Path | None, train_list: Path | None = None, max_megapixels: float = MAX_MEGAPIXELS
    ) -> ImageSet:
        """Return the image set below a data root; raise `DataError` where it does not lie there."""
        imageset = cls.located(data_root, train_list=train_list, max_megapixels=max_megapixels)
        if rival := imageset.rival_list:
            used = imageset.list_file("train")
            raise DataError(f"{cls.name}: {used} and {rival} list different training images; --train-list names one")
        return imageset

    @classmethod
    def located(
        cls,
        data_root: Path | None,
        read_list: Callable[[Path], tuple[str, ...]] = read_ids,
        train_list: Path | None = None,
        max_megapixels: float = MAX_MEGAPIXELS,
    ) -> FiledImageSet:
        """Return the image set below a data root, none of its files read; raise `DataError` without its folders."""
        if data_root is None:
            raise DataError(f"{cls.name} needs --data-root DIR (or BENCH_DATA_ROOT), the folder its files lie under")
        root, train_list = user_path(data_root), user_path(train_list) if train_list else None
        if not root.is_dir():
            raise DataError(f"{cls.name}: the data root {root} is not a folder{and_why(root)}")
        if not os.access(root, os.X_OK, effective_ids=True):  # what it may by capabilities counts
            raise DataError(f"{cls.name}: the data root {root} cannot be looked into ({os.strerror(errno.EACCES)})")
        for path in filter(None, (root, train_list)):
            _require_utf8(path.resolve())
        return cls(root, read_list, train_list, max_megapixels)

    # ------------------------------------------------------------------------------------------------------- lists

    @abstractmethod
    def own_list_file(self, split: Split) -> Path | None:
        """Return the data root's list of a split's ids; None where the list follows from the files that are there."""

    @abstractmethod
    def ids_without_list(self, split: Split) -> tuple[str, ...]:
        """Return a split's ids as they follow from the files that are there."""

    def list_file(self, split: Split) -> Path | None:
        """Return the file that lists a split's ids; None where the list follows from the files that are there."""
        return self.train_list if self.train_list and split == "train" else self.own_list_file(split)

    @property
    def rival_list(self) -> Path | None:
        """A second list of training images below the data root that says something else than the one in use."""
        return None

    def ids(self, split: Split) -> tuple[str, ...]:
        """Return the image ids of a split in the order of its list."""
        return self._ids[split]

    @cached_property
    def _ids(self) -> dict[Split, tuple[str, ...]]:
        files = {split: self.list_file(split) for split in SPLITS}
        return {split: self.read_list(file) if file else self.ids_without_list(split) for split, file in files.items()}

    def shared_ids(self) -> list[str]:
        """Return the ids in both splits that stand for one and the same image, sorted."""
        both = sorted(set(self.ids("train")).intersection(self.ids("test")))
        return [i for i in both if self.label_maps("train", i) == self.label_maps("test", i)]

    def remarks(self) -> list[str]:
        """Return which list is in use, and how many label maps no list names."""
        told = (self.list_remark(len(self.ids("train"))), self._unlisted_remark())
        return [remark for remark in told if remark]

    def list_remark(self, count: int) -> str:
        """Return which training list of `count` ids is in use or what stands in for it, nothing without a choice."""
        file = self.list_file("train")
        return f"the training list is {file} ({count} ids)" if file else self.without_list

    def _unlisted_remark(self) -> str:
        unlisted = self._unlisted()
        if not unlisted:
            return ""
        names = printable(", ".join(unlisted[:EXAMPLES])) + (", ..." if len(unlisted) > EXAMPLES else "")
        count = f"{len(unlisted)} label map{'s' if len(unlisted) > 1 else ''}"
        return f"no list names {count} in {self.label_map_folders('train')[0][0]}: {names}"

    def _unlisted(self) -> list[str]:
        """Return the ids of the label maps that belong to no split."""
        folders = dict.fromkeys(place for split in SPLITS for place in self.label_map_folders(split))
        there = {image_id for folder, extension in folders for image_id in self._files(folder, (extension,))}
        return sorted(there.difference(*(self.ids(split) for split in SPLITS)))

    # ------------------------------------------------------------------------------------------------------- files

    @abstractmethod
    def photograph_folder(self, split: Split) -> Path:
        """Return where a split's photographs lie."""

    @abstractmethod
    def label_map_folders(self, split: Split) -> Sequence[tuple[Path, str]]:
        """Return where a split's label maps lie, and with which extension; the first that has one holds an image's."""

    def photographs(self, split: Split, image_id: str) -> list[Path]:
        """Return the files that have an image's id, or where its one file should lie."""
        folder = self.photograph_folder(split)
        names = self._files(folder, self.photograph_extensions).get(image_id)
        return [folder / name for name in names or [image_id + (self.photograph_extensions[0] or ".*")]]

    def label_maps(self, split: Split, image_id: str) -> list[Path]:
        """Return the label maps that have an image's id, or where its one label map should lie."""
        for folder, extension in self.label_map_folders(split):
            if names := self._files(folder, (extension,)).get(image_id):
                return [folder / name for name in names]
        return [folder / f"{image_id}{extension}"]

    def ids_in(self, folder: Path, extension: str) -> tuple[str, ...]:
        """Return the sorted ids of a folder's files; raise `FileNameError` where a name is not UTF-8."""
        files = self._files(folder, (extension,))
        for names in files.values():
            _require_utf8(folder / names[0])
        return tuple(sorted(files))

    def _files(self, folder: Path, extensions: tuple[str, ...]) -> dict[str, list[str]]:
        """Return the names of a folder's files by id, as they were when they were first asked for."""
        if (folder, extensions) not in self._listings:
            self._listings[folder, extensions] = files_by_id(folder, extensions)
        return self._listings[folder, extensions]

    @cached_property
    def _listings(self) -> dict[tuple[Path, tuple[str, ...]], dict[str, list[str]]]:
        return {}

    def image_path(self, split: Split, image_id: str) -> Path:
        """Return where the photograph of an image lies, or should; raise `DataError` where several have its id."""
        return self._only(self.photographs(split, image_id), "photograph")

    def mask_path(self, split: Split, image_id: str) -> Path:
        """Return where the label map of an image lies, or should; raise `DataError` where several have its id."""
        return self._only(self.label_maps(split, image_id), "label map")

    def _only(self, paths: Sequence[Path], what: str) -> Path:
        path, *others = paths
        if others:
            raise DataError(f"{self.name}: {path} and {others[0]} have one id; an image has one {what}")
        return path

    def mask_paths(self, split: Split) -> list[Path]:
        """Return the label maps of a split in the order of its list."""
        return [self.mask_path(split, i) for i in self.ids(split)]

    def image_paths(self, split: Split) -> list[Path]:
        """Return the photographs of a split in the order of its list."""
        return [self.image_path(split, i) for i in self.ids(split)]

    def read(self, split: Split, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return an image (uint8 H x W x 3) and its label map (uint8 H x W)."""
        return self._read(split, index)

    def read_reduced(self, split: Split, index: int, least: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the same, a JPEG decoded at 1/2, 1/4 or 1/8 as long as no side is shorter than `least` pixels."""
        return self._read(split, index, least)

    def _read(self, split: Split, index: int, least: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        image_id = self.ids(split)[index]
        mask_path = self.mask_path(split, image_id)
        label_map = read_mask(mask_path, self.max_megapixels)
        photograph = read_photograph(self.image_path(split, image_id), self.max_megapixels, least)
        return photograph.over(mask_path, label_map.shape), label_map

    @property
    def saliency_folders(self) -> list[Path]:
        """Where a folder of saliency maps is looked for: below the data root."""
        return [self.root / "saliency_map"]

    # ----------------------------------------------------------------------------------------- what the cache holds

    def presence(self, split: Split) -> Presence:
        """Return the labels of every image of a split."""
        return cached_presence(self.name, self.mask_paths(split), self.max_megapixels)

    def stamp(self) -> str:
        """Return a key of the files' names, sizes, times and inodes."""
        paths = [path for split in SPLITS for path in (*self.image_paths(split), *self.mask_paths(split))]
        return stamp_of(paths, lambda path: f"{self.name}: no file at {path}; the data root is {self.root}")

    def images_digest(self) -> str:
        """Return the SHA-256 of the photographs' content."""
        paths = self._all_image_paths()
        return kept_text("images", self._images_key(paths), lambda: content_digest(paths))

    def _all_image_paths(self) -> list[Path]:
        return [path for split in SPLITS for path in self.image_paths(split)]

    def _images_key(self, paths: Sequence[Path]) -> str:
        stamp = stamp_of(paths, lambda path: f"{self.name}: no photograph at {path}; the data root is {self.root}")
        return f"{self.name}-{stamp[:20]}"

    def stale(self, digests: Mapping[Path, bytes]) -> list[Path]:
        """Return the cache's files that tell of other content than these SHA-256 of the files that are there now."""
        kept: dict[Path, tuple[str | None, list[Path]]] = {}
        with suppress(DataError):  # a file is missing, so nothing can have been kept
            for split in SPLITS:
                paths = self.mask_paths(split)
                file = presence_file(self.name, paths)
                presence = presence_in(file)
                kept[file] = presence.digest if presence else None, paths
            paths = self._all_image_paths()
            file = cache_folder("images") / self._images_key(paths)
            kept[file] = text_in(file), paths
        return [
            file
            for file, (digest, paths) in kept.items()
            if digest and digests.keys() >= set(paths) and digest != joint_digest(digests[path] for path in paths)
        ]


def _require_utf8(path: Path) -> None:
    """Raise `FileNameError` for a path that no text can name: records and tables are UTF-8."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise FileNameError(f"the name of {printable(str(path))} is not UTF-8; rename it") from None
