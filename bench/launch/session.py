"""Requests executed: the runs that are not finished are made here or submitted, and all are read back."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from bench.launch.execution import Result, execute_here, leave_kept_bases, read_finished, say_stale
from bench.launch.slurm import submit
from bench.plan.plan import Plan
from bench.plan.planning import asked, plan_of, plugins_named
from bench.plan.request import Request
from bench.settings.errors import RequestError
from bench.train.forkserver import warm_up


def run(request: Request, console: Console) -> Result:
    """Make every run of a request that is not finished; raise `RequestError` or `DataError` before any work."""
    return execute(prepare(request, console), console)


def prepare(request: Request, console: Console) -> Plan:
    """Check a request, read its images and return its jobs; raise `RequestError` or `DataError` before any work."""
    if request.launcher == "local" and request.jobs != 1:
        warm_up(plugins_named(request))  # it imports meanwhile what the request's processes are forked with
    plan = plan_of(asked(request), console)
    _require_different(plan)
    leave_kept_bases(plan)
    return plan


def _require_different(plan: Plan) -> None:
    """Raise `RequestError` where two strategies of a request have the same settings: their runs would be the same."""
    labels: dict[str, str] = {}
    for folder in plan.folders:
        label = labels.setdefault(folder.name, folder.parent.name)
        if label != folder.parent.name:
            same = f"{label} and {folder.parent.name} have the same settings"
            raise RequestError(f"--strategies names one method twice: {same}")


def prepare_all(requests: Sequence[Request], console: Console) -> Plan:
    """Return the jobs of several requests together."""
    first, *others = (prepare(request, console) for request in requests)
    return sum(others, first)


def execute(plan: Plan, console: Console) -> Result:
    """Make a plan's base models and runs, or submit them."""
    if not plan.slurm:
        return execute_here(plan, console)
    say_stale(plan, console)
    failures = submit(plan, plan.slurm, console)
    finished, damaged = read_finished(plan)
    return Result(finished, {**failures, **damaged})
