"""Claims: of all processes that may work on a run or a base model, one at a time does.

A claim is a file that its holder keeps locked and touches every few seconds. The lock alone decides on one machine,
and wherever the file system keeps locks between machines: it ends with its process, however that dies. Where locks
reach no further than their machine, a claim made on another one counts until it has not been touched for a minute.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import cache
from pathlib import Path
from typing import Any

from reports.atomic import scratch_path

BEAT_SECONDS = 10.0
STALE_SECONDS = 60.0
_UNSUPPORTED = (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)
"""What a file system without hard links or locks answers."""


@dataclass(eq=False)
class Claims:
    """The claims of a process, to be used in a `with` block that gives them all back."""

    _held: dict[Path, int] = field(default_factory=dict)
    """Open file descriptors by path."""
    _seen: dict[Path, tuple[int, float]] = field(default_factory=dict)
    """When another machine's claim was last touched, by its clock, and when that was first seen, by ours."""
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _ended: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Claims:
        threading.Thread(target=self._beat, daemon=True).start()
        os.register_at_fork(after_in_child=self._forget)
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        for path in list(self._held):
            self.release(path)

    def take(self, path: Path) -> bool:
        """Return whether the claim is this process's now; raise OSError where it cannot be written."""
        _create(path)
        try:
            file = os.open(path, os.O_RDWR)
        except FileNotFoundError:  # given back just now
            return False
        try:
            ours = _locked(file) and _is_at(file, path) and not self._lives_elsewhere(path, file)
        except BaseException as error:
            os.close(file)
            if isinstance(error, OSError) and error.errno in _UNSUPPORTED:
                raise OSError(
                    error.errno, "the file system has no locks (flock): mount it with them", str(path)
                ) from None
            raise
        if not ours:
            os.close(file)
            return False
        content = _own_mark()
        os.pwrite(file, content, 0)
        os.ftruncate(file, len(content))
        with self._lock:
            self._held[path] = file
        return True

    def release(self, path: Path) -> None:
        """Give a claim back."""
        with self._lock:
            file = self._held.pop(path)
            try:
                if _is_at(file, path) and _is_own(_read(path)):  # nobody has taken it over
                    path.unlink()
            except OSError:
                pass  # it is free without its lock
            finally:
                os.close(file)

    def _lives_elsewhere(self, path: Path, file: int) -> bool:
        if _read(path).get("machine") in (None, _machine()):
            return False
        touched, now = os.fstat(file).st_mtime_ns, time.monotonic()
        if self._seen.get(path, (None,))[0] != touched:
            self._seen[path] = touched, now
        return now - self._seen[path][1] < STALE_SECONDS

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_SECONDS):
            with self._lock:
                for file in self._held.values():
                    with suppress(OSError):  # the next beat may succeed
                        os.utime(file)

    def _forget(self) -> None:
        """Close a forked process's copies of the locked files: they would keep the locks beyond their holder."""
        for file in self._held.values():
            os.close(file)
        self._held.clear()


def _locked(file: int) -> bool:
    """Return whether an open file is locked now; somebody who looks whether it is may be in the way for a moment."""
    for pause in (0.005, 0.02, 0.0):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(pause)
        else:
            return True
    return False


def is_claimed(path: Path) -> bool:
    """Return whether a living process holds a claim; to look takes nothing."""
    try:
        file = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        elsewhere = _read(path).get("machine") not in (None, _machine())
        return elsewhere and time.time() - os.fstat(file).st_mtime < STALE_SECONDS
    except BlockingIOError:
        return True
    finally:
        os.close(file)


def holder(path: Path) -> str:
    """Return who claims something, in words."""
    who = _read(path)
    restarts = f", restart {who['restarts']}" if who.get("restarts") else ""
    job = f", Slurm job {who['slurm_job']}{restarts}" if who.get("slurm_job") else ""
    return f"process {who['pid']} on {who['host']}{job} since {who['since']}" if who else "another process"


def _create(path: Path) -> None:
    """Make the file, with its content from the first moment on, unless it is there."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = scratch_path(path)
    try:
        scratch.write_bytes(_own_mark())
        os.link(scratch, path)
    except (FileExistsError, FileNotFoundError):  # another was quicker; it tidies up when it starts
        pass
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise OSError(error.errno, error.strerror, str(path)) from None
        path.touch()
    finally:
        scratch.unlink(missing_ok=True)


def _is_at(file: int, path: Path) -> bool:
    """Whether an open file is still the one at `path`: the holder before may have deleted it."""
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) and content.keys() >= {"machine", "host", "pid", "since"} else {}


def _is_own(mark: dict[str, Any]) -> bool:
    return (mark.get("machine"), mark.get("pid")) == (_machine(), os.getpid())


def _own_mark() -> bytes:
    mark = {
        "machine": _machine(),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "since": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "slurm_job": _slurm_job(),
        "restarts": os.environ.get("SLURM_RESTART_COUNT"),
    }
    return f"{json.dumps(mark)}\n".encode()


def _slurm_job() -> str | None:
    """Return the job that this process belongs to, by the name that its queue shows."""
    array, element = (os.environ.get(f"SLURM_ARRAY_{part}_ID") for part in ("JOB", "TASK"))
    return f"{array}_{element}" if array and element else os.environ.get("SLURM_JOB_ID")


@cache
def _machine() -> str:
    """What tells this machine since its last start from all others; containers on it share it, as they share locks."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    except OSError:
        return socket.gethostname()
