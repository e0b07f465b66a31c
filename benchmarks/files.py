"""Finding and reading label maps and lists, with errors that name the file."""

from __future__ import annotations

import hashlib
import io
import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.decoding import MAX_MEGAPIXELS, opened
from benchmarks.errors import DataError, FileError
from benchmarks.labels import VOID

WIDE_VOID = 65535
"""Void in a label map of 16 bit."""
NO_EXTENSION = ""


def read_bytes(path: Path) -> bytes:
    """Return a file's content; raise `FileError` where it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: OSError) -> FileError:
    """Return the error of a file or folder that the system does not let be read."""
    return FileError.of("cannot read", path, dangling(path) or error.strerror or type(error).__name__)


def dangling(path: Path) -> str:
    """Return what a path is that is a link to nothing, as git-annex and DVC leave them; nothing for all else."""
    with suppress(OSError):
        if path.is_symlink() and not path.exists():
            return f"a link to {path.readlink()}, which is not there: git annex get, or dvc pull, fetches it"
    return ""


def and_why(path: Path) -> str:
    """Return the same in brackets, to be put behind its name."""
    return f" ({reason})" if (reason := dangling(path)) else ""


def is_there(path: Path) -> bool:
    """Return whether a file is there, or a link to one that is not: reading that says where it leads."""
    return path.is_file() or path.is_symlink()


def read_mask(path: Path, max_megapixels: float = MAX_MEGAPIXELS) -> np.ndarray:
    """Return a label map as uint8 H x W; raise `DataError` where it is damaged, too large or holds no labels."""
    return decode_mask(read_bytes(path), path, max_megapixels)[0]


def decode_mask(content: bytes, path: Path, max_megapixels: float = MAX_MEGAPIXELS) -> tuple[np.ndarray, bytes]:
    """Return the label map (uint8 H x W) that a file's content holds, and its palette: R, G, B by label, or nothing."""
    if _is_of_matlab(path):
        return _sbd_segmentation(content, path), b""
    with _label_map(content, path, max_megapixels) as image:
        labels = _indices(image, path)
        return labels, bytes(image.getpalette() or ()) if image.mode == "P" else b""


def labels_in(content: bytes, path: Path, max_megapixels: float = MAX_MEGAPIXELS) -> np.ndarray:
    """Return bool (256,): which labels stand in the label map that a file's content holds."""
    if _is_of_matlab(path):
        return np.bincount(_sbd_segmentation(content, path).ravel(), minlength=256) > 0
    with _label_map(content, path, max_megapixels) as image:
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
    ids = tuple(list_entries(path))
    if not ids:
        raise DataError(f"the list {path} is empty")
    for image_id in ids:
        if "/" in image_id:
            raise DataError(f"the list {path} holds '{image_id}'; an id is a file name without folder and extension")
    if len(set(ids)) < len(ids):
        twice = next(i for i in ids if ids.count(i) > 1)
        raise DataError(f"the list {path} names {twice} more than once")
    return ids


def list_entries(path: Path) -> list[str]:
    """Return the entries of a list, one a line; raise `FileError` where it is unreadable or one of another kind."""
    lines = read_lines(path)
    first_words = {found[1] for line in lines if (found := _ID_AND_PRESENCE.fullmatch(line))}
    if lines and len(first_words) == len(lines) and any(line.endswith(" -1") for line in lines):
        reason = "ID and -1, 0 or 1 a line: it tells of one class, as those in VOC's ImageSets/Main"
        raise FileError.of("cannot use the list", path, reason)
    return [id_in(line) for line in lines]


_ID_AND_PRESENCE = re.compile(r"(\S+) (?:-1| ?0| ?1)")


def id_in(line: str) -> str:
    """Return the id that a line of a list names: all of it, or what the two files that it names have in common.

    Such a line is, in DeepLab's lists, `/JPEGImages/ID.jpg /SegmentationClassAug/ID.png`. An id may hold blanks.
    """
    for blank in re.finditer(r"\s+", line):
        photograph, label_map = Path(line[: blank.start()]), Path(line[blank.end() :])
        if photograph.suffix and label_map.suffix and photograph.stem == label_map.stem:
            return photograph.stem
    return line


def files_by_id(folder: Path, extensions: Sequence[str]) -> dict[str, list[str]]:
    """Return the names of a folder's files with one of the extensions by id; none where there is no folder.

    Extensions count in any case, here they are in lower case; `NO_EXTENSION` is that of a name without one. Hidden
    files are none: macOS lays `._ID.png` beside `ID.png`. Ids are in Unicode's form NFC, whichever the names are in.
    """
    found: dict[str, list[str]] = {}
    for name in sorted(_entries(folder)) if folder.is_dir() else ():
        stem, dot, extension = name.rpartition(".")
        if not name.startswith(".") and (f".{extension.lower()}" if dot else NO_EXTENSION) in extensions:
            found.setdefault(normalised(stem if dot else name), []).append(name)
    return found


def normalised(text: str) -> str:
    """Return a text in Unicode's form NFC: é is one character, while macOS's file systems write two."""
    return unicodedata.normalize("NFC", text)


def _entries(folder: Path) -> dict[str, os.DirEntry[str]]:
    """Return what lies in a folder by name; raise `FileError` where it cannot be read."""
    try:
        return {entry.name: entry for entry in os.scandir(folder)}
    except OSError as error:
        raise unreadable(folder, error) from error


def read_lines(path: Path) -> list[str]:
    """Return a text file's lines without surrounding blanks, less the empty ones; see `read_text`."""
    return [line.strip() for line in read_text(path).splitlines() if line.strip()]


def read_text(path: Path) -> str:
    """Return a text file's content in NFC, less the mark with which some editors begin it; raise `FileError`."""
    try:
        return normalised(read_bytes(path).decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise FileError.of("cannot read", path, f"it is not text in UTF-8: {error.reason}") from None


def content_digest(paths: Sequence[Path]) -> str:
    """Return the SHA-256 over the files' contents, in order; reading and hashing use all cores."""
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        return joint_digest(pool.map(lambda path: hashlib.sha256(read_bytes(path)).digest(), paths))


def joint_digest(digests: Iterable[bytes]) -> str:
    """Return the SHA-256 over the SHA-256 of several files, in order."""
    return hashlib.sha256(b"".join(digests)).hexdigest()


def stamp_of(paths: Sequence[Path], missing: Callable[[Path], str]) -> str:
    """Return the SHA-256 of the files' paths, sizes, times (of content and of the entry) and inodes.

    So a file that is written anew with its old size and date is noticed; one that was moved or linked costs a reading.
    `missing` gives the `DataError`'s text for a file or folder that is not there.
    """
    folders: dict[Path, dict[str, os.DirEntry[str]]] = {}
    for folder in dict.fromkeys(p.parent for p in paths):
        if not folder.is_dir():
            raise DataError(missing(folder))
        folders[folder] = _entries(folder)
    key = hashlib.sha256()
    for path in paths:
        entry = folders[path.parent].get(path.name)
        if entry is None:
            raise DataError(missing(path))
        try:
            status = entry.stat()
        except OSError as error:
            raise unreadable(path, error) from error
        times = f"{status.st_mtime_ns}\0{status.st_ctime_ns}"
        key.update(os.fsencode(f"{path}\0{status.st_size}\0{times}\0{status.st_ino}\n"))
    return key.hexdigest()


def _is_of_matlab(path: Path) -> bool:
    return path.suffix.lower() == ".mat"


def _sbd_segmentation(content: bytes, path: Path) -> np.ndarray:
    from scipy.io import loadmat  # only SBD's own files need it

    try:
        return np.asarray(loadmat(io.BytesIO(content))["GTcls"]["Segmentation"][0, 0], dtype=np.uint8)
    except Exception as error:  # loadmat raises whatever a damaged file leads it to
        reason = "an empty file" if not content else f"not SBD's GTcls: {' '.join(str(error).split())}"
        raise FileError.of("cannot decode", path, reason) from error


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
def _label_map(content: bytes, path: Path, max_megapixels: float) -> Iterator[Image.Image]:
    """Open a label map; raise `DataError` where its format does not keep labels, or what is done with it fails."""
    with opened(content, path, max_megapixels) as image:
        if reason := inexact(image):
            raise DataError(f"{path} {reason}")
        yield image
