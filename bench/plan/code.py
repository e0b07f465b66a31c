"""The code that computes: its digest, which every run records, and copies of it for work that starts later."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from bench.imports import TOP
from bench.settings.errors import RequestError
from benchmarks.cache import appearing_folder, full_disk_names

PACKAGES = ("bench", "benchmarks", "reports", "strategies")
"""The folder of the packages."""
_REVISION = "GIT_REVISION"
"""A file in a copy: the revision of what was copied."""


@cache
def code_digest() -> str:
    """Return the SHA-256 of the packages' files, their names included."""
    return _digest(TOP)


def _digest(top: Path) -> str:
    digest = hashlib.sha256()
    for path in _sources(top):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(top).as_posix()} {len(content)}\n".encode() + content)
    return digest.hexdigest()


@cache
def git_revision() -> str | None:
    """Return the revision of the checkout that this code runs from or was copied from, `-dirty` where it was changed.

    None where it comes from no checkout.
    """
    if (TOP / _REVISION).is_file():
        return (TOP / _REVISION).read_text(encoding="utf-8") or None
    if not (TOP / ".git").exists():
        return None
    try:
        command = ["git", "-C", str(TOP), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def copy_code(folder: Path) -> Path:
    """Return a folder below `folder` with a copy of the packages, for PYTHONPATH; equal code is copied once.

    Raises `RequestError` where the code is not any more what this process runs.
    """
    copy = folder / code_digest()[:12]
    if not copy.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        with full_disk_names(copy), appearing_folder(copy) as scratch:
            for path in _sources(TOP):
                target = scratch / path.relative_to(TOP)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)
            if _digest(scratch) != code_digest():
                raise RequestError("the code was changed while this command ran; start it again")
            (scratch / _REVISION).write_text(git_revision() or "", encoding="utf-8")
    return copy


def _sources(top: Path) -> Iterator[Path]:
    for package in PACKAGES:
        files = (path for path in (top / package).rglob("[!.]*") if path.is_file() and path.suffix != ".pyc")
        yield from sorted(files, key=lambda path: path.relative_to(top).as_posix())
