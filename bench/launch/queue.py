"""The queues that submitted jobs wait in: Slurm's, or processes of this machine that stand for jobs."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import psutil
from rich.console import Console

from bench.launch.submitted import Submitted, read_submitted, write_submitted
from bench.plan.folders import finished_at, out_of, run_folders
from bench.screen.words import several
from bench.settings.errors import RequestError

CLOCK_SECONDS = 2.0
"""By so much two looks at when a process started may differ."""


def queue_states(records: Iterable[Submitted | None]) -> dict[str, str] | None:
    """Return the state of each of these jobs that is still in its queue, and of the others of the users who gave them.

    None where a queue does not answer.
    """
    given = [record for record in records if record]
    states = {record.job: "RUNNING" for record in given if record.job and _process(record)}
    users = {record.user for record in given if record.cluster == "slurm"}
    if users:
        try:
            states.update(_squeue(users))
        except (OSError, subprocess.SubprocessError):
            return None
    return states


def is_queued(record: Submitted | None, queue: Collection[str]) -> bool:
    """Return whether a run is going to be made, as its job is in the queue."""
    return record is not None and record.job in queue


def _squeue(users: Collection[str]) -> Iterator[tuple[str, str]]:
    """Yield the id and the state, with its reason, of every element of these users' jobs."""
    command = ["squeue", "--noheader", "--array", "--format=%i|%T|%r", "--user", ",".join(sorted(users))]
    answer = subprocess.run(command, env=_plain(), capture_output=True, text=True, check=True, timeout=60)
    for line in answer.stdout.splitlines():
        if line.count("|") >= 2:  # else it is the name of a cluster
            job, state, reason = line.strip().split("|", 2)
            yield job, state if reason == "None" else f"{state} ({reason})"


def _plain() -> dict[str, str]:
    """Return the environment without a person's own defaults for these commands, such as which states are shown."""
    return {key: value for key, value in os.environ.items() if not key.startswith(("SQUEUE_", "SCANCEL_"))}


def started(pid: int) -> float | None:
    """Return when a process started, in seconds since the epoch; None if there is none."""
    with suppress(psutil.Error):
        return psutil.Process(pid).create_time()
    return None


def _process(record: Submitted) -> psutil.Process | None:
    """Return the process that is a job of this machine; another one may have got its number since."""
    if record.cluster != "local" or not record.job or not record.job.isdigit() or record.started is None:
        return None
    then = started(int(record.job))
    alike = then is not None and abs(then - record.started) < CLOCK_SECONDS
    return psutil.Process(int(record.job)) if alike else None


def cancel(runs: Sequence[Path], console: Console) -> None:
    """Take runs out of their queue, with the base models that no other run waits for; what they have done stays."""
    records = {run: record for run in runs if not finished_at(run) and (record := read_submitted(run))}
    queue = queue_states(records.values())
    if queue is None:
        raise RequestError("the queue does not answer (squeue)")
    cancelled = {run.resolve(): r for run, r in records.items() if is_queued(r, queue) or r.base_job in queue}
    beside = {run for out in {out_of(run) for run in cancelled} for run in run_folders(out)} - cancelled.keys()
    awaited = {record.base_job for run in beside if (record := read_submitted(run)) and is_queued(record, queue)}
    bases = {r.base_job for r in cancelled.values() if r.base_job in queue and r.base_job not in awaited}
    _scancel([*(r.job for r in cancelled.values() if r.cluster == "slurm" and r.job in queue), *bases])
    for run, record in cancelled.items():
        if process := _process(record):
            _kill(process)
        write_submitted(run, None)
    if cancelled:
        console.print(
            f"{several(len(cancelled), 'run')} cancelled, {several(len(bases), 'base model')} with them",
            highlight=False,
        )
    else:
        console.print("nothing to cancel: none of these runs is in the queue", highlight=False)


def end_jobs(cluster: str, jobs: Sequence[str]) -> None:
    """Take jobs that were submitted just now out of their queue; raise `RequestError` where that is refused."""
    if cluster == "slurm":
        _scancel(jobs)
        return
    for job in jobs:
        with suppress(psutil.NoSuchProcess):
            _kill(psutil.Process(int(job)))


def _scancel(jobs: Sequence[str | None]) -> None:
    """Take jobs out of Slurm's queue; raise `RequestError` where that is refused."""
    if not jobs:
        return
    done = subprocess.run(["scancel", *map(str, jobs)], env=_plain(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RequestError(f"scancel: {' '.join(done.stderr.split())}")


def _kill(process: psutil.Process) -> None:
    """End a process and all that it started, which may not listen to anything less."""
    with suppress(psutil.NoSuchProcess):
        family = [process, *process.children(recursive=True)]
        for one in family:
            with suppress(psutil.NoSuchProcess):
                one.kill()
