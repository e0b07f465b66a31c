"""Ctrl-C and SIGTERM: the first asks for a stop at the next checkpoint, the second stops at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Stopped(Exception):
    """Work has ended after a checkpoint because a stop was asked for."""


_asked = threading.Event()


def stop_asked() -> bool:
    """Return whether work is to end at its next checkpoint."""
    return _asked.is_set()


def ask_to_stop(*signal_and_frame: object) -> None:
    """Ask for it; can be a signal's handler."""
    _asked.set()


def stop_if_asked() -> None:
    """Raise `Stopped` where a stop was asked for; to be called where a checkpoint has been written."""
    if _asked.is_set():
        raise Stopped


@contextmanager
def signals_heeded(say: Callable[[str], None]) -> Iterator[None]:
    """In a block of the main thread, the first SIGINT or SIGTERM asks for a stop and the second interrupts."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    own = os.getpid()
    told = "stopping at the next checkpoint; once more (Ctrl-C) stops at once"

    def heed(number: int, frame: object) -> None:
        if os.getpid() != own:  # in a forked process, such as one that reads images
            return
        if _asked.is_set():
            raise KeyboardInterrupt
        _asked.set()
        threading.Thread(target=say, args=[told]).start()  # this one may be in the middle of saying something

    before = {number: signal.signal(number, heed) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _asked.clear()


@contextmanager
def interrupts_wait() -> Iterator[None]:
    """Have Ctrl-C wait for the end of a block of the main thread; processes started in it never see it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    waiting: list[int] = []
    handler = signal.signal(signal.SIGINT, lambda number, frame: waiting.append(number))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # what is started inherits it
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGINT, handler)
        if waiting:
            signal.raise_signal(signal.SIGINT)
