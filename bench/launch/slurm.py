"""Runs on a cluster: submitted through submitit."""

from __future__ import annotations

import errno
import os
import pwd
import resource
import shlex
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.launch.announcing import hand_over
from bench.launch.claims import Claims
from bench.launch.directory import RunDirectory
from bench.launch.executor import FOLDER, arrays, cores_and_gpus, new_executor, submitted
from bench.launch.queue import end_jobs, is_queued, queue_states, started
from bench.launch.submitted import Submitted, read_submitted, write_submitted
from bench.plan.code import copy_code
from bench.plan.folders import run_folders
from bench.plan.job import BaseJob, RunJob
from bench.plan.plan import Plan
from bench.screen.stopping import ends_interrupt, interrupts_wait
from bench.screen.words import several
from bench.settings.errors import RequestError
from bench.settings.slurm import SlurmSettings
from bench.train.work import made
from benchmarks.cache import DISK_FULL
from reports.atomic import SetAside


def submit(plan: Plan, settings: SlurmSettings, console: Console) -> dict[str, str]:
    """Submit a plan's runs and the base models they need; return by run what stands in the way of those left out.

    Runs that are in the queue already, or that a process is making or has made, are left alone. Raises `RequestError`
    where the queue does not answer, or refuses; then nothing of what was to be submitted stays there, and the runs'
    directories are as they were. So it is after Ctrl-C, SIGTERM and SIGHUP.
    """
    if not plan.runs:
        return {}
    out = plan.runs[0].out
    code = copy_code(out / FOLDER / "code").resolve()
    open_files = _allow_open_files()
    with Claims() as claims, ends_interrupt():
        free, failures = _claimed(plan.runs, claims)
        places = {*run_folders(out), *(run.folder for run in free)}
        records = {place: record for place in places if (record := read_submitted(place))}
        queue = queue_states(records.values())
        if queue is None:
            raise RequestError("--launcher slurm: the queue does not answer (squeue)")
        runs = [run for run in free if not is_queued(records.get(run.folder), queue)]
        if runs:
            alike = [record for record in records.values() if record.cluster == settings.cluster]
            given = {r.base_hash: r.base_job for r in alike if r.base_hash and r.base_job in queue}
            executor = new_executor(settings, out, code, open_files)
            submission = _Submission(plan, settings, code, executor, given, console)
            submission.make(runs, records)
            submission.say(len(plan.runs) - len(runs) - len(failures), out)
        elif not failures:
            console.print(_NOTHING, highlight=False)
    return failures


def _claimed(runs: Sequence[RunJob], claims: Claims) -> tuple[list[RunJob], dict[str, str]]:
    """Return those of the runs that nobody makes or has made, claimed, and by run what stands in the way of others."""
    free, failures = [], {}
    for run in runs:
        try:
            if claims.take(run.claim) and not made(run):
                free.append(run)
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                most = "one run takes one: raise `ulimit -n`, or submit fewer at once"
                raise RequestError(f"--launcher slurm: {len(runs)} runs, too many open files; {most}") from None
            if error.errno in DISK_FULL:
                raise
            failures[run.key] = str(error)
    return free, failures


def _allow_open_files() -> int:
    """Let this process hold as many claims, so open files, as it may at all; return how many it might before."""
    before, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return before


_NOTHING = "nothing to submit: what is not finished is in the queue, by the code it was submitted with, or being made"


@dataclass
class _Submission:
    """What goes into the queue, and what has gone."""

    plan: Plan
    settings: SlurmSettings
    code: Path
    executor: Any
    """submitit's."""
    base_jobs: dict[str, str]
    """By the base models' hashes: those in the queue, to begin with those of earlier submissions."""
    console: Console
    bases: list[str] = field(default_factory=list)
    """Jobs of base models that were submitted now."""
    jobs: list[str] = field(default_factory=list)
    """Jobs of runs."""
    awaited: list[str] = field(default_factory=list)
    """Jobs of base models that these wait for."""

    def make(self, runs: Sequence[RunJob], records: Mapping[Path, Submitted]) -> None:
        """Submit runs after the base models they need, and write it down as it goes; take all back if it fails.

        `records` tells what was submitted before.
        """
        before: list[SetAside] = []
        try:
            with interrupts_wait():
                for run in runs:
                    before.append(hand_over(run))
            self._submit_bases(runs)
            for run in runs:
                self._note(run, None)
            self._submit_runs(runs)
        except BaseException:
            with interrupts_wait():
                self._take_back(runs, records, before)
            raise
        with interrupts_wait():
            for files in before:
                files.discard()

    def _take_back(self, runs: Sequence[RunJob], records: Mapping[Path, Submitted], before: Sequence[SetAside]) -> None:
        """Cancel what was submitted and put the directories in order; say what cannot be."""
        for files in before:
            self._attempt(files.restore)
        jobs = [*self.jobs, *self.bases]
        if self._attempt(lambda: end_jobs(self.settings.cluster, jobs), f"jobs {', '.join(jobs)} are not cancelled"):
            for run in runs:
                self._attempt(partial(write_submitted, run.folder, records.get(run.folder)))

    def _attempt(self, action: Callable[[], object], otherwise: str = "not as it was") -> bool:
        try:
            action()
        except (OSError, RequestError, subprocess.SubprocessError) as error:
            self._say(f"{otherwise}: {error}")
            return False
        return True

    def _submit_bases(self, runs: Sequence[RunJob]) -> None:
        """Submit the base models that runs need, each by the first run that does.

        submitit's local processes know no dependencies: there each run sees to its base model, or awaits it.
        """
        first: dict[str, RunJob] = {}
        for run in runs:
            if (needed := self._needed_base(run)) and needed not in self.base_jobs:
                first.setdefault(needed, run)
        if not first or self.settings.cluster == "local":
            return
        bases = [self.plan.bases[base_hash] for base_hash in first]
        self.executor.update_parameters(name="bench-base", **cores_and_gpus(self.settings, bases))
        for part in arrays(list(first)):
            with interrupts_wait():
                jobs = submitted(self.executor, [self._directory(first[one], base_only=True) for one in part])
                self.base_jobs.update({one: job.job_id for one, job in zip(part, jobs, strict=True)})
                self.bases += [job.job_id for job in jobs]

    def _needed_base(self, run: RunJob) -> str | None:
        """Return the hash of the base model that a run waits for."""
        base_hash: str = (run.spec["base"] or {}).get("hash", "")
        return base_hash if base_hash in self.plan.bases else None

    def _submit_runs(self, runs: Sequence[RunJob]) -> None:
        own_bases: list[BaseJob] = []
        if self.settings.cluster == "local":
            own_bases = list(self.plan.bases.values())
        self.awaited = [job for run in runs if (job := self._base_job(run))]
        if self.awaited:
            self.executor.update_parameters(slurm_dependency=f"afterany:{':'.join(_numbers(self.awaited))}")
        self.executor.update_parameters(name="bench", **cores_and_gpus(self.settings, [*runs, *own_bases]))
        for part in arrays(runs):
            with interrupts_wait():
                jobs = submitted(self.executor, [self._directory(run) for run in part])
                self.jobs += [job.job_id for job in jobs]
            for run, job in zip(part, jobs, strict=True):
                self._note(run, job)

    def _base_job(self, run: RunJob) -> str | None:
        return self.base_jobs.get(self._needed_base(run) or "")

    def _note(self, run: RunJob, job: Any) -> None:
        """Write down a run's job, or that its base model alone is submitted."""
        local = self.settings.cluster == "local"
        record = Submitted(
            cluster=self.settings.cluster,
            user=_user(),
            job=job and job.job_id,
            base_job=self._base_job(run),
            base_hash=self._needed_base(run),
            log=job and str(job.paths.stderr),
            code=str(self.code),
            folder=str(run.folder.resolve()),
            started=started(int(job.job_id)) if job and local else None,
        )
        write_submitted(run.folder, record)

    def _directory(self, run: RunJob, base_only: bool = False) -> RunDirectory:
        grace = max(1, self.settings.signal_delay_s * 2 // 3)
        return RunDirectory(run.folder.resolve(), base_only, run.verbose, run.loggers, Path.cwd(), grace)

    def say(self, others: int, out: Path) -> None:
        """Tell what was submitted, and of how many runs that was not needed."""
        if self.bases:
            self._say(f"{several(len(self.bases), 'base model')} submitted as job {', '.join(_numbers(self.bases))}")
        after = ", after their base models" if self.awaited else ""
        self._say(f"{several(len(self.jobs), 'run')} submitted as job {', '.join(_numbers(self.jobs))}{after}")
        if others:
            self._say(f"{several(others, 'run')} in the queue already, being made, or just finished")
        command = shlex.join(["bench", "status", f"--runs={out}"])
        self._say(f"{command}   tells how they are; nothing here needs to go on running")

    def _say(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)


def _user() -> str:
    """Return whose jobs these are, whatever the environment says; a number where it has no name."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _numbers(ids: Iterable[str]) -> list[str]:
    """Return the ids of the arrays whose elements these are."""
    return list(dict.fromkeys(job.partition("_")[0] for job in ids))
