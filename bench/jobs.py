"""What is to be done, one base model or one run: what is claimed, what says that it is made, and the doing of it."""

from __future__ import annotations

import shlex
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.base import base_model, make_base
from bench.benchmark import benchmark_of
from bench.code import code_digest
from bench.computing import computing
from bench.config import Config
from bench.events import Event, Report
from bench.folders import claim_of, finished_at, out_of
from bench.log import LOG_FILE, log_start, logged
from bench.plugins import plugins_of
from bench.resume import run_checkpoints
from bench.runner import make_run, told_of_losses
from benchmarks.cache import DISK_FULL
from reports.atomic import SetAside, clear_scraps, write_atomic
from reports.records import write_spec
from strategies.protocol import BaseRecipe
from strategies.registry import method_class

_CHANGED = "the code was changed as the command started; give it again"


@dataclass(frozen=True)
class _Common:
    key: str
    scenario: str
    split_hash: str
    data_root: Path | None
    config: Config
    recipe: BaseRecipe
    seed: int
    device: str
    verbose: bool
    code: str
    """The digest of the code that it was planned by."""


@dataclass(frozen=True)
class BaseJob(_Common):
    """A base model to train: `units` updates, `weight` images."""

    base: dict[str, Any]
    units: int
    weight: float

    @property
    def claim(self) -> Path:
        """What is claimed while it is trained, in the cache, so by all output folders."""
        return base_model(self.base["hash"]).path.with_suffix(".claim")

    @property
    def log(self) -> Path:
        """Its log, beside the model in the cache."""
        return base_model(self.base["hash"]).path.with_suffix(".log")

    @property
    def devices(self) -> int:
        """How many devices it is trained on."""
        return self.config.base.devices

    def made(self) -> bool:
        """Return whether the model is kept, and sound."""
        return base_model(self.base["hash"]).fault() is None

    def record_failure(self, failure: str) -> None:
        """Leave it to the log."""

    def execute(self, report: Report) -> None:
        """Train the base model and keep it."""
        again = "; the same `bench run` meets the same batch again"
        with (
            logged(self.log, self.key, report, self.verbose) as report,
            computing(self.config.runtime),
            told_of_losses("base model, ", again),
        ):
            log_start({**self.base["inputs"]["versions"], "code": self.code})
            _require_code(self.code)
            kept = base_model(self.base["hash"])
            clear_scraps(kept.path.parent, self.base["hash"])
            if kept.path.exists() and (fault := kept.fault()):
                report(Event(self.key, "starting", 0, self.units, note=f"{fault}; trained again"))
            make_base(self, benchmark_of(self), report)


@dataclass(frozen=True)
class RunJob(_Common):
    """A run to make: a scenario under one method and seed; `units` updates, `weight` images.

    It goes on from its last sound checkpoint unless it is to be made `anew`.
    """

    method: str
    parameters: Any
    spec: dict[str, Any]
    folder: Path
    anew: bool
    finished_before: int | None
    """When the run was finished, in ns, as it was planned; None if it was not."""
    units: int
    weight: float
    loggers: tuple[str, ...] = ()

    @property
    def claim(self) -> Path:
        """What is claimed while it is made."""
        return claim_of(self.folder)

    @property
    def log(self) -> Path:
        """Its log."""
        return self.folder / LOG_FILE

    @property
    def devices(self) -> int:
        """How many devices it computes on: an offline method trains by the base protocol."""
        return self.config.base.devices if method_class(self.method).offline else 1

    def made(self) -> bool:
        """Return whether the run has been finished since it was planned."""
        return finished_at(self.folder) not in (None, self.finished_before)

    def record_failure(self, failure: str) -> None:
        """Write the reason to `error.txt`, unless that cannot be written either."""
        with suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomic(self.folder / "error.txt", failure)

    @property
    def out(self) -> Path:
        """The folder of all runs that it belongs to."""
        return out_of(self.folder)

    def hand_over(self) -> SetAside:
        """Leave the directory as another process is to find it that makes the run; return what stood there before."""
        self.folder.mkdir(parents=True, exist_ok=True)
        superseded = [self.folder / name for name in ("error.txt", "spec.yaml")]
        if self.anew:
            records = [self.folder / name for name in ("done", "steps.csv")]
            superseded = [*records, *run_checkpoints(self).files(), *superseded]
        before = SetAside(superseded)
        try:
            write_spec(self.folder, self.spec)
        except OSError:
            before.restore()
            raise
        return before

    def announce(self) -> None:
        """Write the spec, so that the directory tells what it waits for."""
        # What stands in the way fails the run when it is claimed; who starts it just now tidies up there.
        try:
            if not (self.folder / "spec.yaml").is_file():
                self.folder.mkdir(parents=True, exist_ok=True)
                write_spec(self.folder, self.spec)
        except OSError as error:
            if error.errno in DISK_FULL:
                raise

    def execute(self, report: Report) -> None:
        """Make the run and write its directory, `done` last."""
        again = f"; `bench run-one {shlex.quote(str(self.folder.resolve()))}` meets the same batch again"
        with (
            logged(self.log, self.key, report, self.verbose) as report,
            computing(self.config.runtime),
            told_of_losses("", again),
        ):
            log_start({**self.spec["versions"], "code": self.code, "git": self.spec["git"]})
            _require_code(self.code)
            if plugins_of(self.method) != self.spec["plugins"]:
                raise RuntimeError(_CHANGED)
            make_run(self, benchmark_of(self), report)


def _require_code(planned: str) -> None:
    """Raise RuntimeError where this process would compute by other code than the one that planned it."""
    if code_digest() != planned:
        raise RuntimeError(_CHANGED)
