"""`bench status` tells from directories, claims and the queue what is done, running, waiting and failed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from bench.claims import Claims
from bench.cli import main
from bench.folders import claim_of
from bench.slurm import cancel, queue_states
from bench.status import run_states
from bench.submitted import Submitted, read_submitted, write_submitted

FINISHED = Path(__file__).parent / "finished_runs"


@pytest.fixture
def runs(tmp_path: Path) -> dict[str, Path]:
    """Six directories of one scenario, by what they are meant to be."""
    source = next(path.parent for path in sorted(FINISHED.rglob("done")))
    made = {}
    for name in ("done", "running", "failed", "fresh", "queued", "lost"):
        made[name] = tmp_path / "voc-15-1-disjoint" / "er" / name
        shutil.copytree(source, made[name])
        if name != "done":
            (made[name] / "done").unlink()
    (made["failed"] / "error.txt").write_text("Traceback\n  somewhere\nValueError: no such thing\n")
    (made["fresh"] / "steps.csv").unlink()
    for name, job in (("queued", "17_3"), ("lost", "17_4")):
        write_submitted(made[name], Submitted("slurm", job, "16_0", f"/logs/{job}.err", "/code"))
    return made


def test_every_state_is_told_with_its_reason(runs: dict[str, Path]) -> None:
    with Claims() as claims:
        claims.take(claim_of(runs["running"]))
        found = run_states(runs["done"].parents[2], lambda jobs: {"17_3": "PENDING (Priority)"})
    told = {run.folder.name: (run.state, run.detail) for run in found}
    assert told.pop("running")[1].startswith(f"process {os.getpid()} on ")
    assert told == {
        "done": ("done", ""),
        "failed": ("failed", "ValueError: no such thing"),
        "fresh": ("waiting", "no process is at it; `bench run` or `bench run-one` goes on"),
        "queued": ("waiting", "job 17_3 PENDING (Priority)"),
        "lost": ("failed", "job 17_4 left the queue before the run was done; see /logs/17_4.err"),
    }
    steps = {run.folder.name: run.steps for run in found}
    assert steps["fresh"] == 0
    assert steps["done"] == len((runs["done"] / "steps.csv").read_text().splitlines()) - 1


def test_a_queue_that_does_not_answer_makes_no_run_fail(runs: dict[str, Path]) -> None:
    found = {run.folder.name: run.state for run in run_states(runs["done"].parents[2], lambda jobs: None)}
    assert found["queued"] == found["lost"] == "waiting"


def test_the_command_counts_and_lists(runs: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    out = runs["done"].parents[2]
    for run in ("queued", "lost"):
        (runs[run] / "submitted.json").unlink()
    assert _exit_status("status", "--runs", str(out)) == 0
    said = capsys.readouterr().out
    row = next(line.split() for line in said.splitlines() if "voc-15-1" in line)
    assert row == ["voc-15-1-disjoint", "6", "1", "0", "4", "1"]
    assert "failed   voc-15-1-disjoint/er/failed: 6 steps done; ValueError: no such thing" in said
    assert _exit_status("status", "--runs", str(out), "--json") == 0
    assert Counter(run["state"] for run in json.loads(capsys.readouterr().out)) == {
        "done": 1,
        "waiting": 4,
        "failed": 1,
    }


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["status", "--runs"], ["cancel", "--runs"], ["cancel"]):
        assert _exit_status(*command, str(tmp_path / "none")) == 2
        assert "there is no such folder of runs" in capsys.readouterr().err


def _exit_status(*arguments: str) -> object:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return ended.value.code


def test_cancelling_a_local_job_ends_its_process_and_forgets_it(runs: dict[str, Path]) -> None:
    process = subprocess.Popen(["sleep", "60"])
    write_submitted(runs["queued"], Submitted("local", str(process.pid), None, "/log", "/code"))
    assert queue_states([read_submitted(runs["queued"])]) == {str(process.pid): "RUNNING"}
    cancel([runs["queued"], runs["fresh"]], bases_too=True, console=Console(quiet=True))
    assert process.wait(10) < 0
    assert read_submitted(runs["queued"]) is None


def test_a_damaged_record_of_a_job_is_none(runs: dict[str, Path]) -> None:
    (runs["queued"] / "submitted.json").write_text("{")
    assert read_submitted(runs["queued"]) is None


def test_a_thousand_runs_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], record_property: Callable[[str, object], None]
) -> None:
    sources = sorted(path.parent for path in FINISHED.rglob("done"))[:10]
    for source in sources:
        for seed in range(100):
            target = tmp_path / "runs" / source.relative_to(FINISHED).with_name(f"{source.name}-{seed}")
            shutil.copytree(source, target)
    started = time.perf_counter()
    assert _exit_status("status", "--runs", str(tmp_path / "runs")) == 0
    assert capsys.readouterr().out.splitlines()[-2].split() == ["all", "1000", "1000", "0", "0", "0"]
    record_property("says", f"bench status of 1,000 runs: {time.perf_counter() - started:.2f} s")
