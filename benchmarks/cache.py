"""The user's cache folder: generated data, class presence, packed images, base models."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def cache_folder(*parts: str) -> Path:
    """Return a folder of the cache, made if needed.

    `BENCH_CACHE` names the cache; without it `XDG_CACHE_HOME/continual-seg-bench` or
    `~/.cache/continual-seg-bench` is used.
    """
    chosen = os.environ.get("BENCH_CACHE")
    if chosen:
        top = Path(chosen)
    else:
        top = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "continual-seg-bench"
    folder = top.joinpath(*parts)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def appearing_folder(final: Path) -> Iterator[Path]:
    """Give a scratch folder that becomes `final` by one rename, or vanishes if the block fails.

    Of two processes that make the same folder the first wins and the second's work is dropped.
    """
    scratch = Path(tempfile.mkdtemp(prefix=f".{final.name}.", dir=final.parent))
    try:
        yield scratch
        try:
            scratch.rename(final)
        except OSError:
            if not final.is_dir():
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
