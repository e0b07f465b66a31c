"""A grid on a real Slurm, started here for the test, ends with the tables of the local pool."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from slurm_box import SlurmBox, skip_reason, slurm, wait_until
from voc_root import make_voc_root

import bench as harness

pytestmark = [pytest.mark.slurm, pytest.mark.skipif(skip_reason() is not None, reason=str(skip_reason()))]

SLOW = "mir(candidates=40)"
"""A strategy whose runs take long enough for what happens to them in the middle."""
GRID = ["--strategies", f"er,finetune,agem,lwf-mc,icarl,{SLOW}", "--scenario", "voc-15-1-overlapped", "--seeds", "0,1"]
SETTINGS = ("data.size=64", "base.epochs=1", "base.batch_size=8", "memory.size=40", "incremental.batch_size=1")
RUNS = 12


class Command:
    """`bench` as a process, beside a Slurm."""

    def __init__(self, folder: Path) -> None:
        package = str(Path(harness.__file__).parents[1])
        self.environment = {**os.environ, "PYTHONPATH": package, "BENCH_CACHE": str(folder / "cache")}
        self.root = make_voc_root(folder / "data", train=400, size=(64, 56))
        self.folder = folder

    def __call__(self, *arguments: str) -> str:
        command = [sys.executable, "-m", "bench", *arguments]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=200, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def run(self, out: str, *arguments: str) -> str:
        settings = [word for setting in SETTINGS for word in ("--set", setting)]
        common = ["--preset", "small", "--data-root", str(self.root), "--out", str(self.folder / out)]
        return self("run", *GRID, *common, *settings, *arguments)

    def states(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self("status", "--runs", str(self.folder / "slurm"), "--json"))
        return found

    def tables(self, out: str) -> dict[str, bytes]:
        tables = self.folder / f"tables-{out}"
        self("tables", "--runs", str(self.folder / out), "--out", str(tables), "--format", "csv,latex,markdown")
        return {path.name: path.read_bytes() for path in tables.iterdir()}


def test_twelve_runs_with_requeues_in_the_middle_end_with_the_tables_of_the_local_pool(tmp_path: Path) -> None:
    """One is put back by the administrator, one is preempted by another's job; the submitting process has ended."""
    bench = Command(tmp_path)
    bench.run("local", "--jobs", "2")
    for path in (tmp_path / "cache" / "bases").iterdir():
        path.unlink()
    with slurm() as box:
        bench.environment |= box.environment
        said = bench.run("slurm", "--launcher", "slurm", "--set", "slurm.partition=main,slurm.timeout_min=20")
        assert f"{RUNS} runs submitted" in said
        assert "4 base models submitted" in said
        assert Counter(run["state"] for run in bench.states()) == {"waiting": RUNS}
        assert "nothing to submit" in bench.run("slurm", "--launcher", "slurm")
        requeued = _under_way(tmp_path / "slurm", seed=0)
        box.run("scontrol", "requeue", _job(requeued))
        preempted = _under_way(tmp_path / "slurm", seed=1)
        box.run("sbatch", "--partition=urgent", "--cpus-per-task=2", "--output=/dev/null", "--wrap", "sleep 2")
        wait_until(lambda: not box.run("squeue", "--noheader"), 200)
        restarts = {run: _restarts(box, run) for run in (requeued, preempted)}
    assert min(restarts.values()) >= 1
    assert Counter(run["state"] for run in bench.states()) == {"done": RUNS}
    assert bench.tables("slurm") == bench.tables("local")
    assert "stopped, as it was asked to" in (preempted / "log.txt").read_text()
    for run, count in restarts.items():
        log = (run / "log.txt").read_text()
        assert log.count("started on") == count + 1
        assert "goes on after step" in log
        assert all(log.count(f" step {step}: mIoU") == 1 for step in range(6)), log
    assert list(tmp_path.glob("slurm/**/claim")) == []


def _under_way(out: Path, seed: int) -> Path:
    """Wait until a slow run has finished the first of its steps after the base, and return its directory."""
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline:
        for steps in out.rglob(f"{SLOW}/*-seed{seed}/steps.csv"):
            if steps.read_text().count("\n") == 3:
                return steps.parent
        time.sleep(0.02)
    raise AssertionError("it came never so far")


def _job(run: Path) -> str:
    job: str = json.loads((run / "submitted.json").read_text())["job"]
    return job


def _restarts(box: SlurmBox, run: Path) -> int:
    shown = box.run("scontrol", "show", "job", _job(run), "--oneliner")
    return int(shown.split("Restarts=")[1].split()[0])


def test_what_is_cancelled_leaves_the_queue_and_can_be_submitted_again(tmp_path: Path) -> None:
    bench = Command(tmp_path)
    with slurm() as box:
        bench.environment |= box.environment
        bench.run("slurm", "--launcher", "slurm", "--set", 'slurm.additional_parameters={"hold": true}')
        assert {run["detail"].split()[2] for run in bench.states()} == {"PENDING"}
        assert "12 runs cancelled, 4 base models" in bench("cancel", "--runs", str(tmp_path / "slurm"))
        wait_until(lambda: not box.run("squeue", "--noheader"), 30)
        assert {run["detail"] for run in bench.states()} == {
            "no process is at it; `bench run` or `bench run-one` goes on"
        }
        said = bench.run("slurm", "--launcher", "slurm", "--set", 'slurm.additional_parameters={"hold": true}')
        assert f"{RUNS} runs submitted" in said
