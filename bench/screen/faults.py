"""Faults of the machine and of the numbers, each told in one line; readable without torch."""

from __future__ import annotations

import errno
import os
import re
import signal
import traceback
from pathlib import Path

from benchmarks.cache import DISK_FULL
from benchmarks.errors import DataError
from strategies.learning.faults import NonFiniteLossError, PredictionError
from strategies.plugins.faults import in_a_line
from strategies.plugins.registry import BrokenPluginError

LESS_MEMORY = "use fewer --jobs or a smaller data.ram_gb"
LESS_GPU_MEMORY = "use fewer --jobs on one GPU, a smaller incremental.batch_size, base.batch_size or data.crop"
_LIKELY: dict[str | None, str] = {
    "Killed": ": most likely the machine's memory is full; use fewer --jobs or data.workers",
    "Bus error": ": most likely the shared memory, /dev/shm, is full; use fewer --jobs or data.workers",
}
"""By what the system calls the signal that killed a worker of a loader."""
_CRASHES = (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE, signal.SIGILL)

_CPU_MEMORY = re.compile(r"you tried to allocate \d+ bytes|std::bad_alloc")
_CAUGHT_IN_WORKER = re.compile(r"Caught \w*MemoryError in DataLoader worker")
_GPU_MEMORY = re.compile(r"CUDA (error: )?out of memory(\. Tried to allocate [\d.]+ \w+)?")
_WORKER = re.compile(r"DataLoader worker \(pid\S* [\d, ]+\) (?:is killed by signal: ([\w ]+)|exited unexpectedly)")


def explained(error: BaseException) -> str | None:
    """Return one line about a fault that is known: what the error was raised from, or itself; else None."""
    line = (error.__cause__ and explained(error.__cause__)) or _line(error)
    return line and " ".join(line.split())


def failure_of(error: BaseException) -> str:
    """Return one line about a fault that is known, else the traceback; a process that was to end is told last."""
    if line := explained(error):
        return line
    text = "".join(traceback.format_exception(error))
    return f"{text}{in_a_line(error)}" if isinstance(error, SystemExit) else text


def _line(error: BaseException) -> str | None:
    if isinstance(error, (NonFiniteLossError, PredictionError, BrokenPluginError)):
        return str(error)
    if isinstance(error, DataError):
        return _of_data(str(error))
    if isinstance(error, OSError):
        return _of_system(error)
    if isinstance(error, MemoryError):
        return _memory_is_full(_last_line(str(error)))
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
    path = Path(os.fsdecode(error.filename)) if isinstance(error.filename, (str, bytes, os.PathLike)) else None
    where = f"{path} cannot be written" if path else "a file cannot be written"
    left = f", {_left(path)}" if path and error.errno == errno.ENOSPC else ""
    what, way_out = _FULL[error.errno or errno.ENOSPC]
    return f"{what}: {where}{left}; {way_out}, then the same command goes on where it stopped"


_FULL = {
    errno.ENOSPC: ("the disk is full", "make space"),
    errno.EDQUOT: ("the disk quota is used up", "make space"),
    errno.EFBIG: ("no file may be so large", "raise the limit (ulimit -f), or use another file system"),
}


def _left(path: Path) -> str:
    """Return what is free on a file's disk: bytes, unless it is the number of files that is used up."""
    folder = next(p for p in path.absolute().parents if p.is_dir())
    disk = os.statvfs(folder)
    if disk.f_files and not disk.f_favail:
        return f"no inode is free in {folder}"
    return f"{disk.f_bavail * disk.f_frsize // 2**20:,} MiB are free in {folder}"


def _of_data(text: str) -> str:
    """Return the one line that an error of the data is, without the traceback of a loader's worker."""
    return _last_line(text).partition(": ")[2] if text.startswith("Caught ") else text


def _memory_is_full(what: str) -> str:
    return f"the machine's memory is full: {what or 'no more could be allocated'}; {LESS_MEMORY}"


def _last_line(text: str) -> str:
    """Return a text without the traceback that a loader puts above an error of its workers."""
    return text.strip().rpartition("\n")[2]


def _of_torch(text: str) -> str | None:
    if found := _GPU_MEMORY.search(text):
        return f"the GPU's memory is full: {found[0]}; {LESS_GPU_MEMORY}"
    if found := _CPU_MEMORY.search(text):
        return _memory_is_full(found[0])
    if _CAUGHT_IN_WORKER.match(text):
        return _memory_is_full(_last_line(text))
    if found := _WORKER.search(text):
        return _worker_died(found[1])
    return None


def _worker_died(signal_name: str | None) -> str:
    how = f"was killed ({signal_name})" if signal_name else "ended"
    return f"a process that reads images {how}{_LIKELY.get(signal_name, '')}"


def explained_exit(status: int | None) -> str:
    """Return one line about a process that ended without a word; `status` is as in `Process.exitcode`."""
    if status is None or status >= 0:
        return f"its process ended with exit status {status}"
    name = _signal_name(-status)
    if -status == signal.SIGKILL:
        return f"its process was killed ({name}): most likely the machine's memory is full; {LESS_MEMORY}"
    if -status in _CRASHES:
        return f"its process crashed ({name})"
    return f"its process was terminated ({name})"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal but the first and the last
        return f"signal {number}"
