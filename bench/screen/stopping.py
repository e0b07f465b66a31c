"""Ctrl-C, SIGTERM, SIGHUP: the first asks for a stop at the next checkpoint, the second stops at once."""

from __future__ import annotations

import errno
import os
import signal
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


class Stopped(Exception):
    """Work has ended after a checkpoint because a stop was asked for."""


class Interrupted(KeyboardInterrupt):
    """A signal has ended what was under way."""

    def __init__(self, number: int = signal.SIGINT) -> None:
        self.number = number


@dataclass
class Heeded:
    """What has asked for a stop: the first signal, or nothing yet."""

    number: int | None = None


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


_ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C, `kill`, a terminal that is closed."""


@contextmanager
def signals_heeded(say: Callable[[str], None]) -> Iterator[Heeded]:
    """In a block of the main thread, the first signal to end asks for a stop and the second interrupts."""
    heeded = Heeded()
    if threading.current_thread() is not threading.main_thread():
        yield heeded
        return
    own = os.getpid()
    told = "stopping at the next checkpoint; once more (Ctrl-C) stops at once"

    def heed(number: int, frame: FrameType | None) -> None:
        if os.getpid() != own:  # in a forked process, such as one that reads images
            return
        _leave_closed_terminal()
        if _asked.is_set():
            raise Interrupted(number)
        heeded.number = number
        _asked.set()
        threading.Thread(target=say, args=[told]).start()  # this one may be in the middle of saying something

    with _handling(heed):
        try:
            yield heeded
        finally:
            _asked.clear()


@contextmanager
def ends_interrupt() -> Iterator[None]:
    """In a block of the main thread, whatever asks this process to end does it like Ctrl-C: by `Interrupted`."""
    own = os.getpid()

    def interrupt(number: int, frame: FrameType | None) -> None:
        if os.getpid() != own:  # in a forked process
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        _leave_closed_terminal()
        raise Interrupted(number)

    with _handling(interrupt):
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


def _leave_closed_terminal() -> None:
    """Have what is printed to a terminal that is closed go nowhere: to say something must not end the work."""
    for stream in filter(None, (sys.__stdout__, sys.__stderr__)):
        try:
            termios.tcgetattr(stream.fileno())
        except (OSError, ValueError):  # closed, or not of the system
            pass
        except termios.error as error:
            if error.args[0] == errno.EIO:
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
