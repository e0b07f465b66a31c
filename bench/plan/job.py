"""What is to be done, as plain data: one base model, or one run. `bench.train.work` does it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.plan.folders import base_file, claim_of, out_of
from bench.plan.protocols import Extent, base_extent
from bench.screen.log import LOG_FILE
from bench.settings.schema import Config
from strategies.learning.protocol import BaseRecipe

Bars = tuple[float | None, ...]
"""By step, an mIoU in per cent."""


@dataclass(frozen=True)
class Job:
    """What base models and runs have in common: `units` updates, `weight` images."""

    key: str
    scenario: str
    split_hash: str
    data_root: Path | None
    config: Config
    recipe: BaseRecipe
    seed: int
    device: str
    devices: int
    """How many it is computed on."""
    verbose: bool
    code: str
    """The digest of the code that it was planned by."""
    claim: Path
    """What is claimed while it is done: a base model's lies in the cache, so for all output folders."""
    log: Path
    units: int
    weight: float


@dataclass(frozen=True)
class BaseJob(Job):
    """A base model to train."""

    base: dict[str, Any]


@dataclass(frozen=True)
class RunJob(Job):
    """A run to make: a scenario under one method and seed.

    It goes on from its last sound checkpoint unless it is to be made `anew`.
    """

    method: str
    parameters: Any
    spec: dict[str, Any]
    folder: Path
    anew: bool
    finished_before: int | None
    """When the run was finished, in ns, as it was planned; None if it was not."""
    loggers: tuple[str, ...] = ()
    bars: Bars = ()
    """It ends after the first step whose mIoU is below its bar, unfinished: the rest of it is not wanted."""

    @property
    def out(self) -> Path:
        """The folder of all runs that it belongs to."""
        return out_of(self.folder)


def below_bar(miou: float, step: int, bars: Bars) -> bool:
    """Whether a run is not to go on after a step."""
    bar = bars[step] if step < len(bars) else None
    return bar is not None and round(miou, 4) < bar


def run_job(key: str, extent: Extent, *, folder: Path, **settings: Any) -> RunJob:
    """Return the job of a run; `settings` are its other fields."""
    return RunJob(key=key, folder=folder, claim=claim_of(folder), log=folder / LOG_FILE, **extent._asdict(), **settings)


def base_job(
    base: dict[str, Any], images: int, *, config: Config, recipe: BaseRecipe, seed: int, **settings: Any
) -> BaseJob:
    """Return the job of a base model to be trained on so many images; `settings` are its other fields."""
    file = base_file(base["hash"])
    loss = "CE" if recipe.loss == "cross-entropy" else "BCE"
    return BaseJob(
        key=f"base {recipe.head} {loss}{' measured' if recipe.importance else ''} {base['hash'][:8]} seed {seed}",
        base=base,
        config=config,
        recipe=recipe,
        seed=seed,
        claim=file.with_suffix(".claim"),
        log=file.with_suffix(".log"),
        **base_extent(config, [images])._asdict(),
        **settings,
    )
