"""What a run's directory tells about the job that was submitted for it."""

from __future__ import annotations

import dataclasses
import json
from contextlib import suppress
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter
from pydantic.dataclasses import dataclass

from reports.atomic import write_atomic
from strategies.networks.settings import STRICT

_FILE = "submitted.json"


@dataclass(frozen=True, config=STRICT)
class Submitted:
    """A run's job in a queue."""

    cluster: Literal["slurm", "local"]
    """Whose queue it is in: `local` is submitit's own processes."""
    user: str
    """Who gave it."""
    job: str | None
    """Its id, `17_3` for element 3 of an array; None where only its base model was submitted so far."""
    base_job: str | None
    """The id of the job that trains its base model, where that was missing."""
    base_hash: str | None
    """Which base model that is."""
    log: str | None
    """The file with what the job prints."""
    code: str
    """The folder with the copy of the code that it runs."""
    folder: str
    """The run's directory: a copy of it has no job."""
    started: float | None = None
    """When the process started that stands for a job, in seconds since the epoch: its id may be used again."""


_RECORD = TypeAdapter(Submitted)


def write_submitted(run: Path, record: Submitted | None) -> None:
    """Write a run's job down, or that there is none."""
    if record is None:
        (run / _FILE).unlink(missing_ok=True)
    else:
        write_atomic(run / _FILE, json.dumps(dataclasses.asdict(record), indent=1) + "\n")


def read_submitted(run: Path) -> Submitted | None:
    """Return a run's job; None where none was submitted, the file is damaged, or a copy of another directory's."""
    try:
        record = _RECORD.validate_json((run / _FILE).read_bytes())
    except (OSError, ValueError):
        return None
    with suppress(OSError):  # where the same folder has another path
        if not run.samefile(record.folder):
            return None
    return record
