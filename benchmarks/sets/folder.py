"""`folder`: a user's own data set.

    DIR/images/ID.*      photographs, in any format that Pillow reads
    DIR/masks/ID.png     label maps: PNGs of class indices (palette, 8 or 16 bit), 255 (65535 in 16 bit) void
    DIR/classes.txt      a name per line: the first is class 1, unless it is `background`, which names label 0
    DIR/train.txt, DIR/val.txt   ids, one per line; both or neither

Without lists the images whose id has a SHA-256 below a fifth of its range are the test images: a fifth of them,
the same wherever the folder lies, and for the images that stay also when others are added.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from benchmarks.decoding import MAX_MEGAPIXELS
from benchmarks.errors import DataError
from benchmarks.files import and_why, is_there, read_text
from benchmarks.imageset import ImageSet, Split
from benchmarks.sets.filed import FiledImageSet
from benchmarks.sets.photographs import EXTENSIONS

LISTS: Mapping[Split, str] = {"train": "train.txt", "test": "val.txt"}
TEST_SHARE = 0.2
MOST_CLASSES = 254


@dataclass(frozen=True)
class Folder(FiledImageSet):
    """Images, label maps and class names that lie below a data root."""

    name: ClassVar[str] = "folder"
    photograph_extensions: ClassVar[tuple[str, ...]] = EXTENSIONS
    without_list: ClassVar[str] = "there is no list: a fifth of the label maps test, by the SHA-256 of their ids"

    def __post_init__(self) -> None:
        for folder in (self.root / "images", self.root / "masks"):
            if not folder.is_dir():
                told = f"folder: no folder {folder}{and_why(folder)}"
                raise DataError(f"{told}; --data-root is a folder with images/, masks/ and classes.txt")

    @classmethod
    def open(
        cls, data_root: Path | None, train_list: Path | None = None, max_megapixels: float = MAX_MEGAPIXELS
    ) -> ImageSet:
        """Return the image set below a data root; raise `DataError` where a list or the class names are at fault."""
        imageset = super().open(data_root, train_list, max_megapixels)
        assert isinstance(imageset, Folder)
        absent = imageset.absent_list
        if absent:
            [there] = {imageset.root / name for name in LISTS.values()} - {absent}
            raise DataError(f"folder: {there} is there but not {absent}; give both lists or neither")
        _ = imageset.class_names
        return imageset

    @property
    def absent_list(self) -> Path | None:
        """The list that is not there although the other one is; none is needed in place of a given one."""
        if self.train_list:
            return None
        absent = [self.root / name for name in LISTS.values() if not is_there(self.root / name)]
        return absent[0] if len(absent) == 1 else None

    @property
    def class_file(self) -> Path:
        """The file that names the classes."""
        return self.root / "classes.txt"

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """Names by label, the background first, from `classes.txt`."""
        names = self.read_class_names()
        for fault in class_name_faults(names):
            raise DataError(f"folder: {self.class_file} {fault}")
        return ("background", *names)

    def read_class_names(self) -> list[str]:
        """Return the names of the classes 1, 2, ... as they are, "" of an empty line before the last name.

        Raises `DataError` where the file is unreadable.
        """
        names = [line.strip() for line in read_text(self.class_file).rstrip().splitlines()]
        return names[1:] if names and names[0].lower() == "background" else names

    def own_list_file(self, split: Split) -> Path | None:
        """Return `train.txt` or `val.txt` where they are there."""
        file = self.root / LISTS[split]
        return file if is_there(file) else None

    def ids_without_list(self, split: Split) -> tuple[str, ...]:
        """Return the ids of all label maps that fall to a split, sorted."""
        masks = self.root / "masks"
        ids = tuple(i for i in self.ids_in(masks, ".png") if _split_of(i) == split)
        if not ids:
            raise DataError(f"folder: no {split} image in {masks}; train.txt and val.txt can name them")
        return ids

    def photograph_folder(self, split: Split) -> Path:
        """Return where the photographs lie."""
        return self.root / "images"

    def label_map_folders(self, split: Split) -> Sequence[tuple[Path, str]]:
        """Return where the label maps lie, and with which extension."""
        return [(self.root / "masks", ".png")]


def class_name_faults(names: Sequence[str]) -> list[str]:
    """Return what is wrong with the names of the classes 1, 2, ..., each as the end of a sentence."""
    faults = []
    if not 2 <= len(names) <= MOST_CLASSES:
        faults.append(f"names {len(names)} classes; 2 to {MOST_CLASSES} are allowed")
    if "" in names:
        faults.append(f"has an empty line where class {names.index('') + 1} stands")
    for name in filter(None, dict.fromkeys(names)):
        if names.count(name) > 1 or name.lower() == "background":
            faults.append(f"names '{name}' more than once, or not first")
    return faults


def _split_of(image_id: str) -> Split:
    first = int.from_bytes(hashlib.sha256(image_id.encode()).digest()[:4], "big")
    return "test" if first < TEST_SHARE * 2**32 else "train"
