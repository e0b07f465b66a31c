"""What a job of a cluster does: the run of one directory."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.launch.execution import run_one, say_end
from bench.screen.stopping import ask_to_stop, stop_asked
from bench.settings.errors import RequestError
from benchmarks.errors import DataError
from reports.atomic import write_atomic
from reports.files import RecordError


@dataclass(frozen=True)
class RunDirectory:
    """What a job does: `bench run-one` on a directory.

    Told that its time is up, it stops behind its next checkpoint, or at once when the grace is over, and is put back
    into the queue.
    """

    folder: Path
    base_only: bool
    verbose: bool
    loggers: tuple[str, ...]
    working_folder: Path
    """Whose paths the request was made with."""
    grace_s: int
    """How long the next checkpoint is waited for."""

    def __call__(self) -> None:
        """Make the run, or its base model alone; raise RuntimeError where that fails, so that the job fails too."""
        os.chdir(self.working_folder)
        put_back = self._heed_submitit()
        os.register_at_fork(after_in_child=_leave_signals)
        console = Console(width=120)
        try:
            result = run_one(self.folder, console, self.base_only, self.verbose, self.loggers, heed_signals=False)
        except (RequestError, DataError, RecordError) as error:
            write_atomic(self.folder / "error.txt", " ".join(str(error).split()))
            raise
        finally:
            signal.alarm(0)
        if say_end(result, console):
            if result.interrupted:
                put_back(signal.SIGUSR2, None)
            raise RuntimeError(f"{self.folder} is not finished")

    def _heed_submitit(self) -> Callable[[int, None], object]:
        """Have the signal that submitit answers by putting the job back wait for a checkpoint; return the answer."""
        put_back: Any = signal.getsignal(signal.SIGUSR2)

        def told(number: int, frame: object) -> None:
            if not stop_asked():
                ask_to_stop()
                signal.signal(signal.SIGALRM, put_back)
                signal.alarm(self.grace_s)

        signal.signal(signal.SIGUSR2, told)
        answer: Callable[[int, None], object] = put_back
        return answer

    def checkpoint(self) -> Any:
        """Return what goes on with it: the same, as the run's own checkpoints tell where it was."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def _leave_signals() -> None:
    """In a forked process, such as one that reads images: what a job is told by signals is for its first process."""
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGCONT):
        signal.signal(number, signal.SIG_DFL)
