"""What the folder of a study holds (`bench tune`), and reading it back.

DIR/study.yaml      what was asked for: the scenario, the steps, the strategies and their search spaces, the budget
DIR/trials.csv      a row for each trial: what was tried, and the mIoU on held-out training images
DIR/importance.csv  how much of the trials' differences each setting explains, of each strategy
DIR/study.log       the same trials in Optuna's journal, for its tools
DIR/runs/           the runs of the trials, as any others
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

import yaml

from reports.atomic import write_atomic
from reports.files import RecordError, csv_lines, csv_text, one_line, read_text

State = Literal["done", "pruned", "failed"]
_TRIALS = ["strategy", "trial", "state", "miou", "mious", "seconds", "settings", "runs"]
_IMPORTANCE = ["strategy", "setting", "importance"]
_ASKED: dict[str, type] = {"scenario": str, "strategies": dict, "trials": int, "seeds": list, "config": dict}
_TOLD = ("first_steps", "wall_time_minutes", "sampler", "seed")
SCHEMA = 1


@dataclass(frozen=True)
class Trial:
    """A strategy with settings that were tried."""

    strategy: str
    number: int
    """From 0 on; 0 are the settings that it has else."""
    state: State
    miou: float | None
    """In per cent on held-out training images after the last step, the mean over seeds; of a trial that is `done`."""
    mious: tuple[float, ...]
    """After each step that was made, as far as all seeds have come."""
    seconds: float
    """Of its runs, training and evaluation, base models not counted."""
    settings: dict[str, float]
    runs: tuple[str, ...]
    """Below the folder of the study."""


@dataclass(frozen=True)
class Study:
    """A study and the trials that have an end, by strategy and number."""

    folder: Path
    asked: dict[str, Any]
    trials: list[Trial]
    importance: dict[str, dict[str, float]]
    """By strategy and setting, adding up to 1; of strategies with enough trials."""

    @property
    def digest(self) -> str:
        """The SHA-256 of what was asked for and what came out of it, times not counted."""
        rows = [[cell for cell in _cells(trial) if cell[0] != "seconds"] for trial in self.trials]
        return hashlib.sha256(json.dumps([self.asked, rows], sort_keys=True).encode()).hexdigest()

    @property
    def steps_told(self) -> str:
        """The scenario and how many of its steps were made."""
        first = self.asked["first_steps"]
        return f"{self.asked['scenario']}, {f'the first {first}' if first else 'all'} steps"

    def of(self, strategy: str) -> list[Trial]:
        """Return a strategy's trials by number."""
        return sorted((t for t in self.trials if t.strategy == strategy), key=lambda t: t.number)

    def best(self, strategy: str) -> Trial | None:
        """Return the trial with the highest mIoU, of equal ones the first; None where none is done."""
        done = [trial for trial in self.of(strategy) if trial.miou is not None]
        return max(done, key=lambda trial: trial.miou or 0.0, default=None)


def read_asked(folder: Path) -> dict[str, Any] | None:
    """Return what a folder's study was asked for; None where there is no study, RecordError where it is damaged."""
    path = folder / "study.yaml"
    if not path.exists():
        return None
    try:
        asked = yaml.safe_load(read_text(path))
    except yaml.YAMLError as error:
        raise RecordError(f"{path}: not YAML ({one_line(error)})") from None
    if not isinstance(asked, dict) or asked.get("schema") != SCHEMA:
        raise RecordError(f"{path}: not what a study was asked for, in schema {SCHEMA}")
    if missing := [key for key in _TOLD if key not in asked]:
        raise RecordError(f"{path}: it lacks '{missing[0]}'")
    for key, kind in _ASKED.items():
        if not isinstance(asked.get(key), kind):
            raise RecordError(f"{path}: '{key}' must be of type {kind.__name__}, it is {asked.get(key)!r:.80}")
    return asked


def write_asked(folder: Path, asked: dict[str, Any]) -> None:
    """Write what a study is asked for."""
    write_atomic(folder / "study.yaml", yaml.safe_dump({"schema": SCHEMA, **asked}, sort_keys=False))


def read_study(folder: Path) -> Study:
    """Return the study in a folder; RecordError, one line naming the file, where there is none or it is damaged."""
    asked = read_asked(folder)
    if asked is None:
        raise RecordError(f"{folder}: there is no study in it (study.yaml)")
    trials = [_trial(folder / "trials.csv", line) for line in _lines(folder / "trials.csv", _TRIALS)]
    importance: dict[str, dict[str, float]] = {}
    for strategy, setting, share in _lines(folder / "importance.csv", _IMPORTANCE):
        importance.setdefault(strategy, {})[setting] = _number(folder / "importance.csv", share)
    return Study(folder, asked, trials, importance)


def write_trials(folder: Path, trials: Sequence[Trial]) -> None:
    """Write the trials that have an end."""
    lines = [[cell for _, cell in _cells(trial)] for trial in trials]
    write_atomic(folder / "trials.csv", csv_text([_TRIALS, *lines]))


def write_importance(folder: Path, importance: Mapping[str, Mapping[str, float]]) -> None:
    """Write what each setting explains, by strategy."""
    shares = [[label, name, f"{share:.4f}"] for label, own in importance.items() for name, share in own.items()]
    write_atomic(folder / "importance.csv", csv_text([_IMPORTANCE, *shares]))


def _cells(trial: Trial) -> list[tuple[str, str]]:
    """A trial's row, each cell with its column."""
    values = (
        trial.strategy,
        str(trial.number),
        trial.state,
        "" if trial.miou is None else f"{trial.miou:.4f}",
        " ".join(f"{miou:.4f}" for miou in trial.mious),
        f"{trial.seconds:.1f}",
        json.dumps(trial.settings),
        json.dumps(trial.runs),
    )
    return list(zip(_TRIALS, values, strict=True))


def _lines(path: Path, columns: list[str]) -> list[list[str]]:
    if not path.exists():
        return []
    header, *lines = csv_lines(path)
    if header != columns:
        raise RecordError(f"{path}: its columns are not {', '.join(columns)}")
    return lines


def _trial(path: Path, line: list[str]) -> Trial:
    strategy, number, state, miou, mious, seconds, settings, runs = line
    try:
        found = {str(key): _finite(value) for key, value in json.loads(settings).items()}
        if state not in get_args(State) or (state == "done") != bool(miou):
            raise ValueError(f"state {state}, mIoU '{miou}'")
        return Trial(
            strategy,
            int(number),
            cast(State, state),
            _finite(float(miou)) if miou else None,
            tuple(float(each) for each in mious.split()),
            float(seconds),
            found,
            tuple(map(str, json.loads(runs))),
        )
    except (AttributeError, TypeError, ValueError) as error:
        raise RecordError(f"{path}: trial {number} of {strategy} is damaged ({one_line(error)})") from None


def _finite(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{value!r} is not a number")
    return value


def _number(path: Path, text: str) -> float:
    try:
        return _finite(float(text))
    except ValueError as error:
        raise RecordError(f"{path}: not a number ({one_line(error)})") from None
