"""The memory of a training process, which is kept between updates."""

from __future__ import annotations

import ctypes
import sys

_MALLOPT = {"M_TRIM_THRESHOLD": -1, "M_MMAP_THRESHOLD": -3}
"""Parameters of glibc's `mallopt`, from malloc.h: bytes from which free memory, or a block, is given back."""
_NEVER = 2**31 - 1


def keep_freed_memory() -> None:
    """Keep what tensors free for the next ones, where the C library is glibc; elsewhere nothing changes.

    By default it gives blocks of some megabytes back at once, and the system fetches and clears each page anew.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        for parameter in _MALLOPT.values():
            mallopt(parameter, _NEVER)
