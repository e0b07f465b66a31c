"""Numbers of things, as they are told."""

from __future__ import annotations


def several(number: int, what: str) -> str:
    """Return `1 run`, `2 runs`, `1,000 runs` for `run`: words that take an s."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"
