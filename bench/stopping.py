"""Ctrl-C and SIGTERM: the first asks for a stop at the next checkpoint, the second stops at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


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


_ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C, `kill`, a terminal that is closed."""


@contextmanager
def ends_interrupt() -> Iterator[None]:
    """In a block of the main thread, whatever asks this process to end does it like Ctrl-C: by KeyboardInterrupt."""
    with _handling(signal.default_int_handler):
        yield


@contextmanager
def interrupts_wait() -> Iterator[None]:
    """In a block of the main thread, have what asks this process to end wait.

    What is started there never sees what a terminal sends to all.
    """
    waiting: list[int] = []
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
    try:
        with _handling(lambda number, frame: waiting.append(number)):
            yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    if waiting:
        signal.raise_signal(waiting[0])


@contextmanager
def _handling(handler: Callable[[int, FrameType | None], object]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heeded = [number for number in _ENDS if signal.getsignal(number) != signal.SIG_IGN]  # not so below `nohup`
    before = {number: signal.signal(number, handler) for number in heeded}
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)
