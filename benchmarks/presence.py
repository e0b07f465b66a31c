"""The class-presence scan: which labels stand in which label map, found once and kept.

The matrix answers every question about a scenario in milliseconds. It is kept in the user's cache under
a key made of the list and the files' names, sizes and times; the data root is never written to.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from benchmarks.cache import cache_folder
from benchmarks.files import labels_in, read_bytes, stamp_of
from benchmarks.imageset import Presence

CHUNK = 64


def cached_presence(name: str, paths: Sequence[Path]) -> Presence:
    """Return the labels of each label map in `paths`, scanned only where something has changed."""
    stamp = stamp_of(paths, f"{name}: no label map at {{}}")
    kept = cache_folder("presence") / f"{name}-{stamp[:20]}.npz"
    if kept.is_file():
        return load_presence(kept)
    presence = scan(paths)
    save_presence(kept, presence)
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


def save_presence(path: Path, presence: Presence) -> None:
    """Write a presence matrix, one bit a label; the file appears by one rename."""
    scratch = path.with_suffix(f".{os.getpid()}.npz")
    np.savez(scratch, labels=np.packbits(presence.labels, axis=1), digest=np.array(presence.digest))
    scratch.replace(path)


def load_presence(path: Path) -> Presence:
    """Read what `save_presence` wrote."""
    with np.load(path, allow_pickle=False) as kept:
        return Presence(np.unpackbits(kept["labels"], axis=1).astype(bool), str(kept["digest"]))
