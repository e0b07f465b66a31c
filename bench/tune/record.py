"""What a study has found, written down: tables for reports, and Optuna's journal for its tools."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.launch.claims import Claims
from bench.tune.asked import Study
from bench.tune.sampling import frozen, optuna_module
from bench.tune.space import Space
from reports.atomic import clear_scraps
from reports.study import Trial, read_study, write_importance, write_trials

ENOUGH = 4
"""Trials that are done, fewer of which tell nothing of what each setting explains."""


def record(study: Study, found: Mapping[str, Sequence[Trial]], last: bool) -> None:
    """Write the trials that have an end, with those that another process has written; one process at a time does.

    After the `last` round it is written too what each setting explains.
    """
    claim = study.folder / ".claim"
    with Claims() as claims:
        while not claims.take(claim):
            time.sleep(0.2)
        clear_scraps(study.folder)
        trials = [trial for own in found.values() for trial in own]
        there = {(t.strategy, t.number): t for t in read_study(study.folder).trials if t.strategy in found}
        there.update({(trial.strategy, trial.number): trial for trial in trials})
        trials = [t for label in found for _, t in sorted(there.items()) if t.strategy == label]
        write_trials(study.folder, trials)
        _write_journal(study.folder / "study.log", study, trials)
        if last:
            write_importance(study.folder, {label: _importance(space, trials) for label, space in study.spaces.items()})


def _write_journal(file: Path, study: Study, trials: Sequence[Trial]) -> None:
    """Append to Optuna's journal what it does not have: a study for each strategy; failed trials may yet succeed.

    What a process that was killed left of it goes: its lock, as the claim is ours, a journal whose last line is cut.
    """
    optuna = optuna_module()
    file.with_name(f"{file.name}.lock").unlink(missing_ok=True)
    if file.exists() and not file.read_bytes().endswith(b"\n"):
        file.unlink()
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(file)))
    for label, space in study.spaces.items():
        kept = optuna.create_study(study_name=label, storage=storage, direction="maximize", load_if_exists=True)
        known = {trial.user_attrs.get("trial") for trial in kept.get_trials(deepcopy=False)}
        for trial in trials:
            if trial.strategy == label and trial.state != "failed" and trial.number not in known:
                told = {"trial": trial.number, "runs": list(trial.runs), "seconds": trial.seconds}
                kept.add_trial(frozen(space, trial, user_attrs=told))


def _importance(space: Space, trials: Sequence[Trial]) -> dict[str, float]:
    """Return how much of the trials' differences each setting explains, by fANOVA; {} where few are done."""
    done = [trial for trial in trials if trial.strategy == space.label and trial.state == "done"]
    if len(done) < ENOUGH:
        return {}
    optuna = optuna_module()
    study = optuna.create_study(direction="maximize")
    study.add_trials([frozen(space, trial) for trial in done])
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    shares: dict[str, float] = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return shares
