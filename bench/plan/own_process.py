"""Questions about code of others, answered where it can do no harm."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import TypeVar

from bench.screen.faults import explained_exit

T = TypeVar("T")
_SECONDS_TO_END = 1.0


class EndedError(RuntimeError):
    """The process ended before it answered: how, in one line."""


def answer_of(question: Callable[[str], T], name: str) -> T:
    """Return what a function says of a plug-in, called in a process of its own, which it may end or crash.

    Raises `EndedError`.
    """
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_tell, args=(question, name, theirs))
    process.start()
    theirs.close()
    try:
        answer: T = ours.recv()
    except EOFError:
        process.join()
        raise EndedError(explained_exit(process.exitcode)) from None
    process.join(_SECONDS_TO_END)
    process.kill()
    return answer


def _tell(question: Callable[[str], object], name: str, to_parent: Connection) -> None:
    with suppress(KeyboardInterrupt):  # a terminal sends it to all
        to_parent.send(question(name))
