"""`bench reproduce`: tables as runs: which are finished, which are missing, what they will cost."""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from bench.launch.execution import Result, say_stale
from bench.launch.session import execute, prepare_all
from bench.plan.plan import Plan
from bench.plan.request import Request
from bench.screen.words import several
from bench.settings.assignments import with_own_option
from bench.settings.errors import RequestError
from benchmarks.cache import cache_folder
from reports.grids import needed
from reports.notes import missing_notes, notes
from reports.offline_table import offline_scenarios, offline_splits
from reports.records import Run, Unfinished, find_runs, find_unfinished
from strategies.learning.registry import STRATEGIES, method_class

if TYPE_CHECKING:
    from bench.plan.job import BaseJob, RunJob


def requests_for(tables: Sequence[int], on: str, common: Request) -> list[Request]:
    """Return the requests that tables need, one per scenario and memory size; a run that two tables need once.

    `common` holds what all requests share; `on` is as for `reports.grids.grid`.
    """
    strategies: dict[tuple[str, int], dict[str, None]] = defaultdict(dict)
    for table in tables:
        for need in needed(table, on):
            strategies[need.scenario, need.memory][need.strategy] = None
    return [
        replace(
            common,
            scenario=scenario,
            strategies=list(labels),
            assignments=with_own_option(common.assignments, "memory.size", memory, "the tables' memory.size"),
            prefix=f"{scenario} BM {memory} ",
        )
        for (scenario, memory), labels in strategies.items()
    ]


def offline_requests(on: str, common: Request, splits: Sequence[str] | None = None) -> list[Request]:
    """Return the requests of the field's offline table on a data set: every built-in method that it is defined for.

    `splits` are those of its scenarios that are wanted, as `15-5`; by default all.
    """
    known = offline_splits(on)
    unknown = [split for split in splits or () if split not in known]
    if unknown or splits == []:
        raise RequestError(f"--scenarios {','.join(unknown)}: allowed on {on} are {', '.join(known)}")
    methods = [name.rpartition(":")[2] for name in STRATEGIES.built_in_names()]
    defined = [name for name in methods if {"offline", "joint"} & set(method_class(name).protocols)]
    labels = [_as_tabled(name, on) for name in defined]
    assignments = with_own_option(common.assignments, "protocol", "offline", "the table's protocol")
    return [
        replace(common, scenario=name, strategies=labels, assignments=assignments, prefix=f"{name} ")
        for name in offline_scenarios(on, splits)
    ]


_SALIENCY = {"shapes": "spectral", "scenes": "none", "ade": "none"}
"""By data set, what stands in for saliency maps where there are none, or as ADE20K's published numbers have it."""


def _as_tabled(method: str, on: str) -> str:
    """Return a method's label in the table of a data set."""
    names = {parameter.name for parameter in dataclasses.fields(method_class(method).Parameters)}
    return f"{method}(saliency={_SALIENCY[on]})" if "saliency" in names and on in _SALIENCY else method


@dataclass(frozen=True)
class Estimate:
    """Seconds of work that a plan's jobs are expected to take; None where nothing like them was measured yet."""

    bases: float | None
    runs: float | None

    def hours(self, workers: int) -> float | None:
        """Return the hours that all of it takes on so many workers."""
        if self.bases is None or self.runs is None:
            return None
        return (self.bases + self.runs) / workers / 3600


def estimate(plan: Plan, finished: Iterable[Run]) -> Estimate:
    """Estimate a plan's cost from finished runs (seconds per incoming batch) and kept base models (per update)."""
    run_rates = _rates((*_run_kind(run), _seconds_per_batch(run)) for run in finished)
    base_rates = _rates(_measured_bases())
    return Estimate(
        _sum(base_rates, plan.bases.values(), _base_kind),
        _sum(run_rates, plan.runs, lambda job: (job.spec["method"]["name"], _network(job), job.device)),
    )


def _rates(measured: Iterable[tuple[Any, ...]]) -> dict[tuple[Any, ...], float]:
    """Return the median of the last column by the others."""
    found: dict[tuple[Any, ...], list[float]] = defaultdict(list)
    for *kind, rate in measured:
        found[tuple(kind)].append(rate)
    return {kind: statistics.median(rates) for kind, rates in found.items()}


def _sum(
    rates: dict[tuple[Any, ...], float],
    jobs: Iterable[Any],
    kind_of: Callable[[Any], tuple[Any, ...]],
) -> float | None:
    """Return the jobs' seconds; one of a kind not measured takes what the others of its machine do on average."""
    total = 0.0
    for job in jobs:
        kind = kind_of(job)
        alike = [rate for other, rate in rates.items() if other[-2:] == kind[-2:]]
        if not alike:
            return None
        total += job.units * rates.get(kind, statistics.mean(alike))
    return total


def _network(job: BaseJob | RunJob) -> str:
    return str(job.config.network.name)


def _base_kind(job: BaseJob) -> tuple[int, str, str]:
    return job.devices, _network(job), job.device


def _run_kind(run: Run) -> tuple[str, str, str]:
    config = run.spec["config"]
    return run.spec["method"]["name"], config["network"]["name"], config["runtime"]["device"]


def _seconds_per_batch(run: Run) -> float:
    seconds = sum(cost["seconds"] + cost.get("evaluation_seconds", 0.0) for cost in run.costs)
    return seconds / max(1.0, sum(cost["incoming_batches"] for cost in run.costs))


def _measured_bases() -> Iterable[tuple[int, str, str, float]]:
    for file in cache_folder("bases").glob("[!.]*.json"):
        kept = json.loads(file.read_text(encoding="utf-8"))
        yield kept.get("devices", 1), kept["network"], kept["device"], kept["seconds_per_update"]


Write = Callable[[Sequence[Run], Sequence[Unfinished]], list[Path]]
"""From the runs that are finished, and those that are not, to the files of the tables."""


def reproduce(requests: Sequence[Request], common: Request, write: Write, dry: bool, console: Console) -> Result:
    """Show what tables need, make what is missing unless `dry`, and write them."""
    plan = prepare_all(requests, console)
    runs = find_runs(common.out) if common.out.is_dir() else []
    console.print(overview(requests, plan))
    _say_cost(plan, estimate(plan, runs), console)
    if dry:
        say_stale(plan, console)
        return Result([])
    result = execute(plan, console)
    unfinished = [run for run in find_unfinished(common.out) if run.path in plan.folders]
    for path in write(result.runs, unfinished):
        console.print(str(path), markup=False, highlight=False, soft_wrap=True)
    for note in (*missing_notes(result.runs, unfinished), *notes(result.runs)):
        console.print(f"note: {note}", markup=False, highlight=False, soft_wrap=True)
    return result


def overview(requests: Sequence[Request], plan: Plan) -> Table:
    """Return a row per scenario and memory size: how many of its runs are finished."""
    missing = {run.folder for run in plan.runs}
    folders = iter(plan.folders)
    table = Table(box=SIMPLE, pad_edge=False)
    for name in ("scenario", "runs", "finished", "missing"):
        table.add_column(name, justify="left" if name.startswith("scenario") else "right", no_wrap=True)
    for request in requests:
        count = len(request.strategies) * len(request.seeds)
        lacking = sum(next(folders) in missing for _ in range(count))
        table.add_row(request.prefix.strip(), str(count), str(count - lacking), str(lacking))
    table.add_row("all", str(len(plan.folders)), str(len(plan.folders) - len(missing)), str(len(missing)))
    return table


def _say_cost(plan: Plan, cost: Estimate, console: Console) -> None:
    own = sum(run.spec["base"] is not None for run in plan.runs)
    bases = len({run.spec["base"]["hash"] for run in plan.runs if run.spec["base"]})
    console.print(
        f"{several(bases, 'base model')} for {several(own, 'run')}; to be trained: {len(plan.bases)}", highlight=False
    )
    hours = cost.hours(plan.workers)
    if hours is None:
        text = "not known: nothing like it has been measured on this machine yet"
    else:
        text = f"about {hours:.1f} hours on {several(plan.workers, 'worker')}"
    console.print(f"expected time: {text}", highlight=False)
