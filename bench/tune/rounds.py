"""Rounds of trials: what is tried next, its runs made, and what came out of them."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import takewhile
from pathlib import Path

from rich.console import Console

from bench.launch.execution import Result, leave_kept_bases
from bench.launch.session import execute
from bench.plan.folders import finished_at
from bench.plan.job import Bars
from bench.plan.plan import Plan
from bench.plan.planning import Wanted, plan_of, plugins_named
from bench.train.forkserver import warm_up
from bench.train.work import ended_early
from bench.tune.asked import Study, begin, require_same
from bench.tune.record import record
from bench.tune.sampling import proposals
from bench.tune.space import Space
from reports.files import RecordError, read_rows
from reports.study import Trial

ENOUGH = 4
"""Values of earlier rounds, fewer of which make no median."""

Found = dict[str, list[Trial]]
"""By strategy, its trials in order."""


def tune(study: Study, console: Console) -> tuple[Found, Result]:
    """Try what a study is asked for, round after round; return the trials that have an end, and how the last went.

    Raises `RequestError` or `DataError` before any file is written.
    """
    require_same(study)
    tuning = study.tuning
    if tuning.request.launcher == "local" and tuning.request.jobs != 1:
        warm_up(plugins_named(study.asked.request))
    found: Found = {label: [] for label in study.spaces}
    result = Result([])
    for first in range(0, tuning.trials, tuning.round_size):
        count = min(tuning.round_size, tuning.trials - first)
        going = [label for label in study.spaces if len(found[label]) == first and _has_time(study, found[label])]
        chosen = {
            label: proposals(study.spaces[label], found[label], count, tuning.sampler, tuning.seed) for label in going
        }
        if not chosen:
            break
        made, result = _round(study, found, chosen, console)
        for label, trials in made.items():
            found[label] += trials
        record(study, found, last=False)
        if result.interrupted or result.obstacle or any(len(found[label]) != first + count for label in going):
            break
    record(study, found, last=True)
    return found, result


def _has_time(study: Study, trials: Sequence[Trial]) -> bool:
    limit = study.tuning.wall_time
    return limit is None or sum(trial.seconds for trial in trials) < limit * 60


def _round(
    study: Study, found: Found, chosen: Mapping[str, list[dict[str, float]]], console: Console
) -> tuple[Found, Result]:
    """Make the runs of a round; return its trials in order as far as they have an end, and how it went."""
    seeds = study.asked.request.seeds
    rows = [(label, len(found[label]) + i, each) for label, own in chosen.items() for i, each in enumerate(own)]
    bars = {label: {seed: _bars(study, found[label], seed) for seed in seeds} for label in chosen}
    wanted = [_wanted(study.spaces[label], number, each, bars[label]) for label, number, each in rows]
    plan = plan_of(replace(study.asked, wanted=wanted), console)
    begin(study)
    folders = [plan.folders[i : i + len(seeds)] for i in range(0, len(plan.folders), len(seeds))]
    _make_once(plan)
    leave_kept_bases(plan)
    result = execute(plan, console)
    failed = {run.folder for run in plan.runs if run.key in result.failures}
    made: Found = {label: [] for label in chosen}
    complete = set(chosen)
    for (label, number, settings), own in zip(rows, folders, strict=True):
        trial = _trial(study, (label, number, settings), own, failed, bars[label])
        if trial is None:
            complete.discard(label)
        elif label in complete:  # what follows a trial without an end is told when that has one
            made[label].append(trial)
    return made, result


def _wanted(space: Space, number: int, chosen: dict[str, float], bars: dict[int, Bars]) -> Wanted:
    return replace(space.with_chosen(chosen), prefix=f"trial {number} ", bars=bars)


def _make_once(plan: Plan) -> None:
    """Leave one job to each run: two trials may have the same settings."""
    plan.runs = list({run.folder: run for run in reversed(plan.runs)}.values())[::-1]
    plan.folders = list(dict.fromkeys(plan.folders))


def _bars(study: Study, trials: Sequence[Trial], seed: int) -> Bars:
    """Return by step, the first and the last without one, the median of a seed's mIoU in earlier rounds' trials."""
    if not study.tuning.prunes:
        return ()
    place = list(study.asked.request.seeds).index(seed)
    mious = [_mious(study.folder / trial.runs[place]) for trial in trials if trial.state != "failed"]
    longest = max(map(len, mious), default=0)
    by_step = [[own[step] for own in mious if step < len(own)] for step in range(longest)]
    known = [statistics.median(own) if len(own) >= ENOUGH else None for own in by_step]
    return (None, *known[1:-1]) if longest > 2 else ()


def _trial(
    study: Study,
    tried: tuple[str, int, dict[str, float]],
    runs: Sequence[Path],
    failed: set[Path],
    bars: Mapping[int, Bars],
) -> Trial | None:
    """Return what came out of a trial's runs; None while one of them has no end."""
    label, number, settings = tried
    seeds = study.asked.request.seeds
    early = any(ended_early(run, bars[seed]) for run, seed in zip(runs, seeds, strict=True))
    done = all(finished_at(run) for run in runs)
    if not (early or done or any(run in failed for run in runs)):
        return None
    mious = [_mious(run) for run in runs]
    steps = takewhile(lambda step: all(step < len(own) for own in mious), range(max(map(len, mious))))
    means = tuple(round(statistics.fmean(own[step] for own in mious), 4) for step in steps)
    return Trial(
        label,
        number,
        "pruned" if early else "done" if done else "failed",
        means[-1] if done and not early else None,
        means,
        sum(map(_seconds, runs)),
        settings,
        tuple(str(run.relative_to(study.folder)) for run in runs),
    )


def _mious(run: Path) -> list[float]:
    """The mIoU in per cent after each step that a run has made."""
    return [row["miou"] for row in _rows(run / "steps.csv")]


def _seconds(run: Path) -> float:
    return sum(row.get("seconds", 0.0) + row.get("evaluation_seconds", 0.0) for row in _rows(run / "costs.csv"))


def _rows(path: Path) -> list[dict[str, float]]:
    try:
        return read_rows(path)
    except RecordError:
        if path.exists():
            raise
        return []
