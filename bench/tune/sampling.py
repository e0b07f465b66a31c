"""What is tried next: by a sequence that nothing but the study's seed and the method decides, or by what was found."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from importlib import import_module
from typing import Any, Literal

from bench.settings.errors import RequestError
from bench.tune.space import DIGITS, Space
from reports.study import Trial
from strategies.learning.search import Search

Sampler = Literal["sobol", "tpe"]
SAMPLERS: tuple[Sampler, ...] = ("sobol", "tpe")
"""A scrambled Sobol sequence, which fills the space evenly; Optuna's TPE, which learns from earlier rounds."""


def optuna_module() -> Any:
    """Return Optuna, told to be quiet; raise `RequestError` where it is not installed."""
    try:
        optuna = import_module("optuna")
    except ImportError:
        raise RequestError("bench tune needs optuna: pip install 'continual-seg-bench[tune]'") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def proposals(space: Space, told: Sequence[Trial], count: int, sampler: Sampler, seed: int) -> list[dict[str, float]]:
    """Return the settings of the `count` trials that follow those `told`; the first trial of all is the default.

    The same call gives the same settings in every process. Of `sobol` a trial's settings depend on its number alone.
    """
    first = len(told)
    if first == 0:
        return [dict(space.default), *_sobol(space, 1, count - 1, seed)]
    return _sobol(space, first, count, seed) if sampler == "sobol" else _tpe(space, told, count, seed)


def distribution(search: Search) -> Any:
    """Return Optuna's distribution over a range."""
    kinds = optuna_module().distributions
    if search.whole:
        return kinds.IntDistribution(int(search.low), int(search.high), log=search.log)
    return kinds.FloatDistribution(search.low, search.high, log=search.log)


def frozen(space: Space, trial: Trial, **told: Any) -> Any:
    """Return a trial as Optuna keeps it; `told` is what it is to hold beside."""
    optuna = optuna_module()
    return optuna.trial.create_trial(
        state=optuna.trial.TrialState.COMPLETE if trial.state == "done" else optuna.trial.TrialState.PRUNED,
        value=trial.miou,
        params=trial.settings,
        distributions={name: distribution(search) for name, search in space.ranges.items()},
        intermediate_values=dict(enumerate(trial.mious)),
        **told,
    )


def _sobol(space: Space, first: int, count: int, seed: int) -> list[dict[str, float]]:
    """Return the elements from `first` on of the method's sequence, whose first stands in for the default."""
    optuna = optuna_module()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.QMCSampler(qmc_type="sobol", scramble=True, seed=_seed(seed, space.label))
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.add_trial(frozen(space, Trial(space.label, 0, "done", 0.0, (), 0.0, dict(space.default), ())))
    return [_asked(study, space) for _ in range(first + count - 1)][first - 1 :]


def _tpe(space: Space, told: Sequence[Trial], count: int, seed: int) -> list[dict[str, float]]:
    optuna = optuna_module()
    sampler = optuna.samplers.TPESampler(seed=_seed(seed, space.label, len(told)), constant_liar=True)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.add_trials([frozen(space, trial) for trial in told if trial.state != "failed"])
    return [_asked(study, space) for _ in range(count)]


def _asked(study: Any, space: Space) -> dict[str, float]:
    found = study.ask({name: distribution(search) for name, search in space.ranges.items()}).params
    return {name: value if space.ranges[name].whole else float(f"{value:.{DIGITS}g}") for name, value in found.items()}


def _seed(*of: object) -> int:
    return int(hashlib.sha256(repr(of).encode()).hexdigest()[:8], 16)
