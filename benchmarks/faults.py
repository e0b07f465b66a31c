"""What can be wrong with the files of an image, found by the functions that training reads them with."""

from __future__ import annotations

import errno
import os
from collections.abc import Container, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from benchmarks.errors import DataError
from benchmarks.files import WIDE_VOID, read_image, read_mask
from benchmarks.labels import VOID
from benchmarks.packing import Progress

_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)


class Kind(Enum):
    """The kinds of fault, in the order in which they are told."""

    MISSING_LIST = "missing list"
    UNREADABLE_LIST = "unreadable list"
    EMPTY_LIST = "empty list"
    NO_ID = "list entry that is no id"
    ID_TWICE = "id more than once in a list"
    ID_IN_BOTH = "id in both lists"
    EMPTY_SPLIT = "split without an image"
    CLASS_NAMES = "fault of the class names"
    MISSING_FOLDER = "missing folder"
    MISSING_IMAGE = "missing image, photograph and label map"
    MISSING_PHOTOGRAPH = "missing photograph"
    MISSING_LABEL_MAP = "missing label map"
    SEVERAL_PHOTOGRAPHS = "photograph whose id another one has"
    UNREADABLE_PHOTOGRAPH = "unreadable photograph"
    UNREADABLE_LABEL_MAP = "unreadable label map"
    DAMAGED_PHOTOGRAPH = "undecodable photograph"
    DAMAGED_LABEL_MAP = "undecodable label map"
    COLOURS = "label map that holds colours"
    FOREIGN_LABELS = "label map with labels that are no class"
    TWO_SIZES = "photograph of another size than its label map"


_PHOTOGRAPH_KINDS = (Kind.MISSING_PHOTOGRAPH, Kind.UNREADABLE_PHOTOGRAPH, Kind.DAMAGED_PHOTOGRAPH)
_LABEL_MAP_KINDS = (Kind.MISSING_LABEL_MAP, Kind.UNREADABLE_LABEL_MAP, Kind.DAMAGED_LABEL_MAP)


@dataclass(frozen=True)
class Fault:
    """A fault of one file or folder; as text it is one line that names it."""

    kind: Kind
    path: Path
    detail: str = ""

    def __str__(self) -> str:
        line = f"{self.path}: {self.detail}" if self.detail else str(self.path)
        return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)


@dataclass(frozen=True)
class ImageFiles:
    """Where an image's photograph (several files have its id by mistake) and its label map should lie."""

    photographs: tuple[Path, ...]
    label_map: Path


@dataclass(frozen=True)
class _Seen:
    """What a file has shown: its fault, height and width, and pixels by label (int64 of shape (256,))."""

    path: Path
    fault: Fault | None = None
    shape: tuple[int, ...] | None = None
    pixels: np.ndarray | None = None

    @property
    def missing(self) -> bool:
        return self.fault is not None and self.fault.kind in (Kind.MISSING_PHOTOGRAPH, Kind.MISSING_LABEL_MAP)


@dataclass(frozen=True)
class SeenImage:
    """What an image's two files have shown."""

    photograph: _Seen
    label_map: _Seen

    @property
    def found(self) -> bool:
        """Whether both files are there."""
        return not self.photograph.missing and not self.label_map.missing

    def faults(self, absent: Container[Path]) -> list[Fault]:
        """Return the image's faults; a file that is missing with its whole folder is none of its own."""
        files = [self.photograph, self.label_map]
        faults = [seen.fault for seen in files if seen.fault and seen.path.parent not in absent]
        if len(faults) == 2 and all(seen.missing for seen in files):
            return [Fault(Kind.MISSING_IMAGE, self.photograph.path, f"nor is there {self.label_map.path}")]
        sizes = [f"{seen.shape[1]} x {seen.shape[0]}" for seen in files if seen.shape]
        if len(set(sizes)) == 2:
            detail = f"{sizes[0]} pixels, its label map {self.label_map.path} {sizes[1]}"
            faults.append(Fault(Kind.TWO_SIZES, self.photograph.path, detail))
        return faults


def see_all(
    name: str, images: Sequence[ImageFiles], most: int, progress: Progress | None
) -> Iterator[tuple[ImageFiles, SeenImage]]:
    """Look at every image on all cores: decoding releases the interpreter lock."""
    pool = ThreadPoolExecutor(os.cpu_count() or 1)
    try:
        for done, seen in enumerate(pool.map(lambda image: _see(image, most), images)):
            yield images[done], seen
            if progress:
                progress(f"{name}: reading the images", done + 1, len(images))
    finally:
        pool.shutdown(cancel_futures=True)


def _see(image: ImageFiles, most: int) -> SeenImage:
    return SeenImage(_see_photograph(image.photographs), _see_label_map(image.label_map, most))


def _see_photograph(paths: Sequence[Path]) -> _Seen:
    path, *others = paths
    if others:
        detail = f"an image has one photograph, here also {', '.join(map(str, others))}"
        return _Seen(path, Fault(Kind.SEVERAL_PHOTOGRAPHS, path, detail))
    try:
        return _Seen(path, shape=read_image(path).shape[:2])
    except Exception as error:  # Pillow raises whatever a damaged file leads it to
        return _Seen(path, fault_of(path, error, _PHOTOGRAPH_KINDS))


def _see_label_map(path: Path, most: int) -> _Seen:
    """Look at a label map whose labels are 0..`most` and 255."""
    try:
        label_map = read_mask(path)
        pixels = np.array(Image.fromarray(label_map).histogram())
    except Exception as error:  # Pillow and SciPy raise whatever a damaged file leads them to
        return _Seen(path, _refused_content(path, most) or fault_of(path, error, _LABEL_MAP_KINDS))
    foreign = _foreign(np.flatnonzero(pixels), most)
    if foreign:
        return _Seen(path, _foreign_labels(path, foreign, most), label_map.shape)
    return _Seen(path, None, label_map.shape, pixels)


def _refused_content(path: Path, most: int) -> Fault | None:
    """Return what is wrong with a refused label map if it is not damage: colours, or labels of more than 8 bit."""
    with suppress(Exception), Image.open(path) as image:
        if image.mode.startswith("I"):
            return _foreign_labels(path, _foreign(np.unique(np.asarray(image)), most), most)
        if image.mode not in ("1", "L", "P"):
            return Fault(Kind.COLOURS, path, f"mode {image.mode}; a label map holds class indices")
    return None


def _foreign(labels: np.ndarray, most: int) -> list[int]:
    return [int(label) for label in labels if not 0 <= label <= most and label not in (VOID, WIDE_VOID)]


def _foreign_labels(path: Path, foreign: Sequence[int], most: int) -> Fault:
    labels = f"label{'s' if len(foreign) > 1 else ''} {', '.join(map(str, foreign))}"
    return Fault(Kind.FOREIGN_LABELS, path, f"{labels}; allowed are 0..{most} and {VOID}")


def fault_of(path: Path, error: Exception, kinds: tuple[Kind, Kind, Kind]) -> Fault:
    """Return the fault of a file that is missing, that the system refuses to read, or whose content is damaged."""
    missing, unreadable, damaged = kinds
    cause = _cause(error)
    number = cause.errno if isinstance(cause, OSError) else None
    if number in _ABSENT:
        return Fault(missing, path)
    return Fault(damaged if number is None else unreadable, path, reason_of(path, error))


def _cause(error: BaseException) -> BaseException:
    """Return what a `DataError`, which names the file as well, was raised for."""
    return (error.__context__ or error) if isinstance(error, DataError) else error


def reason_of(path: Path, error: BaseException) -> str:
    """Return why a file could not be read or decoded, without its name."""
    cause = _cause(error)
    if isinstance(cause, UnicodeDecodeError):
        return f"not text ({cause.reason})"
    if isinstance(cause, UnidentifiedImageError):
        return "not an image" if path.stat().st_size else "an empty file"
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    return " ".join(str(cause).split()) or type(cause).__name__
