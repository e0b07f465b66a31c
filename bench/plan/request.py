"""What `bench run` is asked for."""

from __future__ import annotations

import difflib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.settings.errors import RequestError

OVERWRITE = ("never", "failed", "stale", "always")
"""Which runs start again; see `Request.overwrite`."""
LOGGERS = ("csv", "tensorboard", "wandb")


@dataclass(frozen=True)
class Request:
    """What `bench run` was asked for; raises `RequestError` for what no machine and no data could make right."""

    strategies: str | Sequence[str]
    scenario: str
    data_root: Path | None = None
    seeds: Sequence[int] = (0,)
    preset: str | None = None
    config: Path | None = None
    assignments: Sequence[str] = ()
    device: str = "auto"
    out: Path = Path("runs")
    jobs: int | None = None
    overwrite: str | bool = "never"
    """Which runs start again: `never` none, `failed` those that are not finished, `stale` finished ones that other code
    or packages made, `always` (True) all."""
    evaluate_on: str | None = None
    """`test` or `valid`, over what the settings say."""
    launcher: str = "local"
    """`local` makes the runs, `slurm` submits them."""
    verbose: bool = False
    """Whether the logs have a line per update, and what they say is printed."""
    loggers: str | Sequence[str] = ()
    """Of csv, tensorboard, wandb; none changes a number, so no spec tells of them."""
    prefix: str = ""
    """What the names of its jobs begin with, where several requests are executed together."""

    def __post_init__(self) -> None:
        seeds, policy = list(self.seeds), self.overwrite
        if not seeds or len(set(seeds)) != len(seeds) or min(seeds) < 0:
            raise RequestError(f"seeds {seeds}: they are different numbers from 0 on, at least one")
        if isinstance(policy, bool):
            policy = "always" if policy else "never"
        if policy not in OVERWRITE:
            raise RequestError(f"overwrite {policy}: allowed are {', '.join(OVERWRITE)}")
        if self.jobs is not None and self.jobs < 1:
            raise RequestError(f"--jobs {self.jobs}: at least 1")
        if self.launcher not in ("local", "slurm"):
            raise RequestError(f"--launcher {self.launcher}: allowed are local, slurm")
        if self.launcher == "slurm" and self.jobs is not None:
            raise RequestError("--jobs is for --launcher local; slurm.array_parallelism bounds what runs at once")
        if self.launcher == "local" and any(given.lstrip().startswith("slurm.") for given in self.assignments):
            raise RequestError("--set slurm...: these settings are for --launcher slurm")
        object.__setattr__(self, "overwrite", policy)
        object.__setattr__(self, "loggers", _parse_loggers(self.loggers))


def _parse_loggers(text: str | Sequence[str]) -> tuple[str, ...]:
    """Parse `csv,tensorboard`; raise `RequestError` for an unknown name or a package that is missing."""
    asked = text.split(",") if isinstance(text, str) else text
    names = tuple(dict.fromkeys(name.strip() for name in asked if name.strip()))
    for name in names:
        if name not in LOGGERS:
            near = difflib.get_close_matches(name, LOGGERS, n=1)
            hint = f"did you mean {near[0]}? " if near else "unknown "
            raise RequestError(f"--loggers {name}: {hint}(known: {', '.join(LOGGERS)})")
        if name != "csv" and importlib.util.find_spec(name) is None:
            raise RequestError(f"--loggers {name}: the package is missing; pip install {name}")
    return names
