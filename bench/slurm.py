"""Runs on a cluster: submitted through submitit, and what a job there does."""

from __future__ import annotations

import errno
import io
import os
import pwd
import re
import resource
import shlex
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import redirect_stderr, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import Field
from pydantic.dataclasses import dataclass as validated
from rich.console import Console

from bench.claims import Claims
from bench.code import copy_code
from bench.config import RequestError
from bench.folders import run_folders
from bench.queue import end_jobs, is_queued, queue_states, started
from bench.stopping import ask_to_stop, ends_interrupt, interrupts_wait, stop_asked
from bench.submitted import Submitted, read_submitted, write_submitted
from benchmarks.cache import DISK_FULL, cache_folder
from benchmarks.errors import DataError
from reports.atomic import SetAside, write_atomic
from reports.records import RecordError
from strategies.protocol import STRICT

if TYPE_CHECKING:
    from bench.jobs import BaseJob, RunJob
    from bench.planning import Plan

T = TypeVar("T")
FOLDER = ".submitted"
"""Below the output folder: what submitit writes, and the copies of the code."""


@validated(frozen=True, config=STRICT)
class SlurmSettings:
    """What each job asks for, in Slurm's words; what is None is left to the cluster."""

    cluster: Literal["slurm", "local"] = "slurm"
    """`local`: submitit's processes on this machine, all at once, to try a submission out."""
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    nodelist: str | None = None
    exclude: str | None = None
    timeout_min: Annotated[int, Field(ge=1)] = 240
    """A job that reaches it goes on in a new one."""
    array_parallelism: Annotated[int, Field(ge=1)] = 16
    """Jobs of an array that run at once."""
    gpus_per_node: Annotated[int, Field(ge=0)] | None = None
    """By default as many as the run's devices, where it is computed on GPUs."""
    cpus_per_task: Annotated[int, Field(ge=1)] | None = None
    """By default the run's threads and the workers that read its images, as often as it has devices."""
    mem_gb: Annotated[float, Field(gt=0)] | None = None
    signal_delay_s: Annotated[int, Field(ge=1)] = 90
    """So long before its time is up a job is told; it is put back into the queue behind its next checkpoint."""
    max_num_timeout: Annotated[int, Field(ge=0)] = 100
    """How often a job may reach its time limit."""
    setup: list[str] = Field(default_factory=list)
    """Shell commands before the run, such as `module load cuda`."""
    additional_parameters: dict[str, Any] = Field(default_factory=dict)
    """Any other option of sbatch, by its long name."""


@dataclass(frozen=True)
class RunDirectory:
    """What a job does: `bench run-one` on a directory.

    Told that its time is up, it stops behind its next checkpoint, or at once when the grace is over, and is put back
    into the queue.
    """

    folder: Path
    base_only: bool
    verbose: bool
    loggers: tuple[str, ...]
    working_folder: Path
    """Whose paths the request was made with."""
    grace_s: int
    """How long the next checkpoint is waited for."""

    def __call__(self) -> None:
        """Make the run, or its base model alone; raise RuntimeError where that fails, so that the job fails too."""
        os.chdir(self.working_folder)
        from bench.session import run_one, say_end

        put_back = self._heed_submitit()
        os.register_at_fork(after_in_child=_leave_signals)
        console = Console(width=120)
        try:
            result = run_one(self.folder, console, self.base_only, self.verbose, self.loggers, heed_signals=False)
        except (RequestError, DataError, RecordError) as error:
            write_atomic(self.folder / "error.txt", " ".join(str(error).split()))
            raise
        finally:
            signal.alarm(0)
        if say_end(result, console):
            if result.interrupted:
                put_back(signal.SIGUSR2, None)
            raise RuntimeError(f"{self.folder} is not finished")

    def _heed_submitit(self) -> Callable[[int, None], object]:
        """Have the signal that submitit answers by putting the job back wait for a checkpoint; return the answer."""
        put_back: Any = signal.getsignal(signal.SIGUSR2)

        def told(number: int, frame: object) -> None:
            if not stop_asked():
                ask_to_stop()
                signal.signal(signal.SIGALRM, put_back)
                signal.alarm(self.grace_s)

        signal.signal(signal.SIGUSR2, told)
        answer: Callable[[int, None], object] = put_back
        return answer

    def checkpoint(self) -> Any:
        """Return what goes on with it: the same, as the run's own checkpoints tell where it was."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def _leave_signals() -> None:
    """In a forked process, such as one that reads images: what a job is told by signals is for its first process."""
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGCONT):
        signal.signal(number, signal.SIG_DFL)


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
            executor = _executor(settings, out, code, open_files)
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
            if claims.take(run.claim) and not run.made():
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
                    before.append(run.hand_over())
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
        self.executor.update_parameters(name="bench-base", **_cores_and_gpus(self.settings, bases))
        for part in _arrays(list(first)):
            with interrupts_wait():
                jobs = _submitted(self.executor, [self._directory(first[one], base_only=True) for one in part])
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
        self.executor.update_parameters(name="bench", **_cores_and_gpus(self.settings, [*runs, *own_bases]))
        for part in _arrays(runs):
            with interrupts_wait():
                jobs = _submitted(self.executor, [self._directory(run) for run in part])
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
            self._say(f"{len(self.bases)} base models submitted as job {', '.join(_numbers(self.bases))}")
        after = ", after their base models" if self.awaited else ""
        self._say(f"{len(self.jobs)} runs submitted as job {', '.join(_numbers(self.jobs))}{after}")
        if others:
            self._say(f"{others} runs are in the queue already, being made, or just finished")
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


def _executor(settings: SlurmSettings, out: Path, code: Path, open_files: int) -> Any:
    """Return submitit's executor, told how jobs are to be treated and by which code they are to be done."""
    executor = _submitit().AutoExecutor(
        (out / FOLDER / "jobs").resolve(), cluster=settings.cluster, slurm_max_num_timeout=settings.max_num_timeout
    )
    setup = [
        f"ulimit -Sn {open_files}",  # a job has the limits of the process that submits it
        *settings.setup,
        f"export PYTHONPATH={shlex.quote(str(code))}${{PYTHONPATH:+:$PYTHONPATH}}",
        f"export BENCH_CACHE={shlex.quote(str(cache_folder().resolve()))}",
        "export PYTHONSAFEPATH=1",
        # Before 3.11 `python -m` looks for modules in the current folder first, which may be the checkout.
        f"cd {shlex.quote(str(code))}",
    ]
    parameters: dict[str, Any] = {
        "timeout_min": settings.timeout_min,
        "mem_gb": settings.mem_gb,
        f"{settings.cluster}_setup": setup,
        "slurm_partition": settings.partition,
        "slurm_account": settings.account,
        "slurm_qos": settings.qos,
        "slurm_constraint": settings.constraint,
        "slurm_nodelist": settings.nodelist,
        "slurm_exclude": settings.exclude,
        "slurm_array_parallelism": settings.array_parallelism,
        "slurm_signal_delay_s": settings.signal_delay_s,
        "slurm_additional_parameters": {"requeue": True, **settings.additional_parameters},
    }
    executor.update_parameters(**{key: value for key, value in parameters.items() if value is not None})
    return executor


def _cores_and_gpus(settings: SlurmSettings, jobs: Sequence[BaseJob | RunJob]) -> dict[str, int]:
    """Return what each of these jobs asks for: what the one on the most devices needs."""
    config, devices = jobs[0].config, max(job.devices for job in jobs)
    cores = settings.cpus_per_task or devices * (config.runtime.threads + config.data.workers)
    gpus = settings.gpus_per_node
    if gpus is None and jobs[0].device != "cpu":
        gpus = devices
    return {"cpus_per_task": cores, **({"gpus_per_node": gpus} if gpus else {})}


def require_launcher(settings: SlurmSettings) -> None:
    """Raise `RequestError` where nothing can be submitted from here."""
    _submitit()
    if settings.cluster == "slurm" and not (shutil.which("sbatch") and shutil.which("srun")):
        raise RequestError("--launcher slurm: no sbatch and srun on this machine; slurm.cluster=local does without")


def _submitit() -> Any:
    try:
        import submitit
    except ImportError:
        raise RequestError("--launcher slurm needs submitit: pip install 'continual-seg-bench[slurm]'") from None
    return submitit


def _submitted(executor: Any, work: Sequence[RunDirectory]) -> list[Any]:
    submitit = _submitit()
    jobs = []
    try:
        with redirect_stderr(io.StringIO()), executor.batch():  # what it prints there is in the error too
            jobs = [executor.submit(one) for one in work]
    except submitit.core.utils.FailedJobError as error:
        raise RequestError(f"--launcher slurm: sbatch refused: {' '.join(str(error).split())}") from None
    return jobs


def _arrays(work: Sequence[T]) -> Iterator[Sequence[T]]:
    """Yield parts of work that are not too long for a job array."""
    largest = _largest_array()
    for i in range(0, len(work), largest):
        yield work[i : i + largest]


def _largest_array() -> int:
    """Return how many elements an array of the cluster may have; as usual where it does not tell."""
    with suppress(OSError, subprocess.SubprocessError):
        command = ["scontrol", "show", "config"]
        said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
        if found := re.search(r"^MaxArraySize\s*=\s*(\d+)", said, re.MULTILINE):
            return max(1, int(found[1]))
    return 1001


def _numbers(ids: Iterable[str]) -> list[str]:
    """Return the ids of the arrays whose elements these are."""
    return list(dict.fromkeys(job.partition("_")[0] for job in ids))
