"""What can be wrong with the files of an image, found by the functions that training reads them with."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.decoding import opened
from benchmarks.errors import DataError, FileError, UnclearError, printable
from benchmarks.files import WIDE_VOID, dangling, decode_mask, inexact, read_bytes
from benchmarks.labels import VOID
from benchmarks.packing import Progress
from benchmarks.sets.photographs import (
    AS_STORED,
    decode_photograph,
    fitting_orientations,
    orientation_unclear,
    size_told,
)

_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)


class Kind(Enum):
    """The kinds of fault, and after them of what is no fault but told, in the order in which they are told."""

    MISSING_LIST = "missing list"
    UNREADABLE_LIST = "unreadable list"
    EMPTY_LIST = "empty list"
    RIVAL_LISTS = "lists of training images that differ"
    NO_ID = "list entry that is no id"
    ID_TWICE = "id more than once in a list"
    ID_IN_BOTH = "id in both lists"
    EMPTY_SPLIT = "split without an image"
    FILE_NAME = "file name that is not UTF-8"
    CLASS_NAMES = "fault of the class names"
    MISSING_FOLDER = "missing folder"
    MISSING_IMAGE = "missing image, photograph and label map"
    MISSING_PHOTOGRAPH = "missing photograph"
    MISSING_LABEL_MAP = "missing label map"
    SEVERAL_PHOTOGRAPHS = "photograph whose id another one has"
    SEVERAL_LABEL_MAPS = "label map whose id another one has"
    UNREADABLE_PHOTOGRAPH = "unreadable photograph"
    UNREADABLE_LABEL_MAP = "unreadable label map"
    DAMAGED_PHOTOGRAPH = "undecodable photograph"
    DAMAGED_LABEL_MAP = "undecodable label map"
    UNCLEAR_PHOTOGRAPH = "photograph that can be read in more than one way"
    INEXACT = "label map of a format that does not keep labels"
    COLOURS = "label map that holds colours"
    FOREIGN_LABELS = "label map with labels that are no class"
    TWO_SIZES = "photograph of another size than its label map"
    UNCLEAR_ORIENTATION = "photograph that fits its label map both turned by EXIF and as stored"
    STALE_CACHE = "file of the cache that was made from other content"
    PALETTES = "label whose colour differs from palette to palette"
    NO_TRAINING_IMAGE = "classes that no training image shows"
    NO_TEST_IMAGE = "classes that no test image shows"
    ORIENTED = "photograph with an EXIF orientation"
    WIDE = "photograph of more than 8 bit, scaled to 8"


WARNINGS = (Kind.PALETTES, Kind.NO_TRAINING_IMAGE, Kind.NO_TEST_IMAGE, Kind.ORIENTED, Kind.WIDE)
"""What is no fault: it may be as it should be, and training takes it."""


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
        return printable(line)


@dataclass(frozen=True)
class ImageFiles:
    """Where an image's photograph and its label map should lie; where several files have its id, all of them."""

    photographs: tuple[Path, ...]
    label_maps: tuple[Path, ...]


@dataclass(frozen=True)
class _Seen:
    """What a file has shown: its fault, the SHA-256 of its content, height and width."""

    path: Path
    fault: Fault | None = None
    digest: bytes | None = None
    shape: tuple[int, ...] | None = None

    @property
    def missing(self) -> bool:
        return self.fault is not None and self.fault.kind in (Kind.MISSING_PHOTOGRAPH, Kind.MISSING_LABEL_MAP)


@dataclass(frozen=True)
class SeenPhotograph(_Seen):
    """What a photograph has shown, its size as stored."""

    orientation: int = AS_STORED
    wide: bool = False


@dataclass(frozen=True)
class SeenLabelMap(_Seen):
    """What a label map has shown: pixels by label (int64 of shape (256,)), and the colours of the labels it holds."""

    pixels: np.ndarray | None = None
    colours: Mapping[int, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class SeenImage:
    """What an image's two files have shown."""

    photograph: SeenPhotograph
    label_map: SeenLabelMap

    @property
    def found(self) -> bool:
        """Whether both files are there."""
        return not self.photograph.missing and not self.label_map.missing

    def faults(self, absent: Container[Path]) -> list[Fault]:
        """Return what is to be told of the image; a file that is missing with its whole folder is no fault of its own.

        Warnings are among them: see `WARNINGS`.
        """
        files = [self.photograph, self.label_map]
        faults = [seen.fault for seen in files if seen.fault and seen.path.parent not in absent]
        if len(faults) == 2 and all(seen.missing for seen in files):
            detail = "; ".join(filter(None, (faults[0].detail, f"nor is there {self.label_map.path}")))
            return [Fault(Kind.MISSING_IMAGE, self.photograph.path, detail)]
        if self.photograph.wide:
            faults.append(Fault(Kind.WIDE, self.photograph.path))
        return [*faults, *self._size_faults()]

    def _size_faults(self) -> Iterator[Fault]:
        size, labels, orientation = self.photograph.shape, self.label_map.shape, self.photograph.orientation
        if size is None or labels is None:
            return
        path, fitting = self.photograph.path, fitting_orientations(size, orientation, labels)
        if not fitting:
            detail = f"{size_told(size, orientation)}, its label map {self.label_map.path} {labels[1]} x {labels[0]}"
            yield Fault(Kind.TWO_SIZES, path, detail)
        elif len(fitting) > 1:
            yield Fault(Kind.UNCLEAR_ORIENTATION, path, orientation_unclear(orientation))
        elif orientation != AS_STORED:
            done = "taken as stored" if fitting == [AS_STORED] else "turned"
            yield Fault(Kind.ORIENTED, path, f"orientation {orientation}, {done}: so it has its label map's size")


def see_all(
    name: str, images: Sequence[ImageFiles], most: int, progress: Progress | None, max_megapixels: float
) -> Iterator[tuple[ImageFiles, SeenImage]]:
    """Look at every image on all cores: decoding releases the interpreter lock."""
    pool = ThreadPoolExecutor(os.cpu_count() or 1)
    try:
        for done, seen in enumerate(pool.map(lambda image: _see(image, most, max_megapixels), images)):
            yield images[done], seen
            if progress:
                progress(f"{name}: reading the images", done + 1, len(images))
    finally:
        pool.shutdown(cancel_futures=True)


def _see(image: ImageFiles, most: int, max_megapixels: float) -> SeenImage:
    photograph = _see_photograph(image.photographs, max_megapixels)
    return SeenImage(photograph, _see_label_map(image.label_maps, most, max_megapixels))


def _see_photograph(paths: Sequence[Path], max_megapixels: float) -> SeenPhotograph:
    path, *others = paths
    if others:
        return SeenPhotograph(path, _of_several(Kind.SEVERAL_PHOTOGRAPHS, path, others))
    digest = None
    try:
        content = read_bytes(path)
        digest = hashlib.sha256(content).digest()
        seen = decode_photograph(content, path, max_megapixels)
    except UnclearError as error:
        return SeenPhotograph(path, Fault(Kind.UNCLEAR_PHOTOGRAPH, path, str(error).removeprefix(f"{path} ")), digest)
    except DataError as error:
        return SeenPhotograph(path, fault_of(path, error, _PHOTOGRAPH_KINDS), digest)
    return SeenPhotograph(path, None, digest, seen.size, seen.orientation, seen.wide)


def _see_label_map(paths: Sequence[Path], most: int, max_megapixels: float) -> SeenLabelMap:
    """Look at a label map whose labels are 0..`most` and 255."""
    path, *others = paths
    if others:
        return SeenLabelMap(path, _of_several(Kind.SEVERAL_LABEL_MAPS, path, others))
    digest, content = None, b""
    try:
        content = read_bytes(path)
        digest = hashlib.sha256(content).digest()
        label_map, palette = decode_mask(content, path, max_megapixels)
    except DataError as error:
        refused = _refused_content(content, path, most, max_megapixels)
        return SeenLabelMap(path, refused or fault_of(path, error, _LABEL_MAP_KINDS), digest)
    pixels = np.array(Image.fromarray(label_map).histogram())
    labels = np.flatnonzero(pixels).tolist()
    if foreign := _foreign(labels, most):
        return SeenLabelMap(path, _foreign_labels(path, foreign, most), digest, label_map.shape)
    colours = {label: palette[3 * label : 3 * label + 3] for label in labels if 3 * label < len(palette)}
    return SeenLabelMap(path, None, digest, label_map.shape, pixels, colours)


def _of_several(kind: Kind, path: Path, others: Sequence[Path]) -> Fault:
    return Fault(kind, path, f"an image has one file of each kind, here also {', '.join(map(str, others))}")


def _refused_content(content: bytes, path: Path, most: int, max_megapixels: float) -> Fault | None:
    """Return what is wrong with a refused label map if it is not damage: its format, colours, labels beyond 8 bit."""
    with suppress(DataError), opened(content, path, max_megapixels) as image:
        if reason := inexact(image):
            return Fault(Kind.INEXACT, path, reason)
        if image.mode.startswith("I"):
            return _foreign_labels(path, _foreign(np.unique(np.asarray(image)).tolist(), most), most)
        if image.mode not in ("1", "L", "P"):
            return Fault(Kind.COLOURS, path, f"mode {image.mode}; a label map holds class indices")
    return None


def _foreign(labels: Iterable[int], most: int) -> list[int]:
    return [label for label in labels if not 0 <= label <= most and label not in (VOID, WIDE_VOID)]


def _foreign_labels(path: Path, foreign: Sequence[int], most: int) -> Fault:
    labels = f"label{'s' if len(foreign) > 1 else ''} {', '.join(map(str, foreign))}"
    return Fault(Kind.FOREIGN_LABELS, path, f"{labels}; allowed are 0..{most} and {VOID}")


def fault_of(path: Path, error: DataError, kinds: tuple[Kind, Kind, Kind]) -> Fault:
    """Return the fault of a file that is missing, that the system refuses to read, or whose content is damaged."""
    missing, unreadable, damaged = kinds
    number = error.__cause__.errno if isinstance(error.__cause__, OSError) else None
    if number in _ABSENT:
        return Fault(missing, path, dangling(path))
    return Fault(damaged if number is None else unreadable, path, reason_of(path, error))


def reason_of(path: Path, error: DataError) -> str:
    """Return why a file could not be read or decoded, without its name."""
    return error.reason if isinstance(error, FileError) else str(error).removeprefix(f"{path} ")
