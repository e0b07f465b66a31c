"""`bench status` tells from directories, claims and the queue what is done, running, waiting and failed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from bench.cli.entry import main
from bench.launch.claims import Claims
from bench.launch.queue import cancel, queue_states, started
from bench.launch.status import RunState, print_states, run_states
from bench.launch.submitted import Submitted, read_submitted, write_submitted
from bench.plan.folders import claim_of
from benchmarks.cache import cache_folder

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
        (tmp_path / f"{job}.err").touch()
        log = str(tmp_path / f"{job}.err")
        record = Submitted("slurm", "somebody", job, "16_0", "ab12", log, "/code", str(made[name]))
        write_submitted(made[name], record)
    return made


def test_every_state_is_told_with_its_reason(runs: dict[str, Path], tmp_path: Path) -> None:
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
        "lost": ("failed", f"job 17_4 left the queue before the run was done; see {tmp_path}/17_4.err"),
    }
    assert {run.folder.name for run in found if run.stale == ("older code",)} == {"done"}
    steps = {run.folder.name: run.steps for run in found}
    assert steps["fresh"] == 0
    assert steps["done"] == len((runs["done"] / "steps.csv").read_text().splitlines()) - 1


def test_a_queue_that_does_not_answer_makes_no_run_fail(runs: dict[str, Path]) -> None:
    found = {run.folder.name: run.state for run in run_states(runs["done"].parents[2], lambda jobs: None)}
    assert found["queued"] == found["lost"] == "waiting"
    assert found["failed"] == "failed"


@pytest.mark.parametrize(
    ("queue", "state", "detail"),
    [
        (
            {"17_3": "PENDING (Dependency)", "16_0": "PENDING (Resources)"},
            "waiting",
            "job 17_3 PENDING (Dependency), its base model's job 16_0 PENDING (Resources)",
        ),
        ({"17_3": "RUNNING"}, "running", "job 17_3 RUNNING"),
        ({"17_3": "COMPLETING"}, "waiting", "job 17_3 COMPLETING"),
    ],
)
def test_what_the_queue_says_of_a_run_and_of_its_base_model_is_told(
    queue: dict[str, str], state: str, detail: str, runs: dict[str, Path]
) -> None:
    [told] = run_states(runs["queued"], lambda jobs: queue)
    assert (told.state, told.detail) == (state, detail)


def test_a_run_that_ends_while_the_queue_is_asked_is_done(runs: dict[str, Path]) -> None:
    def ask(jobs: object) -> dict[str, str]:
        (runs["queued"] / "done").touch()
        return {}

    [told] = run_states(runs["queued"], ask)
    assert told.state == "done"


def test_a_job_that_never_began_has_no_log_to_be_looked_at(runs: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "17_3.err").unlink()
    [told] = run_states(runs["queued"], lambda jobs: {})
    assert (told.state, told.detail) == ("failed", "job 17_3 left the queue before it began")


@pytest.mark.parametrize("below", [(), ("voc-15-1-disjoint",), ("voc-15-1-disjoint", "er", "failed")])
def test_a_part_of_the_runs_is_told_by_the_same_names(
    below: tuple[str, ...], runs: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("queued", "lost"):
        (runs[name] / "submitted.json").unlink()
    assert _exit_status("status", "--runs", str(runs["done"].parents[2].joinpath(*below))) == 0
    said = capsys.readouterr().out
    assert "failed   voc-15-1-disjoint/er/failed: 6 steps done; ValueError: no such thing" in said
    assert any(line.split()[:1] == ["voc-15-1-disjoint"] for line in said.splitlines())


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


def test_waiting_runs_that_are_not_listed_are_counted_by_strategy(capsys: pytest.CaptureFixture[str]) -> None:
    folders = [Path("runs/s") / name / f"a1-seed{seed}" for name in ("er", "mib") for seed in range(12)]
    print_states([RunState(folder, "waiting", 0, "alone") for folder in folders], Console(width=60))
    said = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("waiting  s/") for line in said) == 20
    assert said[-1] == "waiting  4 more: s/mib 4"


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["status", "--runs"], ["cancel", "--runs"], ["cancel"]):
        assert _exit_status(*command, str(tmp_path / "none")) == 2
        assert "there is no such folder of runs" in capsys.readouterr().err


def _exit_status(*arguments: str) -> object:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return ended.value.code


FAMILY = "sleep 60 & echo $!; trap '' TERM; wait"
"""A process that starts another, and does not listen."""


def test_cancelling_a_local_job_ends_its_processes_and_forgets_it(runs: dict[str, Path]) -> None:
    process = subprocess.Popen(["sh", "-c", FAMILY], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    _give(runs["queued"], process.pid)
    assert queue_states([read_submitted(runs["queued"])]) == {str(process.pid): "RUNNING"}
    cancel([runs["queued"], runs["fresh"]], Console(quiet=True))
    assert process.wait(10) == -signal.SIGKILL
    deadline = time.monotonic() + 10
    while psutil.pid_exists(child) and psutil.Process(child).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
    assert read_submitted(runs["queued"]) is None
    process.stdout.close()


@pytest.mark.parametrize("how", ["its number was used again", "its run is done"])
def test_cancelling_ends_no_process_that_is_not_the_job(how: str, runs: dict[str, Path]) -> None:
    process = subprocess.Popen(["sleep", "60"])
    if how == "its run is done":
        _give(runs["done"], process.pid)
    else:
        _give(runs["queued"], process.pid, earlier=100)
        assert queue_states([read_submitted(runs["queued"])]) == {}
    cancel([runs["done"], runs["fresh"], runs["queued"]], Console(quiet=True))
    assert process.poll() is None
    process.kill()
    process.wait()


def _give(run: Path, pid: int, earlier: float = 0.0) -> None:
    """Have a process stand for the job of a run."""
    began = started(pid)
    assert began is not None
    (run.parent / "lost" / "submitted.json").unlink(missing_ok=True)
    (run.parent / "queued" / "submitted.json").unlink(missing_ok=True)
    record = Submitted("local", "somebody", str(pid), None, None, "/log", "/code", str(run), began - earlier)
    write_submitted(run, record)


@pytest.mark.parametrize(
    "change", [{"started": "x"}, {"user": 3}, {"cluster": "other"}, {"folder": None}, {"more": 1}, None]
)
def test_a_damaged_record_of_a_job_is_none(change: dict[str, object] | None, runs: dict[str, Path]) -> None:
    file = runs["queued"] / "submitted.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}) if change else "{")
    assert read_submitted(runs["queued"]) is None


def test_a_copy_of_a_directory_has_no_job(runs: dict[str, Path], tmp_path: Path) -> None:
    copy = shutil.copytree(runs["queued"], tmp_path / "copy")
    assert read_submitted(runs["queued"]) is not None
    assert read_submitted(copy) is None
    shutil.rmtree(runs["queued"])  # the same folder may have other paths elsewhere
    assert read_submitted(copy) is not None


def test_a_base_model_that_is_being_trained_is_told(runs: dict[str, Path]) -> None:
    base_hash = "5eed" * 16
    with (runs["fresh"] / "spec.yaml").open("a") as spec:
        spec.write(f"base:\n  hash: {base_hash}\n")
    with Claims() as claims:
        claims.take(cache_folder("bases") / f"{base_hash}.claim")
        [told] = run_states(runs["fresh"], lambda jobs: {})
    assert told.state == "waiting"
    assert told.detail.startswith(f"its base model is being trained by process {os.getpid()} on ")


def test_no_cache_is_needed(
    runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BENCH_CACHE", "/proc/nothing")
    assert _exit_status("status", "--runs", str(runs["fresh"])) == 0
    assert "no process is at it" in capsys.readouterr().out


def test_what_cannot_be_read_hides_no_other(runs: dict[str, Path]) -> None:
    out = runs["done"].parents[2]
    (runs["failed"] / "claim").symlink_to("claim")
    runs["lost"].chmod(0)
    command = [sys.executable, "-m", "bench", "status", "--runs", str(out)]
    if os.geteuid() == 0:
        command = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", *command]
    (runs["queued"] / "submitted.json").unlink()
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    runs["lost"].chmod(0o700)
    assert told.returncode == 1
    assert told.stderr == f"bench: {runs['lost']}: cannot be read (Permission denied)\n"
    row = next(line.split() for line in told.stdout.splitlines() if "voc-15-1" in line)
    assert row == ["voc-15-1-disjoint", "5", "1", "0", "3", "1"]
    assert "it cannot be read (Too many levels of symbolic links" in told.stdout


@pytest.mark.long
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
    *_, total, _, stale = capsys.readouterr().out.splitlines()
    assert total.split() == ["all", "1000", "1000", "0", "0", "0"]
    assert stale.startswith("1000 of 1000 finished runs were made by older code")
    record_property("says", f"bench status of 1,000 runs: {time.perf_counter() - started:.2f} s")
