"""Finished runs made once more, and compared with what they were: `bench verify --rerun`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console

from bench.launch.execution import execute_here, leave_kept_bases
from bench.plan.described import described_plan
from reports.records import Run
from reports.rows import row_name


@dataclass(frozen=True)
class Compared:
    """What became of a run that was made again, in a line, and whether it counts as another result."""

    text: str
    differs: bool


def cheapest(runs: Sequence[Run], count: int) -> list[Run]:
    """Return the runs that took the fewest seconds, `count` of them or all."""
    return sorted(runs, key=lambda run: math.fsum(row["seconds"] for row in run.costs))[:count]


def rerun(run: Run, out: Path, data_root: Path | None, tolerance: float, console: Console) -> Compared:
    """Make a run below `out` by what is here, unless it is there already, and compare it with `run`.

    Images come from `data_root`, else from where they were. It is bit-equal where every confusion matrix is, within
    tolerance where no mIoU after a step differs by more than `tolerance` points. Raises `RequestError` or `DataError`
    before any work where it cannot be made.
    """
    name = f"{run.spec['scenario']}: {row_name(run.spec['strategy'], '')} seed {run.spec['seed']}"
    root = run.spec["data"]["root"]
    told = {**run.spec["data"], "root": str(data_root) if data_root and root else root}
    plan, otherwise = described_plan({**run.spec, "data": told}, out, console)
    leave_kept_bases(plan)
    result = execute_here(plan, console)
    if result.interrupted:
        raise KeyboardInterrupt
    made_by = f" (made by {', '.join(otherwise)})" if otherwise else ""
    if not result.runs:
        reason = result.obstacle or next(iter(result.failures.values()), "not made")
        return Compared(f"{name}: failed: {reason}", differs=True)
    verdict, differs = compared(run, result.runs[0], tolerance)
    return Compared(f"{name}: {verdict}{made_by}", differs)


def compared(run: Run, again: Run, tolerance: float) -> tuple[str, bool]:
    """Return in words how far a run's records are from those of the same one made again, and whether it is too far."""
    steps = [int(row["step"]) for row in run.steps]
    if steps != [int(row["step"]) for row in again.steps]:
        return "different: it was evaluated after other steps", True
    if all(np.array_equal(one, other) for one, other in zip(run.confusions, again.confusions, strict=True)):
        return "bit-equal", False
    off = max(abs(one["miou"] - other["miou"]) for one, other in zip(run.steps, again.steps, strict=True))
    text = f"mIoU off by up to {off:.2f} points"
    return (f"within tolerance: {text}", False) if off <= tolerance else (f"different: {text}", True)
