"""A log file per run and per base model, appended to whenever work on it starts or goes on."""

from __future__ import annotations

import logging
import os
import platform
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from bench.screen.events import Event, Report, Throttle
from bench.screen.faults import explained
from bench.screen.stopping import Stopped

LOG_FILE = "log.txt"
"""In a run's directory."""
PROGRESS_SECONDS = 10.0
_TOLD = (
    "SLURM_JOB_ID",
    "SLURM_ARRAY_JOB_ID",
    "SLURM_ARRAY_TASK_ID",
    "SLURM_RESTART_COUNT",
    "CUDA_VISIBLE_DEVICES",
)
"""Of the environment, where work starts."""

log = logging.getLogger("bench")
_REPORTED = {"reported": True}
"""Marks a record of what whoever listens is told anyway."""


@contextmanager
def logged(path: Path, key: str, report: Report, verbose: bool) -> Iterator[Report]:
    """Write a block's log records and warnings to a file; give what reports an event and logs it too.

    With `verbose` the file has a line per update and whoever is reported to gets the other lines as notes.
    """
    handlers: list[logging.Handler] = [_FileHandler(path)]
    if verbose:
        handlers.append(_ReportHandler(key, report))
    root, level = logging.getLogger(), log.level
    for handler in handlers:
        root.addHandler(handler)
    log.setLevel(logging.DEBUG if verbose else logging.INFO)
    logging.captureWarnings(True)
    try:
        yield _Logging(report)
        log.info("done", extra=_REPORTED)
    except Stopped:
        log.info("stopped, as it was asked to", extra=_REPORTED)
        raise
    except KeyboardInterrupt:  # asked to by a signal
        log.info("ended by KeyboardInterrupt", extra=_REPORTED)
        raise
    except BaseException as error:
        line = explained(error)
        told = f"{type(error).__name__}: {line}" if line else type(error).__name__
        log.error("ended by %s", told, exc_info=line is None, extra=_REPORTED)
        raise
    finally:
        logging.captureWarnings(False)
        log.setLevel(level)
        for handler in handlers:
            root.removeHandler(handler)
            handler.close()


def log_start(versions: dict[str, Any]) -> None:
    """Log where work starts, and by what."""
    log.info("started on %s, process %d", socket.gethostname(), os.getpid())
    log.info("%s, %s", ", ".join(f"{k} {v}" for k, v in versions.items()), platform.platform())
    for name in _TOLD:
        if name in os.environ:
            log.info("%s=%s", name, os.environ[name])


def last_lines(path: Path, count: int) -> list[str]:
    """Return the last lines of a log; none where there is none."""
    with suppress(OSError):
        return path.read_text(encoding="utf-8", errors="replace").splitlines()[-count:]
    return []


class _FileHandler(logging.FileHandler):
    """Appends; where nothing can be written, on a full disk say, the work goes on."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        super().__init__(path, encoding="utf-8", delay=True)
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))

    def handleError(self, record: logging.LogRecord) -> None:
        """Leave it: the work itself meets the same disk and says so."""

    def close(self) -> None:
        """Close the file, whether or not its last lines can be written."""
        with suppress(OSError):
            super().close()


class _ReportHandler(logging.Handler):
    """Reports records as notes, less those of single updates."""

    def __init__(self, key: str, report: Report) -> None:
        super().__init__(logging.INFO)
        self.key = key
        self.report = report

    def emit(self, record: logging.LogRecord) -> None:
        if not getattr(record, "reported", False):
            self.report(Event(self.key, "", 0, 0, note=record.getMessage()))


class _Logging:
    """Reports events, and logs those that tell something new."""

    def __init__(self, report: Report) -> None:
        self.report = report
        self.due = Throttle(PROGRESS_SECONDS)

    def __call__(self, event: Event) -> None:
        self.report(event)
        text = self._text(event)
        if text:
            log.info("%s", text, extra=_REPORTED)

    def _text(self, event: Event) -> str:
        if event.note:
            return event.note
        if event.finished_step:
            return f"step {event.step}: mIoU {event.miou:.2f}, {event.done} of {event.total} updates done"
        if not self.due.due():
            return ""
        doing = event.doing if event.step is None else f"{event.doing}, batch {event.batch} of {event.batches}"
        loss = "" if event.loss is None else f", loss {event.loss:.4g}"
        return f"{doing}, update {event.done} of {event.total}{loss}"
