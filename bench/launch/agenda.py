"""Which job comes next, what has claimed it, and how jobs have ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from bench.launch.claims import Claims, holder
from bench.screen.events import Event, Listener, Report, last_line
from bench.screen.faults import explained
from bench.screen.stopping import stop_asked
from benchmarks.cache import DISK_FULL, full_disk_names

TOLD_BY_ANOTHER = "its process was told to stop (SIGTERM), and not by this command"


class Job(Protocol):
    """Something to do that tells how it goes."""

    @property
    def key(self) -> str:
        """Its name."""
        ...

    @property
    def claim(self) -> Path:
        """What is claimed while it is done: another process may be about the same job."""
        ...

    @property
    def devices(self) -> int:
        """How many devices it computes on."""
        ...

    def made(self) -> bool:
        """Return whether nothing is left to do, as another process has done it since the job was planned."""
        ...

    def execute(self, report: Report) -> None:
        """Do it; raise `Stopped` after a checkpoint where a stop was asked for."""
        ...

    def record_failure(self, failure: str) -> None:
        """Keep the reason why it failed."""
        ...


@dataclass(frozen=True)
class Outcome:
    """How a job ended: well, unless something else is said."""

    failure: str | None = None
    """One line where the fault is known, else the traceback."""
    stopped: bool = False
    """Asked to, it has ended at a checkpoint."""
    obstacle: str | None = None
    """What makes it useless to start any other job: a line."""


@dataclass
class Ended:
    """How jobs ended: which were started here, and of all what was not done."""

    started: set[str] = field(default_factory=set)
    failures: dict[str, str] = field(default_factory=dict)
    stopped: list[str] = field(default_factory=list)
    """Jobs that can go on another time, or were not started."""
    obstacle: str | None = None
    """Why nothing more was started, where it was not a person's wish."""


class Agenda:
    """What is to be done, what is claimed, and how it ended."""

    def __init__(self, jobs: Sequence[Job], needs: Mapping[str, str], listener: Listener, claims: Claims) -> None:
        self.waiting = list(jobs)
        self.needs = needs
        self.listener = listener
        self.claims = claims
        self.ended = Ended()
        self._undone = {job.key for job in jobs}
        self._awaited: set[str] = set()

    def next(self, room: int) -> Job | None:
        """Return a job that can be done now, claimed, on at most `room` devices; None where there is none."""
        if stop_asked() or self.ended.obstacle:
            self._give_up()
        for job in self.waiting[:]:
            if job not in self.waiting or self.needs.get(job.key) in self._undone or job.devices > room:
                continue
            try:
                claimed = self._claimed(job)
            except OSError as error:
                self._end_unclaimed(job, error)
                continue
            if not claimed:
                continue
            self.waiting.remove(job)
            try:
                made = job.made()
            except OSError as error:
                self.close(job, Outcome(explained(error) or str(error)))
                continue
            if not made:
                self.ended.started.add(job.key)
                self.listener.start(job.key)
                return job
            self.close(job, Outcome())
        return None

    def _claimed(self, job: Job) -> bool:
        with full_disk_names(job.claim):
            claimed = self.claims.take(job.claim)
        if not claimed and job.key not in self._awaited:
            self._awaited.add(job.key)
            self.listener.event(Event(job.key, "waiting", 0, 0, note=f"{holder(job.claim)} is at it; awaited"))
        return claimed

    def close(self, job: Job, outcome: Outcome) -> None:
        """Take down how a job that was claimed has ended; its process may have died when all was done."""
        if outcome.stopped and not (stop_asked() or outcome.obstacle):
            outcome = Outcome(TOLD_BY_ANOTHER)
        with suppress(OSError):
            if outcome.failure and job.made():
                outcome = Outcome()
        self.ended.obstacle = self.ended.obstacle or outcome.obstacle
        if outcome.failure:
            job.record_failure(outcome.failure)
        self.claims.release(job.claim)
        self._note_end(job, outcome)

    def _end_unclaimed(self, job: Job, error: OSError) -> None:
        """A disk that is full is an obstacle to all jobs, and what else keeps from a claim fails that job."""
        line = explained(error) or str(error)
        if error.errno in DISK_FULL:
            self.ended.obstacle = line
            return
        self.waiting.remove(job)
        self._note_end(job, Outcome(line))

    def _give_up(self) -> None:
        for job in self.waiting:
            self._note_end(job, Outcome(stopped=True))
        self.waiting.clear()

    def _note_end(self, job: Job, outcome: Outcome) -> None:
        if outcome.stopped:
            self.ended.stopped.append(job.key)
            self.listener.stop(job.key)
            return
        if outcome.failure is None:
            self._undone.discard(job.key)
            self.listener.end(job.key, None)
            return
        self.ended.failures[job.key] = outcome.failure
        self.listener.end(job.key, outcome.failure)
        for other in [j for j in self.waiting if self.needs.get(j.key) == job.key]:
            self.waiting.remove(other)
            self._fail_with(other, f"{job.key}, which it needs, failed: {last_line(outcome.failure)}")

    def _fail_with(self, job: Job, failure: str) -> None:
        """Take down that a job cannot be done, unless another process is at it."""
        with suppress(OSError):
            if self._claimed(job):
                job.record_failure(failure)
                self.claims.release(job.claim)
        self._note_end(job, Outcome(failure))
