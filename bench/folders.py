"""Folders to write to."""

from __future__ import annotations

import tempfile
from pathlib import Path

from bench.config import RequestError


def require_writable(out: Path) -> None:
    """Raise `RequestError` where nothing could be written below `out`; leaves nothing behind."""
    there = next(p for p in (out, *out.resolve().parents) if p.exists())
    try:
        with tempfile.TemporaryDirectory(dir=there):
            pass
    except OSError as error:
        raise RequestError(f"--out {out}: cannot write to {there} ({error.strerror})") from None
