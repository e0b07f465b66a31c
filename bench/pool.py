"""Jobs side by side, one process each, or one after another in the calling process."""

from __future__ import annotations

import multiprocessing
import os
import threading
import traceback
from collections.abc import Mapping, Sequence
from functools import partial
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol

from bench.events import Event, Report


class Job(Protocol):
    """Something to do that tells how it goes."""

    @property
    def key(self) -> str:
        """Its name."""
        ...

    def execute(self, report: Report) -> None:
        """Do it."""
        ...


class Listener(Protocol):
    """Told when a job starts, how it goes, and how it ends."""

    def start(self, job: str) -> None:
        """A job has started."""

    def event(self, event: Event) -> None:
        """A job has moved on."""

    def end(self, job: str, failure: str | None) -> None:
        """A job has ended; `failure` is None where it succeeded."""


Failures = dict[str, str]
"""By job: the traceback, or one line where there is none."""


def warm_up() -> None:
    """Start the process that workers are forked from; it imports torch and Avalanche meanwhile."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["bench.runner"])
    from multiprocessing import forkserver

    forkserver.ensure_running()


def run_jobs(jobs: Sequence[Job], needs: Mapping[str, str], workers: int, listener: Listener) -> Failures:
    """Execute jobs, at most `workers` at a time, each after the job it needs; return what failed.

    The numbers do not depend on `workers`. A failure stops nothing but the jobs that need the failed one.
    """
    run_all = _one_by_one if workers == 1 else partial(_pool, workers=workers)
    return run_all(jobs, needs, listener)


def _one_by_one(jobs: Sequence[Job], needs: Mapping[str, str], listener: Listener) -> Failures:
    failures: Failures = {}
    for job in jobs:
        if needs.get(job.key) in failures:
            failures[job.key] = _unmet(needs[job.key])
        else:
            listener.start(job.key)
            try:
                job.execute(listener.event)
            except Exception:
                failures[job.key] = traceback.format_exc()
        listener.end(job.key, failures.get(job.key))
    return failures


def _pool(jobs: Sequence[Job], needs: Mapping[str, str], listener: Listener, workers: int) -> Failures:
    context = multiprocessing.get_context("forkserver")
    failures: Failures = {}
    finished: set[str] = set()
    waiting = list(jobs)
    running: dict[Connection, tuple[Job, Any]] = {}
    known = {job.key for job in jobs}
    try:
        while waiting or running:
            for job in [j for j in waiting if needs.get(j.key) in failures]:
                failures[job.key] = _unmet(needs[job.key])
                waiting.remove(job)
                listener.end(job.key, failures[job.key])
            for job in waiting[:]:
                ready = needs.get(job.key) not in known - finished
                if ready and len(running) < workers:
                    waiting.remove(job)
                    running.update([_start(context, job)])
                    listener.start(job.key)
            for ready_end in wait(list(running)) if running else ():
                assert isinstance(ready_end, Connection)
                job, process = running[ready_end]
                try:
                    message = ready_end.recv()
                except EOFError:
                    message = f"its process ended with exit status {_joined(process)}"
                if isinstance(message, Event):
                    listener.event(message)
                    continue
                del running[ready_end]
                _joined(process)
                finished.add(job.key)
                if message is not None:
                    failures[job.key] = message
                listener.end(job.key, message)
    finally:
        for _, process in running.values():
            process.terminate()
    return failures


def _start(context: Any, job: Job) -> tuple[Connection, tuple[Job, Any]]:
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(job, theirs, dict(os.environ)))
    process.start()
    theirs.close()
    return ours, (job, process)


def _child(job: Job, to_parent: Connection, environment: Mapping[str, str]) -> None:
    """Execute a job in the environment of now: the process that workers are forked from may be older."""
    _die_with_parent()
    os.environ.clear()
    os.environ.update(environment)
    failure = None
    try:
        job.execute(to_parent.send)
    except Exception:
        failure = traceback.format_exc()
    to_parent.send(failure)


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _joined(process: Any) -> int | None:
    process.join(10)
    status: int | None = process.exitcode
    return status


def _unmet(needed: str) -> str:
    return f"{needed}, which it needs, failed"
