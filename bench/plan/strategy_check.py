"""Whether a strategy that is installed can be used, found out where its code can do no harm."""

from __future__ import annotations

import multiprocessing
from contextlib import suppress
from multiprocessing.connection import Connection

from bench.screen.faults import explained_exit
from bench.settings.errors import MissingSettingError, RequestError
from bench.settings.strategies import StrategyRequest, base_recipe, method_parameters
from strategies.learning import method as method  # so that it is imported once, before the processes are forked
from strategies.learning.registry import BrokenStrategyError

_SECONDS_TO_END = 1.0


def problem_of(name: str) -> str | None:
    """Return in one line why a strategy cannot be used; None where nothing speaks against it.

    It is looked at in a process of its own, which it may end or crash.
    """
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_tell_problem, args=(name, theirs))
    process.start()
    theirs.close()
    try:
        problem: str | None = ours.recv()
    except EOFError:
        process.join()
        return f"cannot be imported: {explained_exit(process.exitcode)}"
    process.join(_SECONDS_TO_END)
    process.kill()
    return problem


def _tell_problem(name: str, to_parent: Connection) -> None:
    with suppress(KeyboardInterrupt):  # a terminal sends it to all
        to_parent.send(_problem(name))


def _problem(name: str) -> str | None:
    """Import a strategy and ask it, with the defaults of its parameters, which base model it needs."""
    request = StrategyRequest(name)
    try:
        parameters = method_parameters(request)
        base_recipe(request, parameters)
    except BrokenStrategyError as error:
        return error.reason
    except MissingSettingError:  # its parameters have no defaults
        return None
    except RequestError as error:
        return f"refuses its own defaults: {error}"
    return None
