"""What is done with a job: whether it is made, making it, and keeping the reason why it was not.

What trains imports torch and Avalanche, which takes seconds: it is imported where a job is done, not where jobs are
planned.
"""

from __future__ import annotations

import shlex
from contextlib import suppress
from pathlib import Path
from typing import Any

from bench.plan.code import code_digest
from bench.plan.folders import finished_at
from bench.plan.job import Bars, BaseJob, RunJob, below_bar
from bench.plan.plugins import plugins_of
from bench.screen.events import Event, Report
from bench.screen.log import log_start, logged
from bench.train.heap import keep_freed_memory
from bench.train.kept import base_model
from reports.atomic import clear_scraps, write_atomic
from reports.files import RecordError, read_rows
from strategies.learning.registry import STRATEGIES
from strategies.networks.registry import NETWORKS

_CHANGED = "the code was changed as the command started; give it again"


def made(job: BaseJob | RunJob) -> bool:
    """Return whether the base model is kept, and sound, or the run has been finished since it was planned."""
    if isinstance(job, BaseJob):
        return base_model(job.base["hash"]).fault() is None
    return finished_at(job.folder) not in (None, job.finished_before) or ended_early(job.folder, job.bars)


def ended_early(run: Path, bars: Bars) -> bool:
    """Return whether a run was left after a step whose mIoU is below its bar."""
    try:
        rows = read_rows(run / "steps.csv") if bars else []
    except RecordError:
        return False
    return any(below_bar(row["miou"], int(row["step"]), bars) for row in rows)


def execute(job: BaseJob | RunJob, report: Report) -> None:
    """Train a base model and keep it, or make a run and write its directory, `done` last."""
    keep_freed_memory()
    if isinstance(job, BaseJob):
        _train_base(job, report)
    else:
        _make_run(job, report)


def record_failure(job: BaseJob | RunJob, failure: str) -> None:
    """Write the reason to a run's `error.txt`, unless that cannot be written either; a base model's log has it."""
    if isinstance(job, RunJob):
        with suppress(OSError):
            job.folder.mkdir(parents=True, exist_ok=True)
            write_atomic(job.folder / "error.txt", failure)


class Work:
    """A job with what is done with it, as the pool takes it."""

    def __init__(self, job: BaseJob | RunJob) -> None:
        self.job = job
        self.key, self.claim, self.devices = job.key, job.claim, job.devices

    def made(self) -> bool:
        """See `made`."""
        return made(self.job)

    def execute(self, report: Report) -> None:
        """See `execute`."""
        execute(self.job, report)

    def record_failure(self, failure: str) -> None:
        """See `record_failure`."""
        record_failure(self.job, failure)


def _train_base(job: BaseJob, report: Report) -> None:
    from bench.train.base import make_base
    from bench.train.benchmark import benchmark_of
    from bench.train.computing import computing, told_of_losses

    again = "; the same `bench run` meets the same batch again"
    with (
        logged(job.log, job.key, report, job.verbose) as report,
        computing(job.config.runtime),
        told_of_losses("base model, ", again),
    ):
        log_start({**job.base["inputs"]["versions"], "code": job.code})
        _require_code(job, job.base["inputs"]["network_plugins"])
        kept = base_model(job.base["hash"])
        clear_scraps(kept.path.parent, job.base["hash"])
        if kept.path.exists() and (fault := kept.fault()):
            report(Event(job.key, "starting", 0, job.units, note=f"{fault}; trained again"))
        make_base(job, benchmark_of(job), report)


def _make_run(job: RunJob, report: Report) -> None:
    from bench.train.benchmark import benchmark_of
    from bench.train.computing import computing, told_of_losses
    from bench.train.run import make_run

    again = f"; `bench run-one {shlex.quote(str(job.folder.resolve()))}` meets the same batch again"
    with (
        logged(job.log, job.key, report, job.verbose) as report,
        computing(job.config.runtime),
        told_of_losses("", again),
    ):
        log_start({**job.spec["versions"], "code": job.code, "git": job.spec["git"]})
        _require_code(job, job.spec["network_plugins"])
        if plugins_of(job.method, STRATEGIES) != job.spec["plugins"]:
            raise RuntimeError(_CHANGED)
        make_run(job, benchmark_of(job), report)


def _require_code(job: BaseJob | RunJob, network_plugins: list[dict[str, Any]]) -> None:
    """Raise RuntimeError where this process would compute by other code than the one that planned a job."""
    if code_digest() != job.code or plugins_of(job.config.network.name, NETWORKS) != network_plugins:
        raise RuntimeError(_CHANGED)
