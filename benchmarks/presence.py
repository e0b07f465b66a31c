"""The class-presence scan: which labels stand in which label map, found once and kept.

The matrix answers every question about a scenario in milliseconds. It is kept in the user's cache under
a key made of the list and the files' names, sizes and times; the data root is never written to.
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
from benchmarks.files import labels_in, read_bytes, stamp_of
from benchmarks.imageset import Presence

CHUNK = 64


def cached_presence(name: str, paths: Sequence[Path]) -> Presence:
    """Return the labels of each label map in `paths`, scanned only where something has changed."""
    stamp = stamp_of(paths, f"{name}: no label map at {{}}")
    return kept_presence(f"{name}-{stamp[:20]}", lambda: scan(paths))


def kept_presence(key: str, make: Callable[[], Presence]) -> Presence:
    """Return the presence kept under a key, made where there is none or the file is damaged."""
    kept = cache_folder("presence") / f"{key}.npz"
    try:
        return _load(kept)
    except (OSError, ValueError):
        presence = make()
        _save(kept, presence)
        return presence


def scan(paths: Sequence[Path]) -> Presence:
    """Read every label map once; decoding and hashing release the interpreter lock, so threads help."""
    chunks = [paths[i : i + CHUNK] for i in range(0, len(paths), CHUNK)]
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        found = [row for chunk in pool.map(_scan_chunk, chunks) for row in chunk]
    content = hashlib.sha256()
    for _, digest in found:
        content.update(digest)
    return Presence(np.stack([labels for labels, _ in found]), content.hexdigest())


def _scan_chunk(paths: Sequence[Path]) -> list[tuple[np.ndarray, bytes]]:
    rows = []
    for path in paths:
        content = read_bytes(path)
        rows.append((labels_in(content, path), hashlib.sha256(content).digest()))
    return rows


def _save(path: Path, presence: Presence) -> None:
    """Write one bit a label; the file appears by one rename."""
    buffer = io.BytesIO()
    np.savez(buffer, labels=np.packbits(presence.labels, axis=1), digest=np.array(presence.digest))
    keep(path, sealed(buffer.getvalue()))


def _load(path: Path) -> Presence:
    with np.load(io.BytesIO(unsealed(path.read_bytes())), allow_pickle=False) as kept:
        return Presence(np.unpackbits(kept["labels"], axis=1).astype(bool), str(kept["digest"]))
