"""Jobs side by side, one process each, or one after another in the calling process."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from bench.launch.agenda import Agenda, Ended, Job, Outcome
from bench.launch.claims import Claims
from bench.screen.events import Event, Listener, Report
from bench.screen.faults import explained, explained_exit, failure_of
from bench.screen.stopping import Stopped, ask_to_stop, stop_asked
from bench.train.forkserver import start, warm_up
from benchmarks.cache import DISK_FULL
from strategies.plugins.faults import in_a_line

POLL_SECONDS = 0.5
"""Between two looks at a job that another process has claimed, or at whether a stop was asked for."""
STARTS = 4
"""So often a worker is started: the process that it is forked from may have died, and is soon another."""


def run_jobs(
    jobs: Sequence[Job], needs: Mapping[str, str], workers: int, listener: Listener, gpus: Sequence[str] = ()
) -> Ended:
    """Execute jobs, at most `workers` at a time, each after the job it needs; return what was not done.

    A job that another process has claimed is awaited. With `gpus`, the names by which CUDA_VISIBLE_DEVICES knows them,
    the workers are spread over them. The numbers depend on none of this. A failure stops nothing but the jobs that
    need the failed one.
    """
    with Claims() as claims:
        agenda = Agenda(jobs, needs, listener, claims)
        if workers == 1:
            _one_by_one(agenda)
        else:
            _side_by_side(agenda, workers, gpus)
    return agenda.ended


def _one_by_one(agenda: Agenda) -> None:
    while agenda.waiting:
        job = agenda.next(room=_EVERYTHING)
        if job is None:
            time.sleep(POLL_SECONDS if agenda.waiting else 0)
            continue
        agenda.close(job, _outcome(job, agenda.listener.event))


_EVERYTHING = 1 << 30


def _outcome(job: Job, report: Report) -> Outcome:
    try:
        job.execute(report)
    except Stopped:
        return Outcome(stopped=True)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a method may end its process, or raise what is no Exception
        if isinstance(error, OSError) and error.errno in DISK_FULL:
            return Outcome(stopped=True, obstacle=explained(error))
        return Outcome(failure_of(error))
    return Outcome()


@dataclass
class _Worker:
    job: Job
    process: Any
    slots: list[int]
    told_to_stop: bool = False


def _side_by_side(agenda: Agenda, workers: int, gpus: Sequence[str]) -> None:
    slots = _Slots(workers, gpus)
    running: dict[Connection, _Worker] = {}
    try:
        while agenda.waiting or running:
            while agenda.waiting and (job := agenda.next(slots.room)):
                taken = slots.take(job.devices)
                try:
                    running.update([_start(job, taken, slots.environment(taken))])
                except Exception as error:
                    slots.give_back(taken)
                    agenda.close(job, Outcome(f"its process could not be started ({in_a_line(error)})"))
            if stop_asked():
                _tell_to_stop(running)
            if not running:
                time.sleep(POLL_SECONDS if agenda.waiting else 0)
            for end in wait(list(running), POLL_SECONDS) if running else ():
                assert isinstance(end, Connection)
                message = _received(end, running[end])
                if isinstance(message, Event):
                    agenda.listener.event(message)
                    continue
                worker = running.pop(end)
                worker.process.join(10)
                slots.give_back(worker.slots)
                agenda.close(worker.job, message)
    finally:
        for worker in running.values():
            worker.process.kill()


class _Slots:
    """Room for so many jobs, each on a GPU where there are any; several slots may share one."""

    def __init__(self, workers: int, gpus: Sequence[str]) -> None:
        self.gpus = gpus
        self.workers = workers
        self.free = list(range(workers))

    @property
    def room(self) -> int:
        """On how many devices a job may compute now."""
        if len(self.free) == self.workers:
            return _EVERYTHING
        return len({self._gpu(slot) for slot in self.free}) if self.gpus else len(self.free)

    def take(self, devices: int) -> list[int]:
        """Return slots for a job on so many devices, each on another GPU; all slots where there are not as many."""
        chosen: dict[object, int] = {}
        for slot in self.free:
            chosen.setdefault(self._gpu(slot) if self.gpus else slot, slot)
        taken = list(chosen.values())[:devices]
        if len(taken) < devices:
            taken = list(self.free)
        self.free = [slot for slot in self.free if slot not in taken]
        return taken

    def give_back(self, slots: Sequence[int]) -> None:
        """Free slots again."""
        self.free = sorted([*self.free, *slots])

    def environment(self, slots: Sequence[int]) -> dict[str, str]:
        """Return what a process in these slots is told: which GPUs it sees."""
        if not self.gpus:
            return {}
        seen = self.gpus if len(slots) == self.workers else [self._gpu(slot) for slot in slots]
        return {"CUDA_VISIBLE_DEVICES": ",".join(dict.fromkeys(seen))}

    def _gpu(self, slot: int) -> str:
        return self.gpus[slot % len(self.gpus)]


def _start(job: Job, slots: list[int], environment: Mapping[str, str]) -> tuple[Connection, _Worker]:
    context = multiprocessing.get_context("forkserver")
    ours, theirs = context.Pipe(duplex=False)

    def started() -> Any:
        warm_up()  # in case that what it is forked from has died
        args = (pickle.dumps(job), theirs, {**os.environ, **environment})
        return start(context.Process(target=_child, args=args))

    with theirs:
        for _ in range(STARTS - 1):
            with suppress(EOFError, ConnectionError):
                return ours, _Worker(job, started(), slots)
            time.sleep(POLL_SECONDS)
        return ours, _Worker(job, started(), slots)


def _received(end: Connection, worker: _Worker) -> Event | Outcome:
    try:
        message: Event | Outcome = end.recv()
        return message
    except (EOFError, OSError):  # between two messages, or within one
        worker.process.join(10)
        status = worker.process.exitcode
        if worker.told_to_stop and status == -signal.SIGTERM:  # before it could heed it
            return Outcome(stopped=True)
        return Outcome(explained_exit(status))


def _tell_to_stop(running: Mapping[Connection, _Worker]) -> None:
    for worker in running.values():
        if not worker.told_to_stop:
            worker.told_to_stop = True
            worker.process.terminate()


def _child(pickled: bytes, to_parent: Connection, environment: Mapping[str, str]) -> None:
    """Execute a job in the environment of now: the process that workers are forked from may be older."""
    signal.signal(signal.SIGTERM, ask_to_stop)
    _die_with_parent()
    os.environ.clear()
    os.environ.update(environment)
    to_parent.send(_outcome_of(pickled, to_parent.send))


def _outcome_of(pickled: bytes, report: Report) -> Outcome:
    """Execute a job that the parent has pickled; its method's code is imported with it."""
    try:
        job: Job = pickle.loads(pickled)
    except BaseException as error:
        return Outcome(f"{traceback.format_exc()}its process could not load its code: {in_a_line(error)}")
    return _outcome(job, report)


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
