"""The class-presence scan: which labels stand in which label map, found once and kept.

The matrix answers every question about a scenario in milliseconds. It is kept in the user's cache under
a key made of the list and the files' names, sizes, times and inodes; the data root is never written to.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from benchmarks.cache import cache_folder, keep, sealed, unsealed
from benchmarks.decoding import MAX_MEGAPIXELS
from benchmarks.files import joint_digest, labels_in, read_bytes, stamp_of
from benchmarks.imageset import Presence

CHUNK = 64


def cached_presence(name: str, paths: Sequence[Path], max_megapixels: float = MAX_MEGAPIXELS) -> Presence:
    """Return the labels of each label map in `paths`, scanned only where something has changed."""
    return _kept(presence_file(name, paths), lambda: scan(paths, max_megapixels))


def presence_file(name: str, paths: Sequence[Path]) -> Path:
    """Return where the presence of these label maps is kept; raise `DataError` where one is missing."""
    stamp = stamp_of(paths, lambda path: f"{name}: no label map at {path}")
    return _file(f"{name}-{stamp[:20]}")


def kept_presence(key: str, make: Callable[[], Presence]) -> Presence:
    """Return the presence kept under a key, made where there is none or the file is damaged."""
    return _kept(_file(key), make)


def presence_in(file: Path) -> Presence | None:
    """Return what a file of the cache holds; None where there is none or it is damaged."""
    try:
        return _load(file)
    except (OSError, ValueError):
        return None


def _file(key: str) -> Path:
    return cache_folder("presence") / f"{key}.npz"


def _kept(file: Path, make: Callable[[], Presence]) -> Presence:
    presence = presence_in(file)
    if presence is None:
        cache_folder("presence", write=True)
        presence = make()
        _save(file, presence)
    return presence


def scan(paths: Sequence[Path], max_megapixels: float = MAX_MEGAPIXELS) -> Presence:
    """Read every label map once; decoding and hashing release the interpreter lock, so threads help."""
    chunks = [paths[i : i + CHUNK] for i in range(0, len(paths), CHUNK)]
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        found = [row for chunk in pool.map(lambda chunk: _scan_chunk(chunk, max_megapixels), chunks) for row in chunk]
    return Presence(np.stack([labels for labels, _ in found]), joint_digest(digest for _, digest in found))


def _scan_chunk(paths: Sequence[Path], max_megapixels: float) -> list[tuple[np.ndarray, bytes]]:
    rows = []
    for path in paths:
        content = read_bytes(path)
        rows.append((labels_in(content, path, max_megapixels), hashlib.sha256(content).digest()))
    return rows


def _save(path: Path, presence: Presence) -> None:
    """Write one bit a label; the file appears by one rename."""
    buffer = io.BytesIO()
    np.savez(buffer, labels=np.packbits(presence.labels, axis=1), digest=np.array(presence.digest))
    keep(path, sealed(buffer.getvalue()))


def _load(path: Path) -> Presence:
    with np.load(io.BytesIO(unsealed(path.read_bytes())), allow_pickle=False) as kept:
        return Presence(np.unpackbits(kept["labels"], axis=1).view(bool), str(kept["digest"]))
