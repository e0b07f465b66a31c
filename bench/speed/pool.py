"""Measurement of the local pool: runs side by side against the same runs one after another."""

from __future__ import annotations

import os
import re
import tempfile
import time
from pathlib import Path

from bench.imports import output_of_bench

GRID = ["--strategies", "finetune,er,agem,lwf-mc,icarl,mib,coriseg,ours", "--seeds", "0,1,2"]
RUNS = 24
SCENARIO = "shapes-15-1-disjoint"


def pool(data_root: Path | None) -> None:
    """Print the wall time of 24 runs, base models included: a process of one thread a core against one with all."""
    cores = os.cpu_count() or 1
    print(f"pool: {RUNS} runs of {SCENARIO} and their base models, from an empty cache but for the images")
    with tempfile.TemporaryDirectory() as scratch:
        _run(Path(scratch), "warm", "--strategies", "joint", "--set", "base.epochs=1")
        one = _timed(Path(scratch), f"one process, {cores} threads", 1, cores)
        many = _timed(Path(scratch), f"{cores} processes, one thread each", cores, 1)
    print(f"  ratio {many / one:.2f}")


def _timed(scratch: Path, name: str, jobs: int, threads: int) -> float:
    started = time.perf_counter()
    said = _run(scratch, str(jobs), *GRID, "--jobs", str(jobs), "--set", f"runtime.threads={threads}")
    seconds = time.perf_counter() - started
    bases = len(re.findall(r"^base .*: done$", said, re.MULTILINE))
    print(f"  {name:<32} {seconds:7.1f} s, {bases} base models trained", flush=True)
    return seconds


def _run(scratch: Path, out: str, *arguments: str) -> str:
    run = ["run", "--scenario", SCENARIO, "--out", str(scratch / out), *arguments]
    return output_of_bench(run, scratch, {"BENCH_CACHE": str(scratch / "cache")})
