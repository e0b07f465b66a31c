"""A plan executed on this machine: what is not finished is made, and all is read back."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from bench.launch import pool
from bench.launch.agenda import Ended
from bench.launch.announcing import announce
from bench.launch.claims import Claims
from bench.plan.described import prepare_one
from bench.plan.folders import claim_of, finished_at
from bench.plan.plan import Plan
from bench.plan.stale import stale_text
from bench.screen.events import last_line
from bench.screen.log import last_lines
from bench.screen.stopping import Heeded, signals_heeded
from bench.screen.view import make_view
from bench.screen.words import several
from bench.train.kept import base_checkpoint, base_model
from bench.train.work import Work, made
from benchmarks.cache import cache_folder
from reports.counting import by_conventions
from reports.files import RecordError
from reports.records import Run, read_run

if TYPE_CHECKING:
    import pandas as pd


LOG_LINES = 6
"""Of a failed job's log that are shown at the end."""


@dataclass
class Result:
    """The finished runs of a request and what failed, by job."""

    runs: list[Run]
    failures: dict[str, str] = field(default_factory=dict)
    stopped: list[str] = field(default_factory=list)
    """Jobs that a stop or an obstacle kept from their end: the same request goes on with them."""
    untouched: list[str] = field(default_factory=list)
    """Runs among these that were to be made again: what was finished before is as it was."""
    obstacle: str | None = None
    """What kept them from it, where it was not a person's wish."""
    logs: dict[str, Path] = field(default_factory=dict)
    """Of the jobs that were started here, by job."""
    stopped_by: int = signal.SIGINT
    """The signal that asked for the stop, where it was stopped."""

    @property
    def interrupted(self) -> bool:
        """Whether somebody stopped it, a person or the system."""
        return bool(self.stopped) and self.obstacle is None

    @property
    def frame(self) -> pd.DataFrame:
        """One row per run and step; see `reports.tables.frame` for the columns."""
        from reports.tables import frame

        return frame(self.runs)


def run_one(
    folder: Path,
    console: Console,
    base_only: bool = False,
    verbose: bool = False,
    loggers: Sequence[str] = (),
    heed_signals: bool = True,
) -> Result:
    """Make the run that a directory describes, or the base model that it needs, in the calling process.

    Raises `RequestError`, `DataError` or `RecordError` before any work where it cannot be made as described.
    """
    plan = prepare_one(folder, verbose, loggers, console)
    if base_only:
        plan.runs, plan.needs, plan.folders = [], {}, []
    leave_kept_bases(plan)
    return execute_here(plan, console, heed_signals)


def leave_kept_bases(plan: Plan) -> None:
    """Drop from a plan the base models that are kept, and sound; raise `DataError` where others could not be."""
    for base_hash, job in list(plan.bases.items()):
        if made(job):
            plan.leave_base(base_hash)
        else:
            cache_folder("bases", write=True)


def execute_here(plan: Plan, console: Console, heed_signals: bool = True) -> Result:
    """Make a plan's base models and runs.

    In the main thread the first SIGINT, SIGTERM or SIGHUP ends that at the next checkpoints, unless `heed_signals` is
    false.
    """
    _tidy(plan)
    ended, heeded = _make(plan, console, heed_signals)
    finished, damaged = read_finished(plan)
    logs = {job.key: job.log for job in plan.jobs if job.key in ended.started}
    untouched = [
        run.key
        for run in plan.runs
        if run.key in ended.stopped and run.finished_before and finished_at(run.folder) == run.finished_before
    ]
    failures = {**ended.failures, **damaged}
    by = heeded.number or signal.SIGINT
    return Result(finished, failures, ended.stopped, untouched, ended.obstacle, logs, by)


def read_finished(plan: Plan) -> tuple[list[Run], dict[str, str]]:
    """Return a plan's finished runs, and by directory what is wrong with those that are damaged."""
    runs, damaged = [], {}
    for folder in filter(finished_at, plan.folders):
        try:
            runs.append(by_conventions(read_run(folder), plan.conventions[folder]))
        except RecordError as error:
            damaged[str(folder)] = f"{error}; without its `done`, the run is made again"
    return runs, damaged


def _tidy(plan: Plan) -> None:
    """Delete what was left by processes that were killed when a run or a base model was finished and they were not."""
    left = [(claim_of(run), [run / "checkpoint", run / "error.txt"]) for run in plan.folders if finished_at(run)]
    for base_hash in plan.kept_bases:
        left.append((base_model(base_hash).path.with_suffix(".claim"), [base_checkpoint(base_hash).path]))
    with Claims() as claims, suppress(OSError):
        for claim, scraps in left:
            if any(path.exists() for path in (claim, *scraps)) and claims.take(claim):
                for scrap in scraps:
                    shutil.rmtree(scrap) if scrap.is_dir() else scrap.unlink(missing_ok=True)
                claims.release(claim)


def say_end(result: Result, console: Console) -> int:
    """Print what failed, with the end of its log, and what was stopped; return the exit status."""

    def say(text: str, style: str | None = None) -> None:
        console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)

    for job, failure in result.failures.items():
        say(f"failed: {job}: {last_line(failure)}", "red")
        if job in result.logs:
            say(f"  the end of {result.logs[job]}:")
            for line in last_lines(result.logs[job], LOG_LINES):
                if last_line(failure) not in line:
                    say(f"  | {line}")
    if result.obstacle:
        say(result.obstacle, "red")
    if unfinished := len(result.stopped) - len(result.untouched):
        say(f"{several(unfinished, 'job')} not finished; the same command, without --overwrite, goes on with them")
    if result.untouched:
        say(f"{several(len(result.untouched), 'finished run')} not begun again and as before; --overwrite begins them:")
        for run in result.untouched:
            say(f"  {run}")
    if result.interrupted:
        return 128 + result.stopped_by
    return 1 if result.failures or result.obstacle else 0


def say_stale(plan: Plan, console: Console) -> None:
    """Say how many of the finished runs that stay would not be made so any more, and why."""
    if plan.stale:
        text = stale_text(plan.stale, len(plan.folders) - len(plan.runs))
        console.print(text, style="yellow", markup=False, highlight=False, soft_wrap=True)


def _make(plan: Plan, console: Console, heed_signals: bool) -> tuple[Ended, Heeded]:
    jobs = sorted(plan.jobs, key=lambda job: (job.key in plan.needs, -job.weight))  # long first, none before its need
    skipped = len(plan.folders) - len(plan.runs)
    if skipped:
        console.print(f"{skipped} of {len(plan.folders)} runs are finished already", highlight=False)
    say_stale(plan, console)
    with make_view(console, {job.key: job.weight for job in jobs}) as view:
        if plan.kept_bases:
            view.note(f"{several(len(plan.kept_bases), 'base model')} from the cache")
        with signals_heeded(view.note) if heed_signals else nullcontext(Heeded()) as heeded:
            for run in plan.runs:
                announce(run)
            work = [Work(job) for job in jobs]
            return pool.run_jobs(work, plan.needs, plan.workers, view, plan.gpus), heeded
