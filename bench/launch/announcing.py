"""What a run's directory tells before the run is begun."""

from __future__ import annotations

from bench.plan.job import RunJob
from bench.train.kept import run_checkpoints
from benchmarks.cache import DISK_FULL
from reports.atomic import SetAside
from reports.spec import write_spec


def hand_over(run: RunJob) -> SetAside:
    """Leave the directory as another process is to find it that makes the run; return what stood there before."""
    run.folder.mkdir(parents=True, exist_ok=True)
    superseded = [run.folder / name for name in ("error.txt", "spec.yaml")]
    if run.anew:
        records = [run.folder / name for name in ("done", "steps.csv")]
        superseded = [*records, *run_checkpoints(run).files(), *superseded]
    before = SetAside(superseded)
    try:
        write_spec(run.folder, run.spec)
    except OSError:
        before.restore()
        raise
    return before


def announce(run: RunJob) -> None:
    """Write the spec, so that the directory tells what it waits for."""
    # What stands in the way fails the run when it is claimed; who starts it just now tidies up there.
    try:
        if not (run.folder / "spec.yaml").is_file():
            run.folder.mkdir(parents=True, exist_ok=True)
            write_spec(run.folder, run.spec)
    except OSError as error:
        if error.errno in DISK_FULL:
            raise
