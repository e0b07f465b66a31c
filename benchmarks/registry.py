"""The image sets by name."""

from __future__ import annotations

import difflib
from pathlib import Path

from benchmarks.errors import DataError
from benchmarks.imageset import ImageSet
from benchmarks.shapes import Shapes
from benchmarks.voc import Voc

IMAGE_SETS: dict[str, type[ImageSet]] = {"shapes": Shapes, "voc": Voc}


def image_set_class(name: str) -> type[ImageSet]:
    """Return the class of an image set; raise `DataError`, naming the nearest, for an unknown one."""
    if name not in IMAGE_SETS:
        near = difflib.get_close_matches(name, IMAGE_SETS, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise DataError(f"unknown data set '{name}'{hint} (known: {', '.join(IMAGE_SETS)})")
    return IMAGE_SETS[name]


def open_image_set(name: str, data_root: str | Path | None = None) -> ImageSet:
    """Return an image set; one that is not embedded needs the folder its files lie under."""
    kind = image_set_class(name)
    if kind.embedded:
        return kind()
    if data_root is None:
        raise DataError(f"{name} needs --data-root DIR (or BENCH_DATA_ROOT), the folder its files lie under")
    root = Path(data_root).expanduser()
    if not root.is_dir():
        raise DataError(f"{name}: the data root {root} is not a folder")
    return kind(root)  # type: ignore[call-arg]
