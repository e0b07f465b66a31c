"""A grid that is killed again and again ends as if nothing had happened; two commands share one."""

from __future__ import annotations

import csv
import os
import random
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

import bench
from reports.records import find_runs

RUNS, KILLS = 4, 10
VOC = ("voc-15-1-disjoint", "data.size=16", "base.epochs=4", "base.batch_size=8", "incremental.batch_size=2")
"""Of few images, in many steps."""

DRIVER = """
import os, random, signal, sys, time
from contextlib import suppress
from pathlib import Path

import psutil

import bench.train.epochs, bench.train.run
from bench.cli.entry import main

bench.train.epochs.CHECKPOINT_SECONDS = 0.0
real = Path.replace

def dying(moment):
    # Die while the moment-th file is written, with a part of its content in place.
    calls = 0
    def replace(self, target):
        nonlocal calls
        calls += 1
        if calls == moment:
            self.write_bytes(self.read_bytes()[: random.randrange(self.stat().st_size + 1)])
            os.kill(os.getpid(), signal.SIGKILL)
        return real(self, target)
    return replace

def live(arguments, file=None, seconds=None, pool=None):
    # A `bench` of its own; return whether it was killed. With `pool` one of its processes is killed first.
    child = os.fork()
    if child == 0:
        if file is not None:
            Path.replace = dying(file)
        main([*arguments, *(["--jobs", "2"] if pool else [])])
    if pool is not None:
        time.sleep(pool)
        others = psutil.Process(child).children(recursive=True)
        for other in random.sample(others, min(1, len(others))):
            with suppress(psutil.NoSuchProcess):
                other.kill()
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    print("LIFE killed" if os.WIFSIGNALED(status) else f"LIFE ended {os.waitstatus_to_exitcode(status)}", flush=True)
    return os.WIFSIGNALED(status)

random.seed(int(sys.argv[1]))
wanted, whole, cut, arguments, killed = int(sys.argv[2]), *sys.argv[3:5], sys.argv[5:], 0
live([*arguments, "--out", whole])
for path in (Path(os.environ["BENCH_CACHE"]) / "bases").iterdir():
    path.unlink()
print("NOW", flush=True)
arguments += ["--out", cut]
moments = {
    "file": lambda: {"file": random.randrange(1, 12)},
    "time": lambda: {"seconds": random.uniform(0.3, 1.5)},
    "pool": lambda: {"pool": random.uniform(2.5, 4.5), "seconds": random.uniform(0, 0.5)},
}
kinds = random.sample(["file", "time"] * (wanted // 2 - 1) + ["pool"] * 2, wanted)
while killed < wanted:
    if live(arguments, **moments[kinds[killed]]()):
        killed += 1
    else:  # hardly anything is left to do
        moments["file"] = lambda: {"file": 1}
live(arguments)
"""


@pytest.fixture
def environment(tmp_path: Path, bench_cache: Path) -> dict[str, str]:
    """Processes have a cache of the test's own, but for the images: base models and claims are its own."""
    (tmp_path / "cache").mkdir()
    for name in ("packed", "presence", "images"):
        (bench_cache / name).mkdir(exist_ok=True)
        (tmp_path / "cache" / name).symlink_to(bench_cache / name)
    return {**os.environ, "PYTHONPATH": str(Path(bench.__file__).parents[1]), "BENCH_CACHE": str(tmp_path / "cache")}


def arguments(scenario: str, *settings: str) -> list[str]:
    given = [word for setting in (*settings, "memory.size=20") for word in ("--set", setting)]
    grid = ["--strategies", "er,mib", "--seeds", "0,1", "--jobs", "1"]
    return ["run", *grid, "--scenario", scenario, *given]


def results(out: Path) -> dict[str, object]:
    """Every file that a grid leaves, hidden ones too, but logs; of costs.csv all but times and the process's memory."""
    kept = (path for path in out.rglob("*") if path.is_file() and path.name != "log.txt")
    return {str(p.relative_to(out)): costs(p) if p.name == "costs.csv" else p.read_bytes() for p in kept}


def costs(file: Path) -> list[dict[str, str]]:
    """The rows of costs.csv, without what equal runs do not have in common."""
    times = {"seconds", "evaluation_seconds", "peak_ram_bytes"}
    with file.open() as text:
        return [{k: v for k, v in row.items() if k not in times} for row in csv.DictReader(text)]


def python(environment: dict[str, str], *command: str) -> str:
    command = (sys.executable, *command)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.long
def test_a_grid_killed_again_and_again_ends_byte_for_byte_as_one_left_alone(
    tmp_path: Path, environment: dict[str, str], data_root: Path, record_property: Callable[[str, object], None]
) -> None:
    """At random moments, while files are being written, and one process of several before the others.

    Whatever was finished is not computed again.
    """
    of_data = ["--data-root", str(data_root), "--preset", "small"]
    seed, places = random.randrange(1000), [str(tmp_path / name) for name in ("whole", "cut")]
    said = python(environment, "-c", DRIVER, str(seed), str(KILLS), *places, *arguments(*VOC), *of_data)
    said = said.partition("NOW")[2]
    lives = Counter(re.findall(r"^LIFE (.*)$", said, re.MULTILINE))
    steps = Counter(re.findall(r"^\w+ seed \d: step \d mIoU", said, re.MULTILINE))
    bases = Counter(re.findall(r"^base .*: done", said, re.MULTILINE))
    record_property(
        "says",
        f"seed {seed}: {lives['killed']} kills of a grid of {RUNS} runs; {len(steps)} steps and {len(bases)} base "
        f"models were finished, none twice; {said.count('goes on after')} times after a checkpoint",
    )
    assert lives.keys() == {"killed", "ended 0"} and lives["killed"] == KILLS, said
    assert max(steps.values()) == max(bases.values()) == 1, said
    assert len(find_runs(tmp_path / "cut")) == RUNS
    assert results(tmp_path / "cut") == results(tmp_path / "whole")
    assert not [path for path in (tmp_path / "cache" / "bases").iterdir() if path.suffix in (".ckpt", ".claim")]


@pytest.mark.long
def test_two_commands_make_each_run_of_a_grid_once(
    tmp_path: Path, environment: dict[str, str], data_root: Path
) -> None:
    of_data = ["--data-root", str(data_root), "--preset", "small"]
    command = [sys.executable, "-m", "bench", *arguments(*VOC), *of_data, "--out", str(tmp_path / "shared")]
    processes = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=200)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    started = [re.findall(r"^(.* seed \d): started", text, re.MULTILINE) for text in said]
    assert max(Counter(started[0] + started[1]).values()) == 1
    assert all(any("base" not in job for job in jobs) for jobs in started)
    runs = find_runs(tmp_path / "shared")
    assert len(runs) == RUNS
    assert all((run.path / "log.txt").read_text().count("started on") == 1 for run in runs)
    tables = [text[text.index("mIoU in per cent") :] for text in said]
    assert tables[0] == tables[1]
