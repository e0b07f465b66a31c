"""Runs on a cluster, through submitit: submitted, found again in the queue, cancelled."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass as validated
from rich.console import Console

from bench.claims import Claims
from bench.code import copy_code
from bench.config import RequestError
from bench.submitted import Submitted, forget_submitted, read_submitted, write_submitted
from benchmarks.cache import cache_folder
from strategies.protocol import STRICT

if TYPE_CHECKING:
    from bench.planning import Plan
    from bench.runner import BaseJob, RunJob

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
    """So long before its time is up a job is told, and put back into the queue."""
    max_num_timeout: Annotated[int, Field(ge=0)] = 100
    """How often a job may reach its time limit."""
    setup: tuple[str, ...] = ()
    """Shell commands before the run, such as `module load cuda`."""
    additional_parameters: dict[str, Any] = Field(default_factory=dict)
    """Any other option of sbatch, by its long name."""


@dataclass(frozen=True)
class RunDirectory:
    """What a job does: `bench run-one` on a directory. Told that its time is up, it is put back into the queue."""

    folder: Path
    base_only: bool
    verbose: bool
    loggers: tuple[str, ...]
    working_folder: Path
    """Whose paths the request was made with."""

    def __call__(self) -> None:
        """Make the run, or its base model alone; raise RuntimeError where that fails, so that the job fails too."""
        os.chdir(self.working_folder)
        from bench.session import run_one, say_end

        os.register_at_fork(after_in_child=_leave_signals)
        console = Console(width=120)
        result = run_one(self.folder, console, self.base_only, self.verbose, self.loggers, heed_signals=False)
        if say_end(result, console):
            raise RuntimeError(f"{self.folder} is not finished")

    def checkpoint(self) -> Any:
        """Return what goes on with it: the same, as the run's own checkpoints tell where it was."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def _leave_signals() -> None:
    """In a forked process, such as one that reads images: what a job is told by signals is for its first process."""
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGCONT):
        signal.signal(number, signal.SIG_DFL)


def submit(plan: Plan, settings: SlurmSettings, console: Console) -> None:
    """Submit a plan's runs and the base models they need.

    Runs that are in the queue already, or that a process is making, are left alone.
    """
    if not plan.runs:
        return
    out = plan.runs[0].out
    code = copy_code(out / FOLDER / "code")
    queue = queue_states(read_submitted(run.folder) for run in plan.runs) or {}
    with Claims() as claims:
        runs = [run for run in plan.runs if not _queued(run.folder, queue) and claims.take(run.claim)]
        if not runs:
            console.print("nothing to submit: what is not finished is in the queue or being made", highlight=False)
            return
        for run in runs:
            run.hand_over()
        executor = _executor(settings, out, code)
        base_jobs = _submit_bases(executor, plan, runs, settings)
        if base_jobs and settings.cluster == "slurm":
            executor.update_parameters(slurm_dependency=f"afterany:{_array(base_jobs.values())}")
        own_bases = list(plan.bases.values()) if settings.cluster == "local" else []
        executor.update_parameters(name="bench", **_cores_and_gpus(settings, [*runs, *own_bases]))
        jobs = _submitted(executor, [_directory(run) for run in runs])
        for run, job in zip(runs, jobs, strict=True):
            base_job = base_jobs.get(plan.needs.get(run.key, ""))
            log = str(job.paths.stderr)
            write_submitted(run.folder, Submitted(settings.cluster, job.job_id, base_job, log, str(code)))
    _say(jobs, base_jobs, len(plan.runs) - len(runs), out, console)


def _queued(folder: Path, queue: Mapping[str, str]) -> bool:
    record = read_submitted(folder)
    return record is not None and record.job in queue


def _executor(settings: SlurmSettings, out: Path, code: Path) -> Any:
    """Return submitit's executor, told how jobs are to be treated and by which code they are to be done."""
    executor = _submitit().AutoExecutor(
        (out / FOLDER / "jobs").resolve(), cluster=settings.cluster, slurm_max_num_timeout=settings.max_num_timeout
    )
    setup = [
        *settings.setup,
        f"export PYTHONPATH={shlex.quote(str(code.resolve()))}${{PYTHONPATH:+:$PYTHONPATH}}",
        f"export BENCH_CACHE={shlex.quote(str(cache_folder().resolve()))}",
        # `python -m` looks for modules in the current folder first, which may be the checkout.
        f"cd {shlex.quote(str(code.resolve()))}",
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
        "slurm_additional_parameters": settings.additional_parameters or None,
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


def _submit_bases(executor: Any, plan: Plan, runs: Sequence[RunJob], settings: SlurmSettings) -> dict[str, str]:
    """Submit the base models that runs need, each by the first run that does; return their jobs' ids by key.

    submitit's local processes know no dependencies: there each run sees to its base model, or awaits it.
    """
    first: dict[str, RunJob] = {}
    for run in runs:
        if run.key in plan.needs:
            first.setdefault(plan.needs[run.key], run)
    if not first or settings.cluster == "local":
        return {}
    bases = [base for base in plan.bases.values() if base.key in first]
    executor.update_parameters(name="bench-base", **_cores_and_gpus(settings, bases))
    jobs = _submitted(executor, [_directory(run, base_only=True) for run in first.values()])
    return {key: job.job_id for key, job in zip(first, jobs, strict=True)}


def _directory(run: RunJob, base_only: bool = False) -> RunDirectory:
    return RunDirectory(run.folder.resolve(), base_only, run.verbose, run.loggers, Path.cwd())


def _submitted(executor: Any, work: Sequence[RunDirectory]) -> list[Any]:
    submitit = _submitit()
    jobs = []
    try:
        with executor.batch():
            jobs = [executor.submit(one) for one in work]
    except submitit.core.utils.FailedJobError as error:
        raise RequestError(f"--launcher slurm: sbatch refused: {' '.join(str(error).split())}") from None
    return jobs


def _array(ids: Iterable[str]) -> str:
    """Return the id of the array whose elements these are."""
    return next(iter(ids)).partition("_")[0]


def _say(jobs: Sequence[Any], base_jobs: Mapping[str, str], others: int, out: Path, console: Console) -> None:
    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    if base_jobs:
        say(f"{len(base_jobs)} base models submitted as job {_array(base_jobs.values())}")
    after = ", after them" if base_jobs else ""
    say(f"{len(jobs)} runs submitted as job {_array([job.job_id for job in jobs])}{after}")
    if others:
        say(f"{others} runs are in the queue already, or being made")
    say(f"bench status --runs {out}   tells how they are; nothing here needs to go on running")


def queue_states(records: Iterable[Submitted | None]) -> dict[str, str] | None:
    """Return the state of each of these jobs that is still in its queue; None where a queue does not answer."""
    given = [record for record in records if record]
    states = {r.job: "RUNNING" for r in given if r.cluster == "local" and _is_alive(int(r.job))}
    if any(record.cluster == "slurm" for record in given):
        try:
            states.update(_squeue())
        except (OSError, subprocess.SubprocessError):
            return None
    return states


def _squeue() -> Iterator[tuple[str, str]]:
    """Yield the id and the state, with its reason, of every element of this user's jobs."""
    command = ["squeue", "--noheader", "--array", "--format=%i|%T|%r", "--user", str(os.getuid())]
    answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    for line in answer.stdout.splitlines():
        job, state, reason = line.strip().split("|", 2)
        yield job, state if reason == "None" else f"{state} ({reason})"


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def cancel(runs: Sequence[Path], bases_too: bool, console: Console) -> None:
    """Take runs out of the queue, and the base models submitted for them if wanted; what they have done stays."""
    records = {run: record for run in runs if (record := read_submitted(run))}
    queue = queue_states(records.values())
    if queue is None:
        raise RequestError("the queue does not answer (squeue)")
    there = {run: record for run, record in records.items() if record.job in queue}
    bases = {record.base_job for record in there.values() if bases_too and record.base_job in queue}
    slurm = [*(r.job for r in there.values() if r.cluster == "slurm"), *bases]
    if slurm:
        done = subprocess.run(["scancel", *map(str, slurm)], capture_output=True, text=True, check=False)
        if done.returncode:
            raise RequestError(f"scancel: {' '.join(done.stderr.split())}")
    for run, record in there.items():
        if record.cluster == "local":
            with suppress(ProcessLookupError):
                os.kill(int(record.job), signal.SIGTERM)
        forget_submitted(run)
    console.print(f"{len(there)} runs cancelled, {len(bases)} base models with them", highlight=False)
