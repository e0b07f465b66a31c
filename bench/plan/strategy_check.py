"""Whether a strategy that is installed can be used, found out where its code can do no harm."""

from __future__ import annotations

from bench.plan.own_process import EndedError, answer_of
from bench.settings.errors import MissingSettingError, RequestError
from bench.settings.strategies import StrategyRequest, base_recipe, method_parameters
from strategies.learning import method as method  # so that it is imported once, before the processes are forked
from strategies.plugins.registry import BrokenPluginError


def problem_of(name: str) -> str | None:
    """Return in one line why a strategy cannot be used; None where nothing speaks against it.

    It is looked at in a process of its own, which it may end or crash.
    """
    try:
        return answer_of(_problem, name)
    except EndedError as error:
        return f"cannot be imported: {error}"


def _problem(name: str) -> str | None:
    """Import a strategy and ask it, with the defaults of its parameters, which base model it needs."""
    request = StrategyRequest(name)
    try:
        parameters = method_parameters(request)
        base_recipe(request, parameters)
    except BrokenPluginError as error:
        return error.reason
    except MissingSettingError:  # its parameters have no defaults
        return None
    except RequestError as error:
        return f"refuses its own defaults: {error}"
    return None
