"""A run's directory is enough to make the run: here, or as a job, by the code it was submitted with."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console
from test_resume import TINY, command_line, execute, files, plan, undisturbed

import bench as harness
from bench.cli.entry import main
from bench.launch.announcing import hand_over
from bench.launch.directory import RunDirectory
from bench.launch.execution import Result, run_one
from bench.launch.queue import queue_states
from bench.launch.status import run_states
from bench.launch.submitted import read_submitted
from bench.plan.code import PACKAGES, git_revision
from bench.plan.described import prepare_one
from bench.plan.job import RunJob
from bench.screen import stopping
from bench.settings.errors import RequestError
from bench.train.kept import base_model

QUIET = Console(quiet=True)
Patch = pytest.MonkeyPatch


@pytest.fixture
def job(data_root: Path, tmp_path: Path) -> RunJob:
    """A run whose directory holds its spec and no more."""
    [job] = plan(data_root, tmp_path / "out", "ours(sampling=uniform,gamma=0.25)").runs
    hand_over(job)
    return job


def test_the_job_of_a_directory_is_the_one_that_was_planned(job: RunJob) -> None:
    [again] = prepare_one(job.folder, False, (), QUIET).runs
    spec = yaml.safe_load(yaml.safe_dump(again.spec))
    assert spec == yaml.safe_load((job.folder / "spec.yaml").read_text())
    assert again.config == replace(job.config, strategies=again.config.strategies)
    assert replace(again, spec=job.spec, config=job.config, data_root=job.data_root) == job


def test_it_makes_the_run_with_the_same_files(job: RunJob, data_root: Path, tmp_path: Path) -> None:
    result = run_one(job.folder, QUIET)
    assert [run.path for run in result.runs] == [job.folder]
    assert files(tmp_path / "out") == undisturbed(data_root, tmp_path / "whole", "ours(sampling=uniform,gamma=0.25)")


def test_it_goes_on_after_the_last_checkpoint_and_leaves_a_finished_run_alone(job: RunJob) -> None:
    execute(job, last=1)
    assert run_one(job.folder, QUIET).failures == {}
    log = (job.folder / "log.txt").read_text()
    assert "goes on after step 1" in log
    before = files(job.folder)
    assert [run.path for run in run_one(job.folder, QUIET).runs] == [job.folder]
    assert files(job.folder) == before
    assert (job.folder / "log.txt").read_text() == log


def test_the_base_model_alone(job: RunJob) -> None:
    file = base_model(job.spec["base"]["hash"]).path
    file.unlink()
    assert run_one(job.folder, QUIET, base_only=True).failures == {}
    assert file.is_file()
    assert not (job.folder / "steps.csv").exists()


def _changed(key: str, value: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        spec = yaml.safe_load((folder / "spec.yaml").read_text())
        *outer, last = key.split(".")
        part = spec
        for name in outer:
            part = part[name]
        part[last] = value
        (folder / "spec.yaml").write_text(yaml.safe_dump(spec))

    return change


def _tagged(folder: Path) -> None:
    with (folder / "spec.yaml").open("a") as file:
        file.write(
            f'extra: !!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path ["{folder}/x"]]\n'
        )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_changed("code", "0" * 64), "its code is 0000"),
        (_changed("versions.torch", "1.0"), "its torch is 1.0, here it would be"),
        (_changed("plugins", []), "its plugins is [], here it would be [{'distribution': 'continual-seg-bench'"),
        (_changed("split_hash", "none"), "its split_hash is none"),
        (_changed("config.incremental.lr", 0.5), "its hash is"),
        (_changed("config.incremental.lr", -1), "incremental.lr=-1"),
        (_changed("config", {}), "it does not describe a run (KeyError: 'runtime')"),
        (_changed("data", "x"), "it does not describe a run (TypeError: "),
        (_changed("versions", "1"), "it does not describe a run (TypeError: versions"),
        (_changed("asked", 3), "scenario '3'"),
        (_changed("strategy", "unheard-of"), "unknown strategy 'unheard-of'"),
        (_tagged, "spec.yaml: not YAML"),
        (lambda folder: (folder / "spec.yaml").unlink(), "spec.yaml: missing"),
    ],
)
def test_what_would_be_another_run_is_refused_in_a_line(
    change: Callable[[Path], None], said: str, job: RunJob, capsys: pytest.CaptureFixture[str]
) -> None:
    change(job.folder)
    before = files(job.folder)
    with pytest.raises(SystemExit) as ended:
        main(["run-one", str(job.folder)])
    error = capsys.readouterr().err
    assert ended.value.code == 2
    assert said in error and error.count("\n") == 1 and error.startswith("bench: ")
    assert files(job.folder) == before


def test_settings_with_python_tags_are_refused_and_executed_in_no_part(data_root: Path, tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(f"memory: !!python/object/apply:os.mkdir ['{tmp_path / 'executed'}']\n")
    with pytest.raises(RequestError, match=r"settings.yaml is not plain YAML .*python/object/apply"):
        plan(data_root, tmp_path / "out", "er", config=file)
    assert not (tmp_path / "executed").exists()


# ------------------------------------------------------------------------------------------------ as jobs of submitit


@pytest.fixture
def put_back(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The signals that were answered as submitit does, by putting the job back."""
    answered: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGUSR2, signal.SIGALRM)}
    signal.signal(signal.SIGUSR2, lambda number, frame: answered.append(number))
    monkeypatch.setattr(os, "register_at_fork", lambda **hooks: None)
    yield answered
    signal.alarm(0)
    for number, handler in before.items():
        signal.signal(number, handler)
    stopping._asked.clear()


def test_a_job_that_meets_no_checkpoint_in_time_is_put_back_at_once(put_back: list[int], tmp_path: Path) -> None:
    RunDirectory(tmp_path, False, False, (), tmp_path, grace_s=1)._heed_submitit()
    os.kill(os.getpid(), signal.SIGUSR2)
    assert stopping.stop_asked() and put_back == []
    _until(lambda: bool(put_back))
    assert put_back == [signal.SIGALRM]


def test_a_job_that_ends_in_time_is_not_put_back(put_back: list[int], job: RunJob, monkeypatch: Patch) -> None:
    def told(*arguments: object, **options: object) -> Result:
        os.kill(os.getpid(), signal.SIGUSR2)
        return Result([])

    monkeypatch.setattr("bench.launch.directory.run_one", told)
    RunDirectory(job.folder, False, False, (), Path.cwd(), grace_s=1)()
    time.sleep(1.2)
    assert put_back == []


def test_a_refusal_in_a_job_is_its_runs_reason(put_back: list[int], job: RunJob) -> None:
    _changed("code", "0" * 64)(job.folder)
    with pytest.raises(RequestError):
        RunDirectory(job.folder, False, False, (), Path.cwd(), grace_s=1)()
    [state] = run_states(job.folder, lambda jobs: {})
    assert state.state == "failed" and "its code is 0000" in state.detail


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the code, to be changed."""
    source = Path(harness.__file__).parents[1]
    for package in PACKAGES:
        shutil.copytree(source / package, tmp_path / "checkout" / package)
    (tmp_path / "checkout" / "GIT_REVISION").write_text(git_revision() or "")
    return tmp_path / "checkout"


@pytest.mark.long
def test_submitted_runs_are_made_by_the_code_as_it_was_and_survive_preemption(
    checkout: Path, data_root: Path, tmp_path: Path
) -> None:
    """submitit's local processes stand for a cluster: the submitting process ends, then the code is broken."""
    out = tmp_path / "out"
    settings = [*TINY, "data.size=32", "incremental.batch_size=1", "slurm.cluster=local,slurm.timeout_min=30"]
    asked = [*command_line(data_root, out, "er", settings), "--launcher", "slurm"]
    command = [sys.executable, "-m", "bench", *asked]
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    with (tmp_path / "said").open("w") as said:  # no pipe: the jobs inherit it
        subprocess.run(command, cwd=checkout, env=environment, stdout=said, check=True)
    assert "1 run submitted as job" in (tmp_path / "said").read_text()
    broken = checkout / "bench" / "train" / "run.py"
    assert broken.is_file()
    broken.write_text("raise RuntimeError('broken meanwhile')\n")
    preempted = _preempt_one(out)
    _until(lambda: all(run.state == "done" for run in run_states(out, lambda jobs: {})))
    records = list(out.rglob("submitted.json"))
    _until(lambda: not queue_states(read_submitted(record.parent) for record in records))
    shutil.rmtree(out / ".submitted")
    for record in records:
        record.unlink()
    log = (preempted / "log.txt").read_text()
    assert log.count("started on") == 2
    assert log.count("stopped, as it was asked to") == log.count("goes on after step") == 1
    assert files(out) == undisturbed(data_root, tmp_path / "whole", "er", assignments=settings[:-1])


def _preempt_one(out: Path) -> Path:
    """Send the signal that submitit answers with a requeue to a run that has finished a step."""
    found: list[Path] = []

    def under_way() -> bool:
        steps = [path for path in out.rglob("steps.csv") if path.read_text().count("\n") == 2]
        found.extend(path.parent for path in steps if (path.parent / "claim").exists())
        return bool(found)

    _until(under_way)
    os.kill(json.loads((found[0] / "claim").read_text())["pid"], signal.SIGUSR2)
    return found[0]


def _until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)
