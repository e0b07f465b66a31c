"""Where all randomness begins."""

from __future__ import annotations

import hashlib


def derived_seed(*words: str | int) -> int:
    """Return a 62-bit seed for one purpose, the same on every machine."""
    return int.from_bytes(hashlib.sha256(repr(words).encode()).digest()[:8], "big") >> 2
