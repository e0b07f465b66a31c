"""Requests executed: the runs that are not finished are made, and all are read back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rich.console import Console

from bench import pool
from bench.planning import Plan, Request, prepare
from bench.view import make_view
from reports.records import Run, read_run

if TYPE_CHECKING:
    import pandas as pd

    from bench.runner import BaseJob, RunJob


@dataclass
class Result:
    """The finished runs of a request and what failed, by job."""

    runs: list[Run]
    failures: dict[str, str] = field(default_factory=dict)

    @property
    def frame(self) -> pd.DataFrame:
        """One row per run and step; see `reports.tables.frame` for the columns."""
        from reports.tables import frame

        return frame(self.runs)


def run(request: Request, console: Console) -> Result:
    """Make every run of a request that is not finished; raise `RequestError` or `DataError` before any work."""
    return execute(prepare(request, console), console)


def prepare_all(requests: Sequence[Request], console: Console) -> Plan:
    """Return the jobs of several requests together."""
    first, *others = (prepare(request, console) for request in requests)
    return sum(others, first)


def execute(plan: Plan, console: Console) -> Result:
    """Make a plan's base models and runs."""
    failures = _make(plan, console)
    finished = [read_run(folder) for folder in plan.folders if (folder / "done").is_file()]
    return Result(finished, failures)


def _make(plan: Plan, console: Console) -> dict[str, str]:
    jobs: list[BaseJob | RunJob] = [*plan.bases.values(), *plan.runs]
    jobs.sort(key=lambda job: (job.key in plan.needs, -job.weight))  # long ones first, none before what it needs
    skipped = len(plan.folders) - len(plan.runs)
    if skipped:
        console.print(f"{skipped} of {len(plan.folders)} runs are finished already", highlight=False)
    with make_view(console, {job.key: job.weight for job in jobs}) as view:
        if plan.kept_bases:
            view.note(f"{len(plan.kept_bases)} base model(s) from the cache")
        failures = pool.run_jobs(jobs, plan.needs, plan.workers, view)
    for job in plan.runs:
        if job.key in failures:
            job.folder.mkdir(parents=True, exist_ok=True)
            (job.folder / "error.txt").write_text(failures[job.key])
    return failures
