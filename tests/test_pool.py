"""What carries jobs out: claims, room on GPUs, stops and obstacles."""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from jobs import IdleJob, Listener

from bench import pool, stopping
from bench.claims import Claims
from bench.events import Report
from bench.stopping import signals_heeded, stop_if_asked


class Marking(IdleJob):
    """Leaves a file that says which GPUs it sees, and where it was made already leaves it alone."""

    def made(self) -> bool:
        return (self.folder / self.key).exists()

    def execute(self, report: Report) -> None:
        (self.folder / self.key).write_text(os.environ.get("CUDA_VISIBLE_DEVICES", ""))


class Slow(IdleJob):
    """Has checkpoints, a tenth of a second apart."""

    def execute(self, report: Report) -> None:
        for step in range(50):
            time.sleep(0.1)
            (self.folder / f"{self.key}-step").write_text(str(step))
            stop_if_asked()


class Full(IdleJob):
    """Meets a full disk."""

    def execute(self, report: Report) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "some file")


class Dying(IdleJob):
    """Is killed."""

    def execute(self, report: Report) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture(autouse=True)
def _nothing_asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(pool, "POLL_SECONDS", 0.05)
    yield
    stopping._asked.clear()


@pytest.mark.parametrize("workers", [1, 2])
def test_what_another_holds_is_awaited_and_not_made_twice(workers: int, tmp_path: Path) -> None:
    jobs = [Marking(key, tmp_path) for key in ("theirs", "ours")]
    listener = Listener()
    with Claims() as other:
        assert other.take(jobs[0].claim)

        def finish() -> None:
            (tmp_path / "theirs").write_text("made elsewhere")
            other.release(jobs[0].claim)

        threading.Timer(1.0, finish).start()
        ended = pool.run_jobs(jobs, {}, workers, listener)
    assert ended.started == {"ours"} == set(listener.started)
    assert listener.ended == {"ours": False, "theirs": False}
    assert f"process {os.getpid()}" in listener.notes[0] and listener.notes[0].endswith("is at it; awaited")
    assert (tmp_path / "theirs").read_text() == "made elsewhere"


def test_what_another_gave_up_is_made(tmp_path: Path) -> None:
    job = Marking("a", tmp_path)
    with Claims() as other:
        assert other.take(job.claim)
        threading.Timer(0.3, other.release, [job.claim]).start()
        assert pool.run_jobs([job], {}, 1, Listener()).started == {"a"}


@pytest.mark.parametrize("workers", [1, 2])
def test_a_stop_ends_what_runs_at_its_checkpoint_and_starts_nothing_more(workers: int, tmp_path: Path) -> None:
    jobs = [Slow("a", tmp_path), Slow("b", tmp_path), Marking("c", tmp_path)]
    listener = Listener()

    def interrupt() -> None:
        while not (tmp_path / "a-step").exists():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    said: list[str] = []
    with signals_heeded(said.append):
        threading.Thread(target=interrupt).start()
        ended = pool.run_jobs(jobs, {"c": "a"}, workers, listener)
    assert said == ["stopping at the next checkpoint; once more (Ctrl-C) stops at once"]
    assert sorted(ended.stopped) == sorted(listener.stopped) == ["a", "b", "c"]
    assert ended.failures == {} and ended.obstacle is None
    assert int((tmp_path / "a-step").read_text()) < 40
    assert not list(tmp_path.glob("*.claim"))


def test_a_second_interrupt_stops_at_once(tmp_path: Path) -> None:
    def interrupt() -> None:
        for _ in range(2):
            time.sleep(1.0)
            os.kill(os.getpid(), signal.SIGINT)

    class Deaf(IdleJob):
        def execute(self, report: Report) -> None:
            time.sleep(30)

    started = time.monotonic()
    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt), signals_heeded(lambda text: None):
        pool.run_jobs([Deaf("a", tmp_path)], {}, 1, Listener())
    assert time.monotonic() - started < 10
    assert not list(tmp_path.glob("*.claim"))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_starts_nothing_more(workers: int, tmp_path: Path) -> None:
    jobs = [Full("a", tmp_path), *(Slow(key, tmp_path) for key in "bcdefgh")][: 1 + workers * 3]
    ended = pool.run_jobs([jobs[0]], {}, workers, Listener())
    assert ended.obstacle is not None and ended.obstacle.startswith("the disk is full: ")
    assert ended.stopped == ["a"] and ended.failures == {}
    assert not (tmp_path / "a.error").exists()


def test_a_killed_process_fails_its_job_alone(tmp_path: Path) -> None:
    ended = pool.run_jobs([Dying("a", tmp_path), Marking("b", tmp_path)], {}, 2, Listener())
    assert list(ended.failures) == ["a"]
    assert "SIGKILL" in ended.failures["a"]
    assert (tmp_path / "a.error").read_text() == ended.failures["a"]
    assert (tmp_path / "b").exists()


def test_jobs_are_spread_over_the_gpus_and_several_may_share_one(tmp_path: Path) -> None:
    jobs = [Marking(key, tmp_path) for key in "abcdef"]
    pool.run_jobs(jobs, {}, 4, Listener(), gpus=["0", "GPU-5"])
    assert {(tmp_path / key).read_text() for key in "abcdef"} <= {"0", "GPU-5"}


def test_slots_give_every_gpu_its_share_before_any_gets_more() -> None:
    slots = pool._Slots(4, ["0", "1"])
    taken = [slots.take(1) for _ in range(4)]
    assert [slots.environment(t)["CUDA_VISIBLE_DEVICES"] for t in taken] == ["0", "1", "0", "1"]
    assert slots.room == 0
    slots.give_back(taken[1])
    assert slots.environment(slots.take(1)) == {"CUDA_VISIBLE_DEVICES": "1"}


def test_a_job_on_two_devices_waits_for_two_gpus() -> None:
    slots = pool._Slots(4, ["0", "1"])
    first, second, third = (slots.take(1) for _ in range(3))
    assert slots.room == 1
    slots.give_back(first)
    assert slots.room == 2
    both = slots.take(2)
    assert sorted(slots.environment(both)["CUDA_VISIBLE_DEVICES"].split(",")) == ["0", "1"]
    for part in (second, third, both):
        slots.give_back(part)
    assert slots.room > 64
    everything = slots.take(8)
    assert slots.environment(everything) == {"CUDA_VISIBLE_DEVICES": "0,1"}


def test_without_gpus_nothing_is_said_of_them() -> None:
    slots = pool._Slots(2, [])
    assert slots.environment(slots.take(1)) == {}
