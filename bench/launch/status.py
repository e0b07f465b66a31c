"""`bench status`: what is done, running, waiting and failed, told from run directories and the queue."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from bench.launch.claims import holder, is_claimed
from bench.launch.submitted import Submitted, read_submitted
from bench.plan.folders import claim_of, walk_runs
from bench.plan.spec import made_by
from bench.plan.stale import stale_text, staleness
from bench.screen.words import several
from benchmarks.cache import cache_folder
from benchmarks.errors import DataError
from reports.division import EARLIER_DIVISION, by_earlier_division
from reports.files import RecordError
from reports.spec import read_spec

State = Literal["done", "running", "waiting", "failed"]
STATES: tuple[State, ...] = ("done", "running", "waiting", "failed")
SHOWN_WAITING = 20
"""Waiting runs that are listed; the others are counted by scenario and strategy."""

Queue = Mapping[str, str]
"""The state of each job that is in the queue, in Slurm's words."""


@dataclass(frozen=True)
class RunState:
    """What is known of a run without reading its results."""

    folder: Path
    state: State
    steps: int
    """Finished ones."""
    detail: str
    """Where it runs, what it waits for, or why it failed."""
    stale: tuple[str, ...] = ()
    """Of one that is done: what made it, if that is not what would make it here."""
    earlier_division: bool = False
    """Whether its steps have other images than those of its scenario have now: it does not go on."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {**dataclasses.asdict(self), "folder": str(self.folder)}


def run_states(
    runs: Path,
    ask_queue: Callable[[Iterable[Submitted | None]], Queue | None],
    unreadable: Callable[[OSError], object] | None = None,
) -> list[RunState]:
    """Return the state of every run below a folder, sorted by path.

    `ask_queue` is given the jobs of the runs that are not done, and returns None where the queue does not answer.
    `unreadable` is told of each folder that cannot be looked into.
    """
    found = sorted(walk_runs(runs, unreadable))
    records = {folder: read_submitted(folder) for folder, names in found if "done" not in names}
    queue = ask_queue(records.values())
    trained = _bases_in_training() if records else {}
    states = [_state(folder, names, records.get(folder), queue, trained) for folder, names in found]
    made_here = cache(made_by)
    return [_with_record(run, made_here) for run in states]


def _bases_in_training() -> dict[str, str]:
    """Return by whom base models are being trained now, by hash."""
    trained = {}
    with suppress(OSError, DataError):  # the cache may be another machine's
        for claim in cache_folder("bases").glob("*.claim"):
            if is_claimed(claim):
                trained[claim.stem] = holder(claim)
    return trained


def _state(
    folder: Path, names: frozenset[str], record: Submitted | None, queue: Queue | None, trained: Mapping[str, str]
) -> RunState:
    if "done" in names:
        return RunState(folder, "done", _steps(folder), "")
    try:
        state, detail = _unfinished(folder, names, record, queue, trained)
    except OSError as error:
        state, detail = "failed", f"it cannot be read ({error.strerror}: {error.filename})"
    return RunState(folder, state, _steps(folder), detail)


def _with_record(run: RunState, made_here: Callable[[str, str | None, tuple[str, ...]], Mapping[str, Any]]) -> RunState:
    """Return the state with what the spec tells, if that is sound."""
    try:
        spec = read_spec(run.folder)
    except RecordError:
        return run
    stale = tuple(staleness(spec, made_here)) if run.state == "done" else ()
    return dataclasses.replace(run, stale=stale, earlier_division=by_earlier_division(spec))


def _unfinished(
    folder: Path, names: frozenset[str], record: Submitted | None, queue: Queue | None, trained: Mapping[str, str]
) -> tuple[State, str]:
    claim = claim_of(folder)
    if "claim" in names and is_claimed(claim):
        return "running", holder(claim)
    if record and queue and (told := _queued(record, queue)):
        return told
    if "error.txt" in names:
        return "failed", _last_line(folder / "error.txt")
    if record and queue is None:
        return "waiting", f"job {record.job}; the queue does not answer"
    if (folder / "done").exists():  # since the folder was listed
        return "done", ""
    if record and record.job:
        if not record.log or not Path(record.log).exists():
            return "failed", f"job {record.job} left the queue before it began"
        return "failed", f"job {record.job} left the queue before the run was done; see {record.log}"
    spec = _text(folder / "spec.yaml") if trained else ""
    for base_hash, trainer in trained.items():
        if base_hash in spec:
            return "waiting", f"its base model is being trained by {trainer}"
    return "waiting", "no process is at it; `bench run` or `bench run-one` goes on"


def _queued(record: Submitted, queue: Queue) -> tuple[State, str] | None:
    """Return what the queue tells of a run and of the base model that it waits for, None if it tells nothing."""
    base = ""
    if record.base_job and record.base_job in queue:
        base = f"its base model's job {record.base_job} {queue[record.base_job]}"
    if not record.job or record.job not in queue:
        return ("waiting", f"{base}; the run is not submitted: `bench run` does it") if base else None
    state = queue[record.job]
    told = f"job {record.job} {state}, {base}" if base else f"job {record.job} {state}"
    return ("running" if state.startswith("RUNNING") else "waiting"), told


def _steps(folder: Path) -> int:
    with suppress(OSError):
        return max(0, (folder / "steps.csv").read_bytes().count(b"\n") - 1)
    return 0


def _last_line(path: Path) -> str:
    return _text(path).strip().rpartition("\n")[2]


def _text(path: Path) -> str:
    with suppress(OSError):
        return path.read_text(encoding="utf-8", errors="replace")
    return ""


def print_states(states: Sequence[RunState], console: Console) -> None:
    """Print how many runs of each scenario are in which state, and every run that is not done."""
    console.print(_counts(states))
    if earlier := sum(run.earlier_division for run in states):
        console.print(f"{earlier} of {len(states)} runs: {EARLIER_DIVISION}", highlight=False, soft_wrap=True)
    done = [run for run in states if run.state == "done"]
    if stale := [run.stale for run in done if run.stale]:
        console.print(stale_text(stale, len(done)), markup=False, highlight=False, soft_wrap=True)
    waiting = [run for run in states if run.state == "waiting"]
    others = {run.folder: run for run in waiting[SHOWN_WAITING:]}
    for run in states:
        if run.state == "done" or run.folder in others:
            continue
        text = f"{run.state:<8} {'/'.join(_names(run))}: {several(run.steps, 'step')} done; {run.detail}"
        if run.earlier_division:
            text += f"; {EARLIER_DIVISION}, it does not go on"
        console.print(text, markup=False, highlight=False, soft_wrap=True)
    if others:
        counts = Counter("/".join(_names(run)[:2]) for run in others.values())
        told = ", ".join(f"{name} {count}" for name, count in counts.items())
        console.print(f"waiting  {len(others)} more: {told}", markup=False, highlight=False, soft_wrap=True)


def _names(run: RunState) -> tuple[str, ...]:
    """Return the run's scenario, its strategy and its own name."""
    return run.folder.resolve().parts[-3:]


def _counts(states: Sequence[RunState]) -> Table:
    table = Table(box=SIMPLE, pad_edge=False)
    table.add_column("scenario", overflow="fold")
    for name in ("runs", *STATES):
        table.add_column(name, justify="right", no_wrap=True)
    rows: dict[str, Counter[str]] = {}
    for run in states:
        rows.setdefault(_names(run)[0], Counter())[run.state] += 1
    rows["all"] = Counter(run.state for run in states)
    for scenario, count in rows.items():
        table.add_row(scenario, str(sum(count.values())), *(str(count[state]) for state in STATES))
    return table
