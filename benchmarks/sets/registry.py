"""The image sets by name."""

from __future__ import annotations

import difflib
from pathlib import Path

from benchmarks.decoding import MAX_MEGAPIXELS
from benchmarks.errors import DataError
from benchmarks.imageset import ImageSet
from benchmarks.paths import user_path
from benchmarks.sets.ade20k import Ade20k
from benchmarks.sets.filed import FiledImageSet
from benchmarks.sets.folder import Folder
from benchmarks.sets.scenes import Scenes
from benchmarks.sets.shapes import Shapes
from benchmarks.sets.voc import Voc

IMAGE_SETS: dict[str, type[ImageSet]] = {kind.name: kind for kind in (Voc, Ade20k, Shapes, Scenes, Folder)}


def image_set_class(name: str) -> type[ImageSet]:
    """Return the class of an image set; raise `DataError`, naming the nearest, for an unknown one."""
    if name not in IMAGE_SETS:
        near = difflib.get_close_matches(name, IMAGE_SETS, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise DataError(f"unknown data set '{name}'{hint} (known: {', '.join(IMAGE_SETS)})")
    return IMAGE_SETS[name]


def open_image_set(
    name: str,
    data_root: str | Path | None = None,
    train_list: str | Path | None = None,
    max_megapixels: float = MAX_MEGAPIXELS,
) -> ImageSet:
    """Return an image set; one that is not embedded needs the folder its files lie under.

    `train_list` is a file that names the training images in place of the data root's own; images of more than
    `max_megapixels` are refused when they are read.
    """
    kind, root = image_set_class(name), user_path(data_root) if data_root is not None else None
    if issubclass(kind, FiledImageSet):
        return kind.open(root, user_path(train_list) if train_list is not None else None, max_megapixels)
    if train_list is not None:
        raise DataError(f"{name} is generated: no list names its training images, --train-list is for voc, ade, folder")
    return kind.open(root)
