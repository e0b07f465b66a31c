"""The process that workers are forked from."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterable
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType

from bench.imports import importing_what_is_installed
from bench.settings.errors import RequestError
from benchmarks.paths import can_write

_SOCKET = len("/pymp-12345678/listener-12345678")
_LONGEST = 107 - _SOCKET
"""Bytes of the path of a folder for temporary files below which a socket may lie."""
PRELOADED = "BENCH_PRELOADED"
"""In the environment of the process that workers are forked from: `GROUP=NAME` of plug-ins, a blank between them."""
_one_at_a_time = threading.Lock()
_asked_for: set[str] = set()


def warm_up(plugins: Iterable[str] = ()) -> None:
    """Start the process that workers are forked from; it imports torch, Avalanche and `plugins`, GROUP=NAME, meanwhile.

    Those that were asked for before are imported too, where it has to be started again.
    It and they never see SIGINT, SIGHUP and SIGUSR2: a terminal, and Slurm, send them to all, and this process says
    what they mean. Raises `RequestError` where there is no place for its socket.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["bench.train.preload"])
    from multiprocessing import forkserver, resource_tracker

    with _one_at_a_time:
        _place_sockets()
        _asked_for.update(plugins)
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2, signal.SIGHUP})
        try:
            with importing_what_is_installed({PRELOADED: " ".join(sorted(_asked_for))}):
                resource_tracker.ensure_running()  # it blocks SIGINT for a while, and would unblock it now
                signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
                forkserver.ensure_running()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def start(process: BaseProcess) -> BaseProcess:
    """Start a process that does not import the module which called this code: a script, or one that has no file.

    Nothing that is carried out refers to it, so it needs no `if __name__ == "__main__":`.
    """
    with _one_at_a_time:
        main = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            process.start()
        finally:
            sys.modules["__main__"] = main
    return process


def _place_sockets() -> None:
    """Have multiprocessing put its sockets where their paths are short enough: TMPDIR may be too long a path."""
    from multiprocessing.util import get_temp_dir

    usual = tempfile.gettempdir()
    others = (folder for folder in ("/tmp", "/var/tmp", "/dev/shm") if can_write(Path(folder)))
    for folder in (usual, *others):
        if len(os.fsencode(folder)) <= _LONGEST:
            tempfile.tempdir = folder
            try:
                get_temp_dir()  # makes a folder for all sockets of this process
            finally:
                tempfile.tempdir = usual
            return
    raise RequestError(
        f"TMPDIR={usual}: too long a path for a socket, and /tmp cannot be written to; set TMPDIR to a folder "
        f"of at most {_LONGEST} bytes, or use --jobs 1"
    )
