"""Faults of the machine and of the numbers, each told in one line; readable without torch."""

from __future__ import annotations

import errno
import os
import re
import signal
from pathlib import Path

from benchmarks.cache import DISK_FULL
from benchmarks.errors import ReaderDiedError
from strategies.faults import NonFiniteLossError

LESS_MEMORY = "use fewer --jobs or a smaller data.ram_gb"
LESS_GPU_MEMORY = "use fewer --jobs on one GPU, a smaller incremental.batch_size, base.batch_size or data.crop"
LESS_READERS = "use fewer --jobs or data.workers"
_CRASHES = (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE, signal.SIGILL)

_CPU_MEMORY = re.compile(r"you tried to allocate \d+ bytes|std::bad_alloc")
_GPU_MEMORY = re.compile(r"CUDA (error: )?out of memory(\. Tried to allocate [\d.]+ \w+)?")


def explained(error: BaseException) -> str | None:
    """Return one line about a fault that is known: what the error was raised from, or itself; else None."""
    line = (error.__cause__ and explained(error.__cause__)) or _line(error)
    return line and " ".join(line.split())


def _line(error: BaseException) -> str | None:
    if isinstance(error, NonFiniteLossError):
        return str(error)
    if isinstance(error, ReaderDiedError):
        return explained_exit(error.status, "a process that reads images", LESS_READERS)
    if isinstance(error, OSError):
        return _of_system(error)
    if isinstance(error, MemoryError):
        return _memory_is_full(str(error))
    if isinstance(error, RuntimeError):
        return _of_torch(str(error))
    return None


def _of_system(error: OSError) -> str | None:
    if error.errno in DISK_FULL:
        return _disk_is_full(error)
    if error.errno == errno.ENOMEM:
        return _memory_is_full(str(error))
    return None


def _disk_is_full(error: OSError) -> str:
    what = "the disk is full" if error.errno == errno.ENOSPC else "the disk quota is used up"
    path = Path(os.fsdecode(error.filename)) if isinstance(error.filename, (str, bytes, os.PathLike)) else None
    where = f"{path} cannot be written" if path else "a file cannot be written"
    left = f", {_left(path)}" if path and error.errno == errno.ENOSPC else ""
    return f"{what}: {where}{left}; make space, then the same command goes on where it stopped"


def _left(path: Path) -> str:
    """Return what is free on a file's disk: bytes, unless it is the number of files that is used up."""
    folder = next(p for p in path.absolute().parents if p.is_dir())
    disk = os.statvfs(folder)
    if disk.f_files and not disk.f_favail:
        return f"no inode is free in {folder}"
    return f"{disk.f_bavail * disk.f_frsize // 2**20:,} MiB are free in {folder}"


def _memory_is_full(what: str) -> str:
    return f"the machine's memory is full: {what or 'no more could be allocated'}; {LESS_MEMORY}"


def _of_torch(text: str) -> str | None:
    if found := _GPU_MEMORY.search(text):
        return f"the GPU's memory is full: {found[0]}; {LESS_GPU_MEMORY}"
    if found := _CPU_MEMORY.search(text):
        return _memory_is_full(found[0])
    return None


def explained_exit(status: int | None, who: str = "its process", less: str = LESS_MEMORY) -> str:
    """Return one line about a process that ended without a word; `status` is as in `Process.exitcode`."""
    if status is None or status >= 0:
        return f"{who} ended with exit status {status}"
    name = _signal_name(-status)
    if -status == signal.SIGKILL:
        return f"{who} was killed ({name}): most likely the machine's memory is full; {less}"
    if -status in _CRASHES:
        return f"{who} crashed ({name})"
    return f"{who} was terminated ({name})"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal but the first and the last
        return f"signal {number}"
