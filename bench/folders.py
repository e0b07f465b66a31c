"""Folders to write to, and what stands in a run's directory beside its records."""

from __future__ import annotations

import tempfile
from pathlib import Path

from bench.config import RequestError


def claim_of(run: Path) -> Path:
    """Return the file that is claimed while a run is made."""
    return run / "claim"


def finished_at(run: Path) -> int | None:
    """Return when a run was finished, in ns since the epoch; None if it is not."""
    try:
        return (run / "done").stat().st_mtime_ns
    except FileNotFoundError:
        return None


def require_writable(out: Path) -> None:
    """Raise `RequestError` where nothing could be written below `out`; leaves nothing behind."""
    there = next(p for p in (out, *out.resolve().parents) if p.exists())
    try:
        with tempfile.TemporaryDirectory(dir=there):
            pass
    except OSError as error:
        raise RequestError(f"--out {out}: cannot write to {there} ({error.strerror})") from None
