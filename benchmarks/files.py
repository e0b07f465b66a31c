"""Reading label maps and lists from files, with errors that name the file."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.errors import DataError
from benchmarks.labels import VOID

WIDE_VOID = 65535
"""Void in a label map of 16 bit."""


def read_bytes(path: Path) -> bytes:
    """Return a file's content; raise `DataError` where it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path} ({error.strerror})") from error


def read_mask(path: Path) -> np.ndarray:
    """Return a label map as uint8 H x W; raise `DataError` where it is damaged or holds no labels."""
    return decode_mask(read_bytes(path), path)[0]


def decode_mask(content: bytes, path: Path) -> tuple[np.ndarray, bytes]:
    """Return the label map (uint8 H x W) that a file's content holds, and its palette: R, G, B by label, or nothing."""
    if path.suffix == ".mat":
        return _sbd_segmentation(content, path), b""
    with _opened(content, path) as image:
        labels = _indices(image, path)
        return labels, bytes(image.getpalette() or ()) if image.mode == "P" else b""


def labels_in(content: bytes, path: Path) -> np.ndarray:
    """Return bool (256,): which labels stand in the label map that a file's content holds."""
    if path.suffix == ".mat":
        return np.bincount(_sbd_segmentation(content, path).ravel(), minlength=256) > 0
    with _opened(content, path) as image:
        if image.mode in _EIGHT_BIT:
            return np.asarray(image.histogram()) > 0
        return np.bincount(_indices(image, path).ravel(), minlength=256) > 0


def inexact(image: Image.Image) -> str:
    """Return why an opened file cannot be trusted to give the labels that were written, as the end of a sentence."""
    if image.format in _LOSSY or (image.format == "TIFF" and "jpeg" in str(image.info.get("compression"))):
        return f"is a {image.format} whatever its name, which does not keep labels; a label map is a PNG"
    tiles = getattr(image, "tile", ())
    if image.format == "PNG" and image.mode == "L" and tiles and tiles[0][3] != "L":
        return "is grey of fewer than 8 bit, which are read as grey values and not as labels; save it in 8 bit"
    return ""


def read_ids(path: Path) -> tuple[str, ...]:
    """Return the image ids in a list file; raise `DataError` where it is unreadable, empty or not a list of ids."""
    try:
        ids = tuple(list_entries(read_bytes(path).decode()))
    except UnicodeDecodeError as error:
        raise DataError(f"the list {path} is not text ({error.reason})") from None
    if not ids:
        raise DataError(f"the list {path} is empty")
    for image_id in ids:
        if "/" in image_id:
            raise DataError(f"the list {path} holds '{image_id}'; an id is a file name without folder and extension")
    if len(set(ids)) < len(ids):
        twice = next(i for i in ids if ids.count(i) > 1)
        raise DataError(f"the list {path} names {twice} more than once")
    return ids


def list_entries(text: str) -> list[str]:
    """Return the entries of a list; a line with the files of an image, as DeepLab's lists have them, names its id.

    Such a line is `/JPEGImages/ID.jpg /SegmentationClassAug/ID.png`.
    """
    return [entry for line in text.splitlines() for entry in _line_entries(line.split())]


def _line_entries(words: Sequence[str]) -> Sequence[str]:
    if len(words) == 2 and all(Path(word).suffix for word in words) and Path(words[0]).stem == Path(words[1]).stem:
        return [Path(words[0]).stem]
    return words


def files_by_id(folder: Path, extensions: Sequence[str] | None = None) -> dict[str, list[str]]:
    """Return the names of a folder's files by id, hidden ones left out; none where there is no folder.

    `extensions` are those that count, in lower case, whatever the files' case; by default all.
    """
    found: dict[str, list[str]] = {}
    for name in sorted(entry.name for entry in os.scandir(folder)) if folder.is_dir() else ():
        image_id, dot, extension = name.rpartition(".")
        if image_id and (extensions is None or f".{extension.lower()}" in extensions):
            found.setdefault(image_id, []).append(name)
        elif not dot and extensions is None:
            found.setdefault(name, []).append(name)
    return found


def read_lines(path: Path) -> list[str]:
    """Return a text file's lines without surrounding blanks, less the empty ones; raise `DataError`."""
    try:
        lines = read_bytes(path).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not text ({error.reason})") from None
    return [line.strip() for line in lines if line.strip()]


def content_digest(paths: Sequence[Path]) -> str:
    """Return the SHA-256 over the files' contents, in order; reading and hashing use all cores."""
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        return joint_digest(pool.map(lambda path: hashlib.sha256(read_bytes(path)).digest(), paths))


def joint_digest(digests: Iterable[bytes]) -> str:
    """Return the SHA-256 over the SHA-256 of several files, in order."""
    return hashlib.sha256(b"".join(digests)).hexdigest()


def stamp_of(paths: Sequence[Path], missing: str) -> str:
    """Return the SHA-256 of the files' paths, sizes, times (of content and of the entry) and inodes.

    So a file that is written anew with its old size and date is noticed; one that was moved or linked costs a reading.
    `missing` is the `DataError`'s text for a file or folder that is not there; `{}` becomes its path.
    """
    folders: dict[Path, dict[str, os.DirEntry[str]]] = {}
    for folder in dict.fromkeys(p.parent for p in paths):
        if not folder.is_dir():
            raise DataError(missing.format(folder))
        folders[folder] = {entry.name: entry for entry in os.scandir(folder)}
    key = hashlib.sha256()
    for path in paths:
        entry = folders[path.parent].get(path.name)
        if entry is None:
            raise DataError(missing.format(path))
        status = entry.stat()
        key.update(f"{path}\0{status.st_size}\0{status.st_mtime_ns}\0{status.st_ctime_ns}\0{status.st_ino}\n".encode())
    return key.hexdigest()


def _sbd_segmentation(content: bytes, path: Path) -> np.ndarray:
    from scipy.io import loadmat  # only SBD's own files need it

    try:
        return np.asarray(loadmat(io.BytesIO(content))["GTcls"]["Segmentation"][0, 0], dtype=np.uint8)
    except Exception as error:  # loadmat raises whatever a damaged file leads it to
        raise DataError(f"cannot decode {path} ({' '.join(str(error).split())}); it is SBD's GTcls") from error


_EIGHT_BIT = ("P", "L")
_LOSSY = ("JPEG", "MPO", "JPEG2000", "WEBP", "AVIF")
_WIDE = ("1", "I", "I;16", "I;16B", "I;16L")


def _indices(image: Image.Image, path: Path) -> np.ndarray:
    """Return the class indices of a decoded label map as uint8; 65535, void in 16 bit, becomes 255."""
    if image.mode in _EIGHT_BIT:
        return np.asarray(image)
    if image.mode not in _WIDE:
        raise DataError(f"{path} holds colours (mode {image.mode}); a label map holds class indices")
    labels = np.asarray(image).astype(np.int64)
    labels[labels == WIDE_VOID] = VOID
    foreign = labels[(labels < 0) | (labels > VOID)]
    if foreign.size:
        raise DataError(f"{path} holds label {foreign[0]}; a label is at most {VOID}")
    return labels.astype(np.uint8)


@contextmanager
def _opened(content: bytes, path: Path) -> Iterator[Image.Image]:
    """Open a label map; raise `DataError` where its format does not keep labels, or what is done with it fails."""
    with decoding(path), Image.open(io.BytesIO(content)) as image:
        if reason := inexact(image):
            raise DataError(f"{path} {reason}")
        yield image


@contextmanager
def decoding(path: Path) -> Iterator[None]:
    """Raise `DataError`, naming the file, for what Pillow raises."""
    try:
        yield
    except DataError:
        raise
    except (OSError, SyntaxError, ValueError, KeyError) as error:
        raise DataError(f"cannot decode {path} ({error})") from error
