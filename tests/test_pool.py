"""What carries jobs out: claims, room on GPUs, stops and obstacles."""

from __future__ import annotations

import errno
import json
import os
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import psutil
import pytest
from jobs import IdleJob, Listener

from bench.launch import pool
from bench.launch.claims import Claims
from bench.screen import stopping
from bench.screen.events import Report, last_line
from bench.screen.stopping import signals_heeded, stop_if_asked
from bench.train.forkserver import warm_up


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


class ToldByAnother(IdleJob):
    """Is told to stop by somebody else, and heeds it at its next checkpoint."""

    def execute(self, report: Report) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.1)
        stop_if_asked()


class Unreadable(IdleJob):
    """Nobody may know whether it is made."""

    def made(self) -> bool:
        raise PermissionError(errno.EACCES, "Permission denied", str(self.folder / "done"))


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


@pytest.mark.parametrize(("workers", "number"), [(1, signal.SIGINT), (2, signal.SIGHUP)])
def test_a_stop_ends_what_runs_at_its_checkpoint_and_starts_nothing_more(
    workers: int, number: signal.Signals, tmp_path: Path
) -> None:
    jobs = [Slow("a", tmp_path), Slow("b", tmp_path), Marking("c", tmp_path)]
    listener = Listener()

    def interrupt() -> None:
        while not (tmp_path / "a-step").exists():
            time.sleep(0.02)
        for process in (*psutil.Process().children(recursive=True), psutil.Process()):
            process.send_signal(number)  # a terminal sends it to all

    said: list[str] = []
    with signals_heeded(said.append) as heeded:
        threading.Thread(target=interrupt).start()
        ended = pool.run_jobs(jobs, {"c": "a"}, workers, listener)
    assert said == ["stopping at the next checkpoint; once more (Ctrl-C) stops at once"] and heeded.number == number
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


def test_a_worker_that_somebody_else_stops_has_failed_and_nothing_waits_for_it(tmp_path: Path) -> None:
    jobs = [ToldByAnother("a", tmp_path), Marking("b", tmp_path), Marking("c", tmp_path)]
    ended = pool.run_jobs(jobs, {"b": "a"}, 2, Listener())
    assert ended.failures == {
        "a": "its process was told to stop (SIGTERM), and not by this command",
        "b": "a, which it needs, failed: its process was told to stop (SIGTERM), and not by this command",
    }
    assert (tmp_path / "c").exists() and ended.stopped == []


@pytest.mark.parametrize("workers", [1, 2])
def test_a_job_of_which_nobody_may_know_whether_it_is_made_fails_alone(workers: int, tmp_path: Path) -> None:
    ended = pool.run_jobs([Unreadable("a", tmp_path), Marking("b", tmp_path)], {}, workers, Listener())
    assert ended.started == {"b"}
    assert list(ended.failures) == ["a"] and str(tmp_path / "done") in ended.failures["a"]
    assert not list(tmp_path.glob("*.claim"))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_starts_nothing_more(workers: int, tmp_path: Path) -> None:
    jobs = [Full("a", tmp_path), *(Slow(key, tmp_path) for key in "bcdefg")]
    ended = pool.run_jobs(jobs, {}, workers, Listener())
    assert ended.obstacle is not None and ended.obstacle.startswith("the disk is full: ")
    assert "a" in ended.stopped and ended.failures == {}
    assert set("defg") <= set(ended.stopped)
    assert not {"d", "e", "f", "g"} & ended.started
    assert not (tmp_path / "a.error").exists()


@pytest.mark.parametrize("workers", [1, 2])
def test_what_stands_in_the_way_of_one_job_fails_that_job_and_what_needs_it(workers: int, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    jobs = [Marking("a", tmp_path / "file"), Marking("b", tmp_path), Marking("c", tmp_path)]
    ended = pool.run_jobs(jobs, {"c": "a"}, workers, Listener())
    assert ended.obstacle is None and ended.stopped == []
    assert str(tmp_path / "file") in ended.failures["a"]
    assert ended.failures["c"] == f"a, which it needs, failed: {ended.failures['a']}"
    assert (tmp_path / "b").exists()


class Ending(IdleJob):
    """Ends the process that it is done in."""

    def execute(self, report: Report) -> None:
        sys.exit(4)


class Odd(IdleJob):
    """Raises what is no Exception."""

    def execute(self, report: Report) -> None:
        raise GeneratorExit("odd")


@pytest.mark.parametrize("workers", [1, 2])
def test_a_job_that_ends_the_process_or_raises_what_is_no_exception_fails_alone(workers: int, tmp_path: Path) -> None:
    ended = pool.run_jobs([Ending("a", tmp_path), Odd("b", tmp_path), Marking("c", tmp_path)], {}, workers, Listener())
    assert {job: last_line(failure) for job, failure in ended.failures.items()} == {
        "a": "it ends the process (SystemExit: 4)",
        "b": "GeneratorExit: odd",
    }
    assert "test_pool.py" in (tmp_path / "a.error").read_text()
    assert (tmp_path / "c").exists()


class Unloadable(IdleJob):
    """Can be pickled; what it needs cannot be imported where it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[int]]:
        return sys.exit, (5,)


def test_a_job_that_its_process_cannot_load_or_be_sent_fails_alone(tmp_path: Path) -> None:
    class Local(Marking):
        """Cannot be pickled."""

    jobs = [Unloadable("a", tmp_path), Local("b", tmp_path), Marking("c", tmp_path)]
    ended = pool.run_jobs(jobs, {}, 2, Listener())
    assert last_line(ended.failures["a"]) == "its process could not load its code: it ends the process (SystemExit: 5)"
    assert ended.failures["b"].startswith("its process could not be started (") and "Local" in ended.failures["b"]
    assert (tmp_path / "c").exists()


@pytest.mark.parametrize("name", ["<stdin>", "script.py"])
def test_workers_import_nothing_of_the_script_that_starts_them(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as `python - <<EOF`, and a script without `if __name__ == "__main__":`."""
    (tmp_path / "script.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'w').close()\n")
    main = ModuleType("__main__")
    main.__file__ = str(tmp_path / name)
    monkeypatch.setitem(sys.modules, "__main__", main)
    ended = pool.run_jobs([Marking("a", tmp_path), Marking("b", tmp_path)], {}, 2, Listener())
    assert ended.failures == {} and ended.started == {"a", "b"}
    assert sys.modules["__main__"] is main
    assert not (tmp_path / "executed").exists()


def test_a_killed_process_fails_its_job_alone(tmp_path: Path) -> None:
    ended = pool.run_jobs([Dying("a", tmp_path), Marking("b", tmp_path)], {}, 2, Listener())
    assert list(ended.failures) == ["a"]
    assert "SIGKILL" in ended.failures["a"]
    assert (tmp_path / "a.error").read_text() == ended.failures["a"]
    assert (tmp_path / "b").exists()


class Killed(Marking):
    """Is killed when all is done."""

    def execute(self, report: Report) -> None:
        super().execute(report)
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_process_that_is_killed_when_all_is_done_fails_nothing(tmp_path: Path) -> None:
    ended = pool.run_jobs([Killed("a", tmp_path), Marking("b", tmp_path)], {"b": "a"}, 2, Listener())
    assert ended.failures == {} and ended.started == {"a", "b"}
    assert not (tmp_path / "a.error").exists()


class Mumbling(IdleJob):
    """Is killed in the middle of what it says."""

    def execute(self, report: Report) -> None:
        connection = report.__self__
        os.write(connection.fileno(), struct.pack("!i", 1000) + b"half")
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_process_that_is_killed_while_it_speaks_fails_its_job_alone(tmp_path: Path) -> None:
    ended = pool.run_jobs([Mumbling("a", tmp_path), Marking("b", tmp_path)], {}, 2, Listener())
    assert list(ended.failures) == ["a"] and "SIGKILL" in ended.failures["a"]
    assert (tmp_path / "b").exists()


@pytest.mark.long
def test_workers_start_again_after_the_process_that_they_are_forked_from_was_killed(tmp_path: Path) -> None:
    warm_up()
    children = psutil.Process().children()
    [server] = [child for child in children if "multiprocessing.forkserver" in " ".join(child.cmdline())]
    server.kill()
    ended = pool.run_jobs([Marking("a", tmp_path), Marking("b", tmp_path)], {}, 2, Listener())
    assert ended.failures == {}


@pytest.mark.long
def test_an_interrupt_that_a_terminal_sends_to_all_reaches_no_worker(tmp_path: Path) -> None:
    """Not the process that they are forked from either, nor while they start."""
    done = subprocess.run(
        [sys.executable, "-c", TERMINAL, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [Path(pool.__file__).parents[2], HERE]))},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        start_new_session=True,
    )
    assert done.stderr == ""
    assert json.loads(done.stdout) == {"failures": {}, "stopped": ["a", "b", "c"]}


HERE = Path(__file__).parent
TERMINAL = """
import json, os, signal, sys, threading, time
from pathlib import Path
from bench.launch import pool
from bench.train.forkserver import warm_up
from bench.screen.stopping import signals_heeded
from jobs import Listener
from test_pool import Slow

def interrupt():
    warm_up()
    time.sleep(0.3)
    os.killpg(0, signal.SIGINT)

with signals_heeded(lambda text: None):
    threading.Thread(target=interrupt).start()
    ended = pool.run_jobs([Slow(key, Path(sys.argv[1])) for key in "abc"], {}, 2, Listener())
print(json.dumps({"failures": ended.failures, "stopped": sorted(ended.stopped)}))
"""


@pytest.mark.long
def test_workers_end_with_the_process_that_started_them(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [Path(pool.__file__).parents[2], HERE]))}
    parent = subprocess.Popen([sys.executable, "-c", ORPHANS, str(tmp_path)], env=environment)
    deadline = time.monotonic() + 60
    while not (tmp_path / "a-step").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    parent.kill()
    parent.wait()
    time.sleep(1.0)
    last = (tmp_path / "a-step").read_text()
    time.sleep(0.5)
    assert (tmp_path / "a-step").read_text() == last != "49"


ORPHANS = """
import sys
from pathlib import Path
from bench.launch import pool
from jobs import Listener
from test_pool import Slow
pool.run_jobs([Slow("a", Path(sys.argv[1]))], {}, 2, Listener())
"""


def test_a_second_interrupt_ends_the_workers_at_once(tmp_path: Path) -> None:
    def interrupt() -> None:
        while not (tmp_path / "a-step").exists():
            time.sleep(0.02)
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.5)

    class Listening(Listener):
        def start(self, job: str) -> None:
            threading.Thread(target=interrupt).start()

    with pytest.raises(KeyboardInterrupt), signals_heeded(lambda text: None):
        pool.run_jobs([Deaf("a", tmp_path)], {}, 2, Listening())
    time.sleep(0.5)
    last = (tmp_path / "a-step").read_text()
    time.sleep(0.5)
    assert (tmp_path / "a-step").read_text() == last


class Deaf(IdleJob):
    """Heeds no stop."""

    def execute(self, report: Report) -> None:
        for step in range(300):
            time.sleep(0.1)
            (self.folder / f"{self.key}-step").write_text(str(step))


def test_jobs_are_spread_over_the_gpus_and_several_may_share_one(tmp_path: Path) -> None:
    jobs = [Seeing(key, tmp_path) for key in "abcd"]
    pool.run_jobs(jobs, {}, 4, Listener(), gpus=["0", "GPU-5"])
    assert sorted((tmp_path / job.key).read_text() for job in jobs) == ["0", "0", "GPU-5", "GPU-5"]


class Seeing(Marking):
    """Tells which GPUs it sees while others do."""

    def execute(self, report: Report) -> None:
        super().execute(report)
        deadline = time.monotonic() + 30
        while len([path for path in self.folder.iterdir() if path.suffix != ".claim"]) < 4:
            assert time.monotonic() < deadline
            time.sleep(0.02)


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
