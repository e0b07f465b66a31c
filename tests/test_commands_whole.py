"""Whole commands on folders and caches in which something went wrong before, or goes wrong meanwhile."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console
from test_resume import SCENARIO, TINY, command_line, execute, files, plan
from usual import usual

import bench as harness
from bench.cli.entry import main
from bench.launch import session
from bench.launch.announcing import hand_over
from bench.launch.execution import Result, run_one, say_end
from bench.launch.session import run
from bench.plan.code import PACKAGES
from bench.plan.job import RunJob
from bench.plan.request import Request
from bench.screen.stopping import ask_to_stop
from bench.train.kept import base_checkpoint, base_model, run_checkpoints

QUIET = Console(quiet=True)


@pytest.fixture
def job(data_root: Path, tmp_path: Path) -> RunJob:
    [job] = plan(data_root, tmp_path / "out", "er").runs
    return job


def command(data_root: Path, out: Path, strategies: str = "er", **changes: Any) -> Result:
    """Do what `bench run` does."""
    request: dict[str, Any] = {"preset": "small", "assignments": TINY, "jobs": 1, **changes}
    return run(Request(strategies, SCENARIO, data_root, out=out, **request), QUIET)


def test_what_was_left_behind_done_is_deleted(job: RunJob, data_root: Path, tmp_path: Path) -> None:
    """By a process that was killed before it could: a claim, checkpoints, the reason why it failed before."""
    execute(job)
    before = files(tmp_path / "out")
    job.claim.write_text("{}")
    run_checkpoints(job).after(1).write({})
    (job.folder / "error.txt").write_text("killed")
    training = base_checkpoint(job.spec["base"]["hash"])
    training.write({})
    assert [run.path for run in command(data_root, tmp_path / "out").runs] == [job.folder]
    assert files(tmp_path / "out") == before
    [unfinished] = plan(data_root, tmp_path / "out", "finetune").runs
    run_checkpoints(unfinished).after(0).write({})
    assert training.path.exists()
    command(data_root, tmp_path / "out", "er,finetune")
    assert not training.path.exists()


def test_a_damaged_finished_run_is_named_and_hides_no_other(job: RunJob, data_root: Path, tmp_path: Path) -> None:
    execute(job)
    (job.folder / "steps.csv").write_text("step\n")
    result = command(data_root, tmp_path / "out", "er,finetune")
    assert [run.spec["strategy"] for run in result.runs] == ["finetune"]
    [failure] = result.failures.values()
    assert str(job.folder / "steps.csv") in failure
    assert failure.endswith("; without its `done`, the run is made again")
    (job.folder / "done").unlink()
    assert len(command(data_root, tmp_path / "out", "er,finetune").runs) == 2


def test_a_file_where_a_run_should_be_fails_that_run_alone(job: RunJob, data_root: Path, tmp_path: Path) -> None:
    job.folder.parent.mkdir(parents=True)
    job.folder.write_text("in the way")
    result = command(data_root, tmp_path / "out", "er,finetune")
    assert [run.spec["strategy"] for run in result.runs] == ["finetune"]
    assert list(result.failures) == [job.key]
    assert str(job.folder) in result.failures[job.key]


def test_a_spec_that_cannot_be_written_fails_that_run_alone(job: RunJob, data_root: Path, tmp_path: Path) -> None:
    (job.folder / "spec.yaml").mkdir(parents=True)
    result = command(data_root, tmp_path / "out", "er,finetune")
    assert [run.spec["strategy"] for run in result.runs] == ["finetune"]
    assert list(result.failures) == [job.key]


@pytest.mark.long
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="no setpriv here")
def test_a_directory_that_is_another_users_fails_that_run_alone(
    job: RunJob, data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job.folder.mkdir(parents=True, mode=0)
    asked = [*command_line(data_root, tmp_path / "out", "er,finetune"), "--jobs", "1"]
    without = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    done = subprocess.run(
        [*without, sys.executable, "-m", "bench", *asked], capture_output=True, text=True, check=False
    )
    job.folder.chmod(0o700)
    assert done.returncode == 1, done.stderr
    assert f"failed: er seed 0: [Errno 13] Permission denied: '{job.claim}'" in done.stdout
    assert "finetune seed 0: done" in done.stdout


def test_tables_that_cannot_be_written_hide_no_failure(
    job: RunJob, data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job.folder.parent.mkdir(parents=True)
    job.folder.write_text("in the way")
    (tmp_path / "out" / "tables").touch()
    with pytest.raises(SystemExit, match="1"):
        main([*command_line(data_root, tmp_path / "out", "er,finetune"), "--jobs", "1"])
    said = capsys.readouterr()
    assert "failed: er seed 0" in said.out
    assert str(tmp_path / "out" / "tables") in said.err


def test_a_stop_before_a_finished_run_is_begun_again_leaves_it_and_says_so(
    data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command(data_root, tmp_path / "out", "er")
    before = files(tmp_path / "out")
    ask_to_stop()
    result = command(data_root, tmp_path / "out", "er,finetune", overwrite="always")
    assert result.untouched == ["er seed 0"]
    assert say_end(result, Console(width=200)) == 130
    assert capsys.readouterr().out.splitlines() == [
        "1 job not finished; the same command, without --overwrite, goes on with them",
        "1 finished run not begun again and as before; --overwrite begins them:",
        "  er seed 0",
    ]
    assert before.items() <= files(tmp_path / "out").items()


def test_a_stop_says_nothing_of_a_run_that_another_command_has_finished(
    job: RunJob, data_root: Path, tmp_path: Path
) -> None:
    planned = plan(data_root, tmp_path / "out", "er")
    execute(job)
    ask_to_stop()
    assert session.execute(planned, QUIET).untouched == []


@pytest.mark.parametrize("damage", usual(["truncated", "gone"], "truncated"))
def test_a_base_model_that_is_lost_is_trained_again_and_costs_no_checkpoint(
    damage: str, job: RunJob, data_root: Path, tmp_path: Path
) -> None:
    execute(job)
    whole = files(tmp_path / "out")
    shutil.rmtree(tmp_path / "out")
    execute(job, last=1)
    kept = base_model(job.spec["base"]["hash"])
    if damage == "gone":
        kept.remove()
    else:
        kept.path.write_bytes(kept.path.read_bytes()[:-10])
    result = command(data_root, tmp_path / "out")
    assert result.failures == {}
    assert kept.fault() is None
    log = (job.folder / "log.txt").read_text()
    assert "goes on after step 1" in log
    assert files(tmp_path / "out") == whole


def test_the_log_tells_which_code_trained_the_base_model(job: RunJob) -> None:
    execute(job, last=0)
    said = f"base model {job.spec['base']['hash'][:12]}, trained by code {job.spec['code']}"
    assert said in (job.folder / "log.txt").read_text()


def test_a_copied_directory_is_not_taken_for_the_run(
    job: RunJob, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hand_over(job)
    moved = shutil.copytree(job.folder, tmp_path / "a" / "b" / "c" / "copy")
    with pytest.raises(SystemExit, match="2"):
        main(["run-one", str(moved)])
    [line] = capsys.readouterr().err.splitlines()
    place = "/".join(job.folder.parts[-3:])
    assert line == f"bench: {moved}: the directory of this run ends with {place}"
    assert not (tmp_path / "a" / "b" / SCENARIO).exists()
    assert run_one(job.folder, QUIET).failures == {}


EDITING = """
import os, re, subprocess, sys
from pathlib import Path
method = Path("strategies/mib.py")
process = subprocess.Popen([sys.executable, "-m", "bench", *sys.argv[1:]], stdout=subprocess.PIPE, text=True)
for line in process.stdout:
    print(line, end="")
    if line.endswith(": done\\n"):
        method.write_text("raise RuntimeError('edited meanwhile')\\n")
sys.exit(process.wait())
"""


def test_a_process_that_has_other_code_than_was_planned_makes_nothing(job: RunJob) -> None:
    other = replace(job, code="0" * 64)
    with pytest.raises(RuntimeError, match="the code was changed as the command started; give it again"):
        execute(other)
    assert not (job.folder / "steps.csv").exists()


@pytest.mark.long
def test_code_that_is_edited_meanwhile_is_not_what_a_command_runs(data_root: Path, tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    for package in PACKAGES:
        shutil.copytree(Path(harness.__file__).parents[1] / package, checkout / package)
    asked = [*command_line(data_root, tmp_path / "out", "er,mib"), "--jobs", "2"]
    done = subprocess.run(
        [sys.executable, "-c", EDITING, *asked],
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": str(checkout), "BENCH_CACHE": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "edited meanwhile" in (checkout / "strategies" / "mib.py").read_text()
    codes = {yaml.safe_load(spec.read_text())["code"] for spec in (tmp_path / "out").rglob("spec.yaml")}
    told = {code for log in tmp_path.rglob("*.log") for code in re.findall(r"code ([0-9a-f]{64})", log.read_text())}
    assert len(codes) == 1 and told == codes
