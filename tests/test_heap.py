"""The memory of training processes is kept between updates."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys

from bench.train.heap import keep_freed_memory

def faults(repetitions):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(repetitions):
        b"x" * (48 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

if "kept" in sys.argv:
    keep_freed_memory()
faults(1)
print(faults(5))
"""

ALLOCATORS = ("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD")
"""Beginnings of what says in the environment how memory is allocated."""


def faults(*arguments: str) -> int:
    by_default = {key: value for key, value in os.environ.items() if not key.startswith(ALLOCATORS)}
    command = [sys.executable, "-c", FAULTS, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=by_default)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library than glibc")
def test_pages_of_a_block_that_was_freed_are_used_again() -> None:
    assert 10 * faults("kept") < faults()
