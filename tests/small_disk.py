"""A disk of a few MiB for a test, where one can be mounted."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def mounted(disk: Path, options: str) -> Iterator[Path]:
    """Give a new folder `disk` that is a disk of its own, `options` such as `size=1m`; skip where that is refused."""
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no small disk can be mounted here (not root)")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)  # files of it may still be mapped into memory
