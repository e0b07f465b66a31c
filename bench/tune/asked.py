"""What `bench tune` is asked for, checked, and whether a folder's study is the same one."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.plan.planning import Asked, asked
from bench.plan.request import Request
from bench.settings.errors import RequestError
from bench.tune.sampling import SAMPLERS, Sampler, optuna_module
from bench.tune.space import Space, space_of
from benchmarks.names import parse_name
from reports.study import read_asked, write_asked

ROUND = 4
"""Trials of each strategy that are tried at once where what comes next follows from what was found."""
_MAY_DIFFER = ("trials", "source", "keep", "workers", "ram_gb")
"""What two commands of one study may say otherwise: more trials, why a range is what it is, what changes no number."""


@dataclass(frozen=True)
class Tuning:
    """What `bench tune` was asked for; `request.out` is the study's folder.

    Raises `RequestError` for what is no study.
    """

    request: Request
    trials: int = 20
    """Of each strategy, the first of which are the settings that it has else."""
    first_steps: int | None = 2
    """Of the scenario, the base step among them; None for all."""
    wall_time: float | None = None
    """Minutes of training and evaluation after which a strategy begins no further round."""
    sampler: Sampler = "sobol"
    prune: bool = True
    """Whether runs of more than two steps end where they are below the median of earlier rounds."""
    seed: int = 0
    """Of the sequence of trials."""

    def __post_init__(self) -> None:
        if self.trials < 1:
            raise RequestError(f"--trials {self.trials}: at least 1")
        if self.first_steps is not None and self.first_steps < 2:
            raise RequestError(f"--first-steps {self.first_steps}: at least 2, or all; the first is the base model's")
        if self.wall_time is not None and not self.wall_time > 0:
            raise RequestError(f"--wall-time {self.wall_time}: minutes above 0")
        if self.sampler not in SAMPLERS:
            raise RequestError(f"--sampler {self.sampler}: allowed are {', '.join(SAMPLERS)}")
        if self.request.evaluate_on == "test":
            raise RequestError("--evaluate-on test: settings are never chosen on test images")
        if self.request.overwrite != "never":
            raise RequestError(
                f"--overwrite {self.request.overwrite}: a study's runs are made once; another --out is new"
            )
        if self.request.launcher == "slurm" and self.in_rounds:
            raise RequestError(
                "--launcher slurm: trials of this study wait for earlier rounds (--sampler tpe, --wall-time, pruning: "
                "--no-prune does without); or let several jobs run this command without --launcher"
            )

    @property
    def in_rounds(self) -> bool:
        """Whether what is tried, or how far it goes, follows from what earlier rounds found."""
        return self.sampler == "tpe" or self.wall_time is not None or self.prunes

    @property
    def prunes(self) -> bool:
        """Whether runs may end early."""
        return self.prune and self.first_steps != 2

    @property
    def round_size(self) -> int:
        """How many trials of each strategy are tried at once."""
        return ROUND if self.in_rounds else self.trials


@dataclass(frozen=True)
class Study:
    """A study that is checked: what its trials have in common, and the search spaces by the strategies' labels."""

    tuning: Tuning
    asked: Asked
    spaces: dict[str, Space]

    @property
    def folder(self) -> Path:
        """Where it is."""
        return self.tuning.request.out

    def described(self) -> dict[str, Any]:
        """Return as plain data what was asked for, whoever asks for it."""
        tuning, asked = self.tuning, self.asked
        config = dataclasses.asdict(asked.config)
        told = {
            "scenario": str(parse_name(tuning.request.scenario)),
            "first_steps": tuning.first_steps,
            "strategies": {label: space.described() for label, space in self.spaces.items()},
            "trials": tuning.trials,
            "wall_time_minutes": tuning.wall_time,
            "seeds": list(asked.request.seeds),
            "sampler": tuning.sampler,
            "seed": tuning.seed,
            "prune": tuning.prunes,
            "device": asked.request.device,
            "optuna": optuna_module().__version__,
            "config": config,
        }
        plain: dict[str, Any] = json.loads(json.dumps(told))
        return plain


def study_of(tuning: Tuning) -> Study:
    """Check what is asked for, as far as that needs no image; raise `RequestError` or `DataError`."""
    optuna_module()
    name = parse_name(tuning.request.scenario)
    if name.first is not None:
        raise RequestError(f"--scenario {name}: --first-steps {name.first} says how many steps are made")
    scenario = str(dataclasses.replace(name, first=tuning.first_steps))
    request = dataclasses.replace(
        tuning.request,
        scenario=scenario,
        assignments=("keep=none", *tuning.request.assignments),  # trials' networks are no use, and large
        out=tuning.request.out / "runs",
        evaluate_on="valid",
    )
    found = asked(request)
    return Study(tuning, found, {each.strategy.label: space_of(each) for each in found.wanted})


def require_same(study: Study) -> None:
    """Raise `RequestError` where the folder has another study."""
    old = read_asked(study.folder)
    other = None if old is None else _first_difference({**old, "schema": None}, study.described())
    if other is not None:
        raise RequestError(f"--out {study.folder}: it belongs to another study, {other}; give another folder")


def begin(study: Study) -> None:
    """Write down what is asked for, or that there are to be more trials."""
    new, old = study.described(), read_asked(study.folder)
    if old is None or old["trials"] < new["trials"]:
        study.folder.mkdir(parents=True, exist_ok=True)
        write_asked(study.folder, new)


def _first_difference(old: Mapping[str, Any], new: Mapping[str, Any], where: str = "") -> str | None:
    """Return in words the first thing that two studies have not in common."""
    for key in dict.fromkeys([*old, *new]):
        there, here, path = old.get(key), new.get(key), f"{where}{key}"
        if key in _MAY_DIFFER or there == here:
            continue
        if isinstance(there, Mapping) and isinstance(here, Mapping):
            if found := _first_difference(there, here, f"{path}."):
                return found
            continue
        return f"with {path} {there!r:.60}, here {here!r:.60}"
    return None
