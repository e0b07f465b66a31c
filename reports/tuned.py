"""A study's best settings on test images: its strategies' runs by them beside those by their default settings."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reports.conventions import background_counts
from reports.records import Run
from reports.rows import BESIDE_TRAINING, flat_settings
from reports.study import Study, Trial

_SECTIONS = ("network", "base", "memory", "data", "protocol", "incremental")
"""Of a run's settings that are those of the trials; evaluation is on another stream, runtime may be another machine."""
_OF_INCREMENTS = "incremental."


@dataclass(frozen=True)
class Tested:
    """What a strategy reaches on test images, the mIoU in per cent after the last step by seed."""

    strategy: str
    default: dict[int, float]
    best: dict[int, float]
    kept: bool
    """Whether its default settings are the best, so that there is one row of runs."""


def on_test_images(study: Study, runs: Sequence[Run]) -> list[Tested]:
    """Return what each strategy of a study reaches on the test images of the whole scenario, as far as there are runs.

    A run counts if all its settings are the study's, but for those that were tuned: these are the first trial's or the
    best one's.
    """
    found = []
    for strategy in study.asked["strategies"]:
        first, best = next(iter(study.of(strategy)), None), study.best(strategy)
        if first is None or best is None:
            continue
        own = [run for run in runs if run.spec["strategy"] == strategy and _of_study(run, study, first)]
        found.append(Tested(strategy, _by_seed(own, first), _by_seed(own, best), best.settings == first.settings))
    return found


def places(rows: Sequence[Tested]) -> dict[str, tuple[int, int]]:
    """Return each strategy's place, 1 the best, by default and by best settings, over the seeds that all rows have.

    {} where rows have no seed in common.
    """
    seeds = set.intersection(*({*row.default} & {*row.best} for row in rows)) if rows else set()
    if not seeds:
        return {}
    default = {row.strategy: statistics.fmean(row.default[seed] for seed in seeds) for row in rows}
    best = {row.strategy: statistics.fmean(row.best[seed] for seed in seeds) for row in rows}
    return {row.strategy: (_place(default, row.strategy), _place(best, row.strategy)) for row in rows}


def _place(means: Mapping[str, float], strategy: str) -> int:
    return 1 + sum(mean > means[strategy] for mean in means.values())


def _of_study(run: Run, study: Study, trial: Trial) -> bool:
    """Whether a run is on the test images of the study's whole scenario, by its settings but those that were tuned."""
    spec, tuned = run.spec, trial.settings.keys()
    return (
        study.asked["scenario"] in (spec["scenario"], spec.get("asked"))
        and spec["conventions"].get("evaluate_on") == "test"
        and _compared(spec["config"], tuned) == _compared(study.asked["config"], tuned)
    )


def _compared(config: dict[str, Any], tuned: Collection[str]) -> dict[str, Any]:
    return {
        key: value
        for key, value in flat_settings(config).items()
        if key.partition(".")[0] in _SECTIONS and key not in tuned and key not in BESIDE_TRAINING
    }


def _by_seed(runs: Sequence[Run], trial: Trial) -> dict[int, float]:
    own = [run for run in runs if all(_value(run, name) == value for name, value in trial.settings.items())]
    return {run.spec["seed"]: _miou(run) for run in own}


def _value(run: Run, name: str) -> Any:
    if name.startswith(_OF_INCREMENTS):
        return run.spec["config"]["incremental"].get(name.removeprefix(_OF_INCREMENTS))
    return run.spec["method"]["parameters"].get(name)


def _miou(run: Run) -> float:
    background = background_counts(run.spec["conventions"])
    return run.steps[-1]["miou" if background else "miou_without_background"]
