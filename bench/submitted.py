"""What a run's directory tells about the job that was submitted for it."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from reports.records import write_atomic

_FILE = "submitted.json"


@dataclass(frozen=True)
class Submitted:
    """A run's job in a queue."""

    cluster: str
    """Whose queue it is in: `slurm`, or `local` for submitit's own processes."""
    user: str
    """Who gave it."""
    job: str | None
    """Its id, `17_3` for element 3 of an array; None where only its base model was submitted so far."""
    base_job: str | None
    """The id of the job that trains its base model, where that was missing."""
    log: str | None
    """The file with what the job prints."""
    code: str
    """The folder with the copy of the code that it runs."""
    started: float | None = None
    """When the process started that stands for a job, in seconds since the epoch: its id may be used again."""


def write_submitted(run: Path, record: Submitted) -> None:
    """Write a run's job down."""
    write_atomic(run / _FILE, json.dumps(dataclasses.asdict(record), indent=1) + "\n")


def read_submitted(run: Path) -> Submitted | None:
    """Return a run's job; None where none was submitted, or the file is damaged."""
    try:
        return Submitted(**json.loads((run / _FILE).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def forget_submitted(run: Path) -> None:
    """Delete what stands there of a job."""
    (run / _FILE).unlink(missing_ok=True)
