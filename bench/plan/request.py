"""What `bench run` is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

OVERWRITE = ("never", "failed", "stale", "always")
"""Which runs start again; see `Request.overwrite`."""


@dataclass(frozen=True)
class Request:
    """What `bench run` was asked for."""

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
