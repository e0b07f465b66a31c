"""How any error is told in one line."""

from __future__ import annotations


def in_a_line(error: BaseException) -> str:
    """Return an error's kind and text in one line."""
    if isinstance(error, SystemExit):
        return f"it ends the process (SystemExit: {error.code})"
    return " ".join(f"{type(error).__name__}: {error}".split())
