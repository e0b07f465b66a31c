"""The first thing of a command: from here on no module comes from the working directory, and Ctrl-C is one line.

Until then Python itself starts, of which nobody here has a say. So this imports nothing but what Python has by then.
"""

from __future__ import annotations

import os
import sys

from bench.interrupted import say_interrupted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import NoReturn

_TOP = os.path.realpath(__file__).rsplit(os.sep, 2)[0]
"""The folder of the packages of which this one is part."""


def main() -> NoReturn:
    """Run a command and exit with its status, 128 + n where signal n has ended it."""
    forget_working_directory()
    end_in_one_line()
    from bench.cli.entry import main as command

    command()


def forget_working_directory() -> None:
    """Take the working directory off the path of modules, unless this code lies there.

    `python -m bench` puts it there, and an empty entry of PYTHONPATH.
    """
    try:
        here = os.path.realpath(".")
    except FileNotFoundError:  # it was deleted
        return
    if here != _TOP:
        sys.path[:] = [path for path in sys.path if os.path.realpath(path) != here]


def end_in_one_line() -> None:
    """Have what asks this process to end do so at once, where nothing is under way that could be left in pieces."""
    import signal

    own = os.getpid()

    def end(number: int, frame: FrameType | None) -> None:
        if os.getpid() == own:
            say_interrupted(number)
        os._exit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # not so below `nohup`
            signal.signal(number, end)
