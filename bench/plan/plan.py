"""What is to be done, and what waits for what."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.plan.job import BaseJob, RunJob
from bench.settings.slurm import SlurmSettings


@dataclass
class Plan:
    """The jobs of requests: base models, runs not yet finished, and every run's directory."""

    workers: int
    slurm: SlurmSettings | None = None
    """How its runs are submitted, if they are."""
    gpus: tuple[str, ...] = ()
    """Where there are any: their names in CUDA_VISIBLE_DEVICES."""
    bases: dict[str, BaseJob] = field(default_factory=dict)
    """By hash."""
    runs: list[RunJob] = field(default_factory=list)
    needs: dict[str, str] = field(default_factory=dict)
    """By a run's key the base model it waits for."""
    folders: list[Path] = field(default_factory=list)
    conventions: dict[Path, dict[str, Any]] = field(default_factory=dict)
    """By a run's directory: those that its numbers are asked for by."""
    kept_bases: set[str] = field(default_factory=set)
    """Hashes of the base models that are in the cache."""
    stale: list[list[str]] = field(default_factory=list)
    """Of each finished run that stays and that would not be made so any more: why."""

    @property
    def jobs(self) -> list[BaseJob | RunJob]:
        """All of them."""
        return [*self.bases.values(), *self.runs]

    def add_base(self, run: str, base_hash: str, make: Callable[[], BaseJob]) -> None:
        """Have a run wait for its base model: its job is made once."""
        if base_hash not in self.bases:
            self.bases[base_hash] = make()
        self.needs[run] = self.bases[base_hash].key

    def leave_base(self, base_hash: str) -> None:
        """Drop the job of a base model that is kept: nothing waits for it."""
        key = self.bases.pop(base_hash).key
        self.kept_bases.add(base_hash)
        self.needs = {run: base for run, base in self.needs.items() if base != key}

    def __add__(self, other: Plan) -> Plan:
        """Return a plan of both's jobs; a base model that both need is trained once."""
        return Plan(
            min(self.workers, other.workers),
            self.slurm,
            self.gpus,
            {**other.bases, **self.bases},
            [*self.runs, *other.runs],
            {**self.needs, **{run: self._key_of(base, other) for run, base in other.needs.items()}},
            [*self.folders, *other.folders],
            {**self.conventions, **other.conventions},
            self.kept_bases | other.kept_bases,
            [*self.stale, *other.stale],
        )

    def _key_of(self, key: str, other: Plan) -> str:
        """Return the key here of a base job of another plan."""
        base_hash = next(h for h, job in other.bases.items() if job.key == key)
        return self.bases[base_hash].key if base_hash in self.bases else key
