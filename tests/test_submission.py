"""What is submitted to a queue, and what stays there when something goes wrong: Slurm's commands are stood in for."""

from __future__ import annotations

import json
import os
import pwd
import resource
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from rich.console import Console
from test_resume import SCENARIO, TINY, files
from usual import usual

import bench.launch.slurm
from bench.launch.claims import Claims
from bench.launch.queue import cancel
from bench.launch.session import execute, prepare, run
from bench.launch.status import run_states
from bench.launch.submitted import Submitted, read_submitted, write_submitted
from bench.plan.folders import claim_of, run_folders
from bench.plan.request import Request
from bench.settings.errors import RequestError

QUIET = Console(quiet=True)

COMMAND = """#!/usr/bin/env python3
# sbatch numbers jobs from 1 on and puts each array's elements into the queue, a file; `refuse` names a job's number.
import os, re, signal, sys
from pathlib import Path
here = Path(__file__).resolve().parent.parent
name, queue = Path(__file__).name, here / "queue"
jobs = queue.read_text().split()
if name == "sbatch":
    number = str(len((here / "submitted").read_text().split()) + 1)
    if (here / "interrupt").read_text().split()[:1] == [number]:
        os.kill(os.getppid(), signal.Signals[(here / "interrupt").read_text().split()[1]])
    if (here / "refuse").read_text() == number:
        sys.exit("sbatch: error: Batch job submission failed: no, thank you")
    script = Path(sys.argv[1]).read_text()
    (here / f"script-{number}").write_text(script)
    with (here / "submitted").open("a") as file:
        print(number, file=file)
    elements = int(re.search(r"--array=0-(\\d+)", script)[1]) + 1 if "--array" in script else 0
    jobs += [f"{number}_{i}" for i in range(elements)] or [number]
    queue.write_text(" ".join(jobs))
    print("Submitted batch job", number)
elif name == "squeue":
    if (here / "silent").exists():
        sys.exit("slurm_load_jobs error: Unable to contact slurm controller")
    print("CLUSTER: box")
    for job in jobs * ("SQUEUE_PARTITION" not in os.environ):
        print(f"{job}|PENDING|None")
elif name == "scancel":
    with (here / "cancelled").open("a") as file:
        print(*sys.argv[1:], file=file)
    if (here / "unwilling").exists():
        sys.exit("scancel: error: Access denied")
    queue.write_text(" ".join(job for job in jobs if job not in sys.argv and job.split("_")[0] not in sys.argv))
elif name == "scontrol":
    print("MaxArraySize            = 2")
"""


class Box:
    """The stand-in for a Slurm: what was submitted to it and what is in its queue."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "bin").mkdir(parents=True)
        for name in ("sbatch", "squeue", "scancel", "scontrol", "srun"):
            (folder / "bin" / name).write_text(COMMAND)
            (folder / "bin" / name).chmod(0o755)
        for name in ("queue", "submitted", "refuse", "interrupt"):
            (folder / name).write_text("")

    @property
    def queue(self) -> list[str]:
        return (self.folder / "queue").read_text().split()

    def script(self, number: int) -> str:
        return (self.folder / f"script-{number}").read_text()


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Box:
    made = Box(tmp_path / "box")
    monkeypatch.setenv("PATH", f"{made.folder / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    return made


Submit = Callable[..., Path]


@pytest.fixture
def submit(data_root: Path, tmp_path: Path) -> Submit:
    """Submit a grid and return its output folder."""

    def submit(strategies: str = "er", **changes: Any) -> Path:
        changes = {"launcher": "slurm", "assignments": [*TINY, "slurm.partition=main"], **changes}
        console = changes.pop("console", QUIET)
        asked = request(data_root, tmp_path, strategies, **changes)
        run(asked, console)
        return asked.out

    return submit


def request(data_root: Path, tmp_path: Path, strategies: str = "er", **changes: Any) -> Request:
    """Ask for a grid that is made here, unless something else is said."""
    settings: dict[str, Any] = {"preset": "small", "assignments": TINY, "out": tmp_path / "out", **changes}
    return Request(strategies, SCENARIO, data_root, **settings)


def records(out: Path) -> dict[str, Submitted | None]:
    """What stands in the run directories of the jobs, by strategy and seed."""
    return {f"{run.parent.name} {run.name[-5:]}": read_submitted(run) for run in run_folders(out)}


def test_runs_follow_their_base_models_in_arrays_that_the_cluster_takes(box: Box, submit: Submit) -> None:
    """Its largest array has two elements."""
    found = records(submit("er,finetune", seeds=[0, 1, 2]))
    assert box.queue == ["1_0", "1_1", "2", "3_0", "3_1", "4_0", "4_1", "5_0", "5_1"]
    assert "dependency=afterany:1:2" in box.script(3)
    assert "dependency=afterany:1:2" in box.script(5)
    assert "requeue" in box.script(1)
    jobs = {record.job for record in found.values() if record}
    assert jobs == set(box.queue) - {"1_0", "1_1", "2"}
    bases = {name[-5:]: record.base_job for name, record in found.items() if record and name.startswith("er")}
    assert bases == {"seed0": "1_0", "seed1": "1_1", "seed2": "2"}
    assert bases == {name[-5:]: r.base_job for name, r in found.items() if r and name.startswith("finetune")}


def test_the_same_grid_again_submits_nothing(box: Box, submit: Submit) -> None:
    submit()
    before = box.queue
    submit()
    assert box.queue == before


@pytest.mark.parametrize("strategies", ["er,finetune", "finetune"])
def test_a_base_model_that_is_in_the_queue_is_not_submitted_again(strategies: str, box: Box, submit: Submit) -> None:
    submit("er")
    out = submit(strategies)
    assert box.queue == ["1", "2", "3"]
    assert "dependency=afterany:1\n" in box.script(3)
    assert {record.base_job for record in records(out).values() if record} == {"1"}


def test_a_refusal_is_one_line_and_leaves_nothing_in_the_queue(
    box: Box, submit: Submit, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (box.folder / "refuse").write_text("3")
    with pytest.raises(RequestError, match="sbatch refused: sbatch: error: Batch job submission failed: no, thank you"):
        submit("er,finetune,agem")
    assert capfd.readouterr().err == ""
    assert box.queue == []
    assert set(records(tmp_path / "out").values()) == {None}


@pytest.mark.parametrize(("number", "sent"), [("1", "SIGINT"), ("2", "SIGTERM"), ("3", "SIGHUP"), ("3", "SIGINT")])
def test_what_ends_the_command_meanwhile_takes_all_back(
    number: str, sent: str, box: Box, submit: Submit, tmp_path: Path
) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    (box.folder / "interrupt").write_text(f"{number} {sent}")
    with pytest.raises(KeyboardInterrupt):
        submit("er,finetune,agem")
    signal.signal(signal.SIGINT, before)
    assert (box.folder / "submitted").read_text().split()[-1] == number
    assert box.queue == []
    assert set(records(tmp_path / "out").values()) == {None}


def test_processes_that_stand_for_jobs_are_killed_and_no_job_of_their_number(
    box: Box, submit: Submit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted: list[str] = []

    def interrupted(run: Path, record: Submitted | None) -> None:
        if record and record.job:
            noted.append(record.job)
            raise KeyboardInterrupt
        write_submitted(run, record)

    monkeypatch.setattr(bench.launch.slurm, "write_submitted", interrupted)
    with pytest.raises(KeyboardInterrupt):
        submit(assignments=[*TINY, "slurm.cluster=local"])
    assert not (box.folder / "cancelled").exists()
    [job] = noted
    deadline = time.monotonic() + 10
    while psutil.pid_exists(int(job)) and psutil.Process(int(job)).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
    assert set(records(tmp_path / "out").values()) == {None}


def test_jobs_that_cannot_be_cancelled_are_told_and_stay_known(
    box: Box, submit: Submit, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (box.folder / "refuse").write_text("2")
    (box.folder / "unwilling").touch()
    with pytest.raises(RequestError, match="sbatch refused"):
        submit(console=Console(width=200))
    said = capsys.readouterr().out.splitlines()
    assert said[-1] == "jobs 1 are not cancelled: scancel: scancel: error: Access denied"
    assert box.queue == ["1"]
    (box.folder / "unwilling").unlink()
    cancel(run_folders(tmp_path / "out"), QUIET)
    assert box.queue == []


def test_runs_behind_a_link_are_not_submitted_twice(box: Box, submit: Submit, tmp_path: Path) -> None:
    (tmp_path / "another disk").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / SCENARIO).symlink_to(tmp_path / "another disk")
    submit()
    before = box.queue
    submit()
    assert box.queue == before == ["1", "2"]


def test_what_stands_in_the_way_of_one_run_keeps_no_other_from_the_queue(
    box: Box, data_root: Path, tmp_path: Path
) -> None:
    planned = prepare(request(data_root, tmp_path, "er,finetune", launcher="slurm"), QUIET)
    planned.runs[0].folder.parent.mkdir(parents=True)
    planned.runs[0].folder.write_text("in the way")
    result = execute(planned, QUIET)
    assert list(result.failures) == ["er seed 0"] and str(planned.runs[0].folder) in result.failures["er seed 0"]
    assert box.queue == ["1", "2"]


def test_jobs_may_open_as_many_files_as_the_command_might(box: Box, submit: Submit) -> None:
    before, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    submit()
    assert f"\nulimit -Sn {before}\n" in box.script(1)


@pytest.mark.parametrize("overwrite", usual(["always", "failed"], "always"))
def test_what_is_to_be_made_anew_is_kept_until_the_queue_has_taken_it(
    overwrite: str, box: Box, submit: Submit, data_root: Path, tmp_path: Path
) -> None:
    run(request(data_root, tmp_path, jobs=1), QUIET)
    [folder] = run_folders(tmp_path / "out")
    if overwrite == "failed":
        (folder / "done").unlink()
        (folder / "error.txt").write_text("it failed")
        (folder / "checkpoint").mkdir()
        (folder / "checkpoint" / "step-4.ckpt").write_text("dear")
    before = files(folder)
    (box.folder / "refuse").write_text("1")
    with pytest.raises(RequestError, match="sbatch refused"):
        submit(overwrite=overwrite)
    assert files(folder) == before
    (box.folder / "refuse").write_text("")
    submit(overwrite=overwrite)
    after = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert "spec.yaml" in after and "submitted.json" in after
    assert not after & {"done", "steps.csv", "error.txt", "checkpoint/step-4.ckpt"}
    assert not [name for name in after if ".tmp-" in name]


def test_a_run_that_was_finished_since_it_was_planned_is_not_submitted(
    box: Box, data_root: Path, tmp_path: Path
) -> None:
    planned = prepare(request(data_root, tmp_path, launcher="slurm", overwrite="failed"), QUIET)
    run(request(data_root, tmp_path, jobs=1), QUIET)
    [folder] = run_folders(tmp_path / "out")
    before = files(folder)
    execute(planned, QUIET)
    assert box.queue == []
    assert files(folder) == before


def test_ones_own_defaults_for_squeue_hide_no_job(box: Box, submit: Submit, monkeypatch: pytest.MonkeyPatch) -> None:
    submit()
    before = box.queue
    monkeypatch.setenv("SQUEUE_PARTITION", "other")
    submit()
    assert box.queue == before


def test_jobs_are_those_of_the_user_who_gives_them(box: Box, submit: Submit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "another")
    [record] = records(submit()).values()
    assert record and record.user == pwd.getpwuid(os.getuid()).pw_name


@pytest.mark.long
def test_more_runs_than_files_may_be_open_by_default(box: Box, submit: Submit) -> None:
    before, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(list(Path("/proc/self/fd").iterdir())) + 30, most))
    try:
        submit(seeds=range(50))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (before, most))
    assert len(box.queue) == 100


def test_the_copy_of_the_code_can_be_read_by_whom_the_umask_allows(box: Box, submit: Submit) -> None:
    before = os.umask(0o027)
    try:
        [copy] = (submit() / ".submitted" / "code").iterdir()
    finally:
        os.umask(before)
    assert copy.stat().st_mode & 0o777 == 0o750


def test_where_the_queue_does_not_answer_nothing_is_submitted_twice(box: Box, submit: Submit) -> None:
    submit()
    before = box.queue
    (box.folder / "silent").touch()
    with pytest.raises(RequestError, match="the queue does not answer"):
        submit()
    assert box.queue == before


def test_a_run_that_is_being_made_is_not_submitted(box: Box, submit: Submit) -> None:
    out = submit()
    cancel(run_folders(out), QUIET)
    [run] = run_folders(out)
    with Claims() as claims:
        assert claims.take(claim_of(run))
        submit()
    assert box.queue == []


def test_cancelling_a_run_leaves_the_base_model_that_another_waits_for(box: Box, submit: Submit) -> None:
    out = submit("er,finetune")
    er, finetune = run_folders(out)
    cancel([er], QUIET)
    assert box.queue == ["1", "2_1"]
    cancel([finetune], QUIET)
    assert box.queue == []
    assert set(records(out).values()) == {None}


def test_a_base_model_whose_runs_were_never_submitted_is_told_and_cancelled(box: Box, submit: Submit) -> None:
    """As where the submitting process is killed between the two."""
    out = submit()
    [run] = run_folders(out)
    record = json.loads((run / "submitted.json").read_text())
    (run / "submitted.json").write_text(json.dumps({**record, "job": None, "log": None}))
    (box.folder / "queue").write_text("1")
    [state] = run_states(out, lambda jobs: {"1": "PENDING"})
    assert state.state == "waiting"
    assert state.detail == "its base model's job 1 PENDING; the run is not submitted: `bench run` does it"
    submit()
    assert box.queue == ["1", "3"]
    cancel([run], QUIET)
    assert box.queue == []
