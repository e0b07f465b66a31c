"""The best settings of a study, as a file that `bench run --config` takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from bench.settings.errors import RequestError
from bench.settings.strategies import parse_strategies
from bench.tune.space import divided
from reports.atomic import write_atomic
from reports.study import Study, read_study

_HEAD = """\
# The best of each strategy's trials by `bench tune`, on held-out training images of {steps};
# for `bench run --config {name}`. Strategies that are not below have their best settings as they are.
"""


def apply_study(folder: Path, file: Path | None = None) -> Path:
    """Write the best settings of a complete study, by default to its `best.yaml`, and return that file.

    Raises `RequestError` where a strategy lacks trials, or two of one method were tuned: a file has one of each.
    """
    study = read_study(folder)
    _require_complete(study)
    parameters: dict[str, dict[str, float]] = {}
    increments: dict[str, dict[str, Any]] = {}
    titles: list[str] = []
    for label in study.asked["strategies"]:
        (request,) = parse_strategies([label])
        if request.title in titles:
            raise RequestError(f"{folder}: it has tuned several {request.title}, a file of settings has one of each")
        titles.append(request.title)
        best = study.best(label)
        if best is None or best.number == 0:
            continue
        own, rates = divided(best.settings)
        parameters.update({request.title: own} if own else {})
        increments.update({request.title: {"incremental": rates}} if rates else {})
    settings = {"study": study.digest, "strategies": parameters, "methods": increments}
    path = folder / "best.yaml" if file is None else file
    told = _HEAD.format(steps=study.steps_told, name=path.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, told + yaml.safe_dump({k: v for k, v in settings.items() if v}, sort_keys=False))
    return path


def _require_complete(study: Study) -> None:
    """Raise `RequestError` where a strategy has fewer trials than the others may have."""
    wanted = study.asked["trials"]
    for label in study.asked["strategies"]:
        trials = study.of(label)
        spent = sum(trial.seconds for trial in trials) / 60
        limit = study.asked["wall_time_minutes"]
        if len(trials) < wanted and (limit is None or spent < limit):
            raise RequestError(
                f"{study.folder}: {label} has {len(trials)} of {wanted} trials; "
                "`bench tune` with the study's options goes on"
            )
