"""A class list: which classes each image shows, in text, for whoever has neither label maps nor photographs.

A line per image in the order of the data set's list: its id, then the numbers of its classes from 0 on (the label less
one), as in `ADE_train_00000003 0 3 5 14 82 148`. SSUL's code ships such lists of VOC and ADE20K (Cha et al., NeurIPS
2021). The test images' list lies beside that of the training images, with `val` for `train` in its name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NoReturn

import numpy as np

from benchmarks.errors import DataError
from benchmarks.files import is_there, read_text
from benchmarks.imageset import ImageSet, Presence, Split
from benchmarks.sets.registry import image_set_class

Rows = Mapping[str, tuple[int, ...]]
"""Labels by image id, in the list's order."""


@dataclass(frozen=True)
class ClassList(ImageSet):
    """A published image set of which class lists alone are at hand: its scenarios can be computed, nothing be trained.

    Without the list `test` nothing is known of the test images.
    """

    train: Path
    test: Path | None

    @classmethod
    def open(cls, data_root: Path | None) -> ImageSet:
        """Raise `DataError`: a class list is no data root."""
        raise DataError(f"{cls.name}: a class list is given by its file")

    @cached_property
    def _rows(self) -> dict[Split, Rows]:
        files: dict[Split, Path | None] = {"train": self.train, "test": self.test}
        return {split: read_rows(file, self.class_count) if file else {} for split, file in files.items()}

    def ids(self, split: Split) -> tuple[str, ...]:
        """Return the image ids of a split in the order of its list; none of test images without a list."""
        return tuple(self._rows[split])

    def class_presence(self, split: Split) -> np.ndarray:
        """Return bool (images, K + 1): column c tells whether class c stands in the image; column 0 is False."""
        classes = np.zeros((len(self.ids(split)), self.class_count + 1), dtype=bool)
        for i, labels in enumerate(self._rows[split].values()):
            classes[i, list(labels)] = True
        return classes

    def presence(self, split: Split) -> Presence:
        """Raise `DataError`: the background, void and the files' digest are not known."""
        self._refuse()

    def read(self, split: Split, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Raise `DataError`: there are no pixels."""
        self._refuse()

    def stamp(self) -> str:
        """Raise `DataError`: there are no files."""
        self._refuse()

    def images_digest(self) -> str:
        """Raise `DataError`: there are no photographs."""
        self._refuse()

    def told(self) -> str:
        """Return in a line which lists the classes are from."""
        train = f"{len(self.ids('train'))} training images from {self.train}"
        if self.test is None:
            return f"{train}; no list beside it has val for train in its name: test images and split_hash are unknown"
        return f"{train}, {len(self.ids('test'))} test images from {self.test}"

    def _refuse(self) -> NoReturn:
        raise DataError(f"{self.train} lists classes; it tells nothing of the pixels of {self.name}")


def open_class_list(dataset: str, train: Path) -> ClassList:
    """Return the image set of a class list of training images, and of that of the test images where it lies beside.

    Raises `DataError`, one line with the file and the line's number, for what is no class list of the data set.
    """
    kind = image_set_class(dataset)
    if kind.fixed_class_names is None or kind.embedded:
        raise DataError(f"--class-list is for voc and ade; the classes of {dataset} are known from its own files")
    if train.is_dir():
        raise DataError(f"--class-list {train} is a folder; it is the training images' list, such as {train}/train.txt")

    class Listed(ClassList):
        name = kind.name
        fixed_class_names = kind.fixed_class_names
        disjoint_rule = kind.disjoint_rule
        published_sizes = kind.published_sizes
        class_orders = kind.class_orders

    test = train.with_name(train.name.replace("train", "val"))
    return Listed(train, test if test != train and is_there(test) else None)


def read_rows(file: Path, class_count: int) -> Rows:
    """Return the labels, 1..K, that each image of a class list shows; raise `DataError` with the line's number."""
    rows: dict[str, tuple[int, ...]] = {}
    for number, (image_id, *words) in _lines(file):
        if "/" in image_id or image_id in rows:
            fault = "stands there twice" if image_id in rows else "is no id, but a path"
            raise DataError(f"{file}, line {number}: {image_id} {fault}")
        labels = [int(word) + 1 if word.isascii() and word.isdecimal() else 0 for word in words]
        for word, label in zip(words, labels, strict=True):
            if not 0 < label <= class_count or labels.count(label) > 1:
                raise DataError(
                    f"{file}, line {number}: class '{word}' of {image_id}; allowed are 0..{class_count - 1} "
                    f"(the label less one), once each"
                )
        rows[image_id] = tuple(labels)
    if not rows:
        raise DataError(f"{file} is empty; it has a line per image: its id and its classes")
    return rows


def _lines(file: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the words of each line that has any, with its number from 1."""
    for number, line in enumerate(read_text(file).splitlines(), start=1):
        if words := line.split():
            yield number, words
