"""What is submitted to a queue, and what stays there when something goes wrong: Slurm's commands are stood in for."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from test_resume import TINY

from bench.claims import Claims
from bench.config import RequestError
from bench.folders import claim_of, run_folders
from bench.planning import Request
from bench.queue import cancel
from bench.session import run
from bench.status import run_states
from bench.submitted import Submitted, read_submitted

QUIET = Console(quiet=True)

COMMAND = """#!/usr/bin/env python3
# sbatch numbers jobs from 1 on and puts each array's elements into the queue, a file; `refuse` names a job's number.
import os, re, sys
from pathlib import Path
here = Path(__file__).resolve().parent.parent
name, queue = Path(__file__).name, here / "queue"
jobs = queue.read_text().split()
if name == "sbatch":
    number = str(len((here / "submitted").read_text().split()) + 1)
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
    for job in jobs:
        print(f"{job}|PENDING|None")
elif name == "scancel":
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
        for name in ("queue", "submitted", "refuse"):
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
        request: dict[str, Any] = {
            "scenario": "voc-10-5-overlapped",
            "data_root": data_root,
            "preset": "small",
            "assignments": [*TINY, "slurm.partition=main"],
            "out": tmp_path / "out",
            "launcher": "slurm",
            **changes,
        }
        run(Request(strategies=strategies, **request), QUIET)
        out: Path = request["out"]
        return out

    return submit


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


def test_a_base_model_that_is_in_the_queue_is_not_submitted_again(box: Box, submit: Submit) -> None:
    submit("er")
    out = submit("er,finetune")
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
