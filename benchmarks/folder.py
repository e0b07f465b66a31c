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
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from benchmarks.errors import DataError
from benchmarks.filed import FiledImageSet
from benchmarks.files import read_lines
from benchmarks.imageset import Split

LISTS: Mapping[Split, str] = {"train": "train.txt", "test": "val.txt"}
TEST_SHARE = 0.2
MOST_CLASSES = 254


@dataclass(frozen=True)
class Folder(FiledImageSet):
    """Images, label maps and class names that lie below a data root."""

    name: ClassVar[str] = "folder"

    def __post_init__(self) -> None:
        for part in ("images", "masks"):
            if not (self.root / part).is_dir():
                raise DataError(f"folder: no folder {self.root / part}; --data-root has images/, masks/, classes.txt")
        listed = [(self.root / name).is_file() for name in LISTS.values()]
        if any(listed) and not all(listed):
            there, absent = (self.root / n for n, _ in sorted(zip(LISTS.values(), listed, strict=True), key=_absent))
            raise DataError(f"folder: {there} is there but not {absent}; give both lists or neither")
        _ = self.class_names

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """Names by label, the background first, from `classes.txt`."""
        file = self.root / "classes.txt"
        names = read_lines(file)
        if names and names[0].lower() == "background":
            names = names[1:]
        if not 2 <= len(names) <= MOST_CLASSES:
            raise DataError(f"folder: {file} names {len(names)} classes; 2 to {MOST_CLASSES} are allowed")
        for name in names:
            if names.count(name) > 1 or name.lower() == "background":
                raise DataError(f"folder: {file} names '{name}' more than once, or not first")
        return ("background", *names)

    def list_file(self, split: Split) -> Path | None:
        """Return `train.txt` or `val.txt` where they are there."""
        file = self.root / LISTS[split]
        return file if file.is_file() else None

    def ids_without_list(self, split: Split) -> tuple[str, ...]:
        """Return the ids of all label maps that fall to a split, sorted."""
        ids = tuple(i for i in sorted(p.stem for p in (self.root / "masks").glob("*.png")) if _split_of(i) == split)
        if not ids:
            raise DataError(f"folder: no {split} image in {self.root / 'masks'}; train.txt and val.txt can name them")
        return ids

    def mask_path(self, split: Split, image_id: str) -> Path:
        """Return where the label map of an image lies."""
        return self.root / "masks" / f"{image_id}.png"

    def image_path(self, split: Split, image_id: str) -> Path:
        """Return where the photograph of an image lies, whatever its format; where it should, if there is none."""
        return self._photographs.get(image_id, self.root / "images" / f"{image_id}.*")

    @cached_property
    def _photographs(self) -> dict[str, Path]:
        found: dict[str, Path] = {}
        for path in sorted((self.root / "images").iterdir()):
            if path.name.startswith("."):
                continue
            if path.stem in found:
                raise DataError(f"folder: {found[path.stem]} and {path} have one id; an image has one photograph")
            found[path.stem] = path
        return found


def _split_of(image_id: str) -> Split:
    first = int.from_bytes(hashlib.sha256(image_id.encode()).digest()[:4], "big")
    return "test" if first < TEST_SHARE * 2**32 else "train"


def _absent(listed: tuple[str, bool]) -> bool:
    return not listed[1]
