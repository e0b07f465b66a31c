"""submitit's executor: how the jobs of a cluster are asked for."""

from __future__ import annotations

import io
import re
import shlex
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr, suppress
from pathlib import Path
from typing import Any, TypeVar

from bench.launch.directory import RunDirectory
from bench.plan.job import BaseJob, RunJob
from bench.plan.services import submitit_module
from bench.settings.errors import RequestError
from bench.settings.slurm import SlurmSettings
from benchmarks.cache import cache_folder

T = TypeVar("T")
FOLDER = ".submitted"
"""Below the output folder: what submitit writes, and the copies of the code."""


def new_executor(settings: SlurmSettings, out: Path, code: Path, open_files: int) -> Any:
    """Return submitit's executor, told how jobs are to be treated and by which code they are to be done."""
    executor = submitit_module().AutoExecutor(
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


def cores_and_gpus(settings: SlurmSettings, jobs: Sequence[BaseJob | RunJob]) -> dict[str, int]:
    """Return what each of these jobs asks for: what the one on the most devices needs."""
    config, devices = jobs[0].config, max(job.devices for job in jobs)
    cores = settings.cpus_per_task or devices * (config.runtime.threads + config.data.workers)
    gpus = settings.gpus_per_node
    if gpus is None and jobs[0].device != "cpu":
        gpus = devices
    return {"cpus_per_task": cores, **({"gpus_per_node": gpus} if gpus else {})}


def submitted(executor: Any, work: Sequence[RunDirectory]) -> list[Any]:
    """Submit work together, as one array; raise `RequestError` where the cluster refuses it."""
    submitit = submitit_module()
    jobs = []
    try:
        with redirect_stderr(io.StringIO()), executor.batch():  # what it prints there is in the error too
            jobs = [executor.submit(one) for one in work]
    except submitit.core.utils.FailedJobError as error:
        raise RequestError(f"--launcher slurm: sbatch refused: {' '.join(str(error).split())}") from None
    return jobs


def arrays(work: Sequence[T]) -> Iterator[Sequence[T]]:
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
