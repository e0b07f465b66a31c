"""Of all processes that want a claim one at a time has it, and what a dead one held is free."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import bench.launch.claims
from bench.launch.claims import Claims, holder, is_claimed

HOLDER = """
import sys, time
from pathlib import Path
from bench.launch.claims import Claims
with Claims() as claims:
    print(claims.take(Path(sys.argv[1])), flush=True)
    time.sleep(60)
"""

COUNTER = """
import sys, time
from pathlib import Path
from bench.launch.claims import Claims
count, claim = Path(sys.argv[1]), Path(sys.argv[2])
added = 0
with Claims() as claims:
    while added < 40:
        if claims.take(claim):
            number = int(count.read_text())
            time.sleep(0.001)
            count.write_text(str(number + 1))
            claims.release(claim)
            added += 1
"""


def python(script: str, *arguments: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(bench.__file__).parents[1])}
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "claim"


def test_one_process_at_a_time_and_a_killed_ones_claim_is_free_at_once(path: Path) -> None:
    process = python(HOLDER, path)
    assert process.stdout is not None
    assert process.stdout.readline() == "True\n"
    with Claims() as claims:
        assert not claims.take(path)
        assert is_claimed(path)
        assert f"process {process.pid} on " in holder(path)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not is_claimed(path)
        assert claims.take(path)
        assert f"process {os.getpid()} on " in holder(path)
    assert not path.exists()
    process.stdout.close()


def test_processes_that_race_never_hold_a_claim_together(tmp_path: Path) -> None:
    """Each reads a number, waits, and writes the next: numbers get lost where two are at it."""
    count = tmp_path / "count"
    count.write_text("0")
    processes = [python(COUNTER, count, tmp_path / "claim") for _ in range(5)]
    assert [process.wait(60) for process in processes] == [0] * 5
    assert count.read_text() == "200"
    assert [path.name for path in tmp_path.iterdir()] == ["count"]


def test_two_of_one_process_exclude_each_other(path: Path) -> None:
    with Claims() as mine, Claims() as other:
        assert mine.take(path)
        assert not other.take(path)
        mine.release(path)
        assert other.take(path)


def elsewhere(path: Path) -> None:
    """A claim as another machine's process leaves it, whose lock is not seen here."""
    path.parent.mkdir()
    mark = {"machine": "another", "host": "node7", "pid": 1, "since": "2026-01-01T00:00:00+00:00", "slurm_job": "17_3"}
    path.write_text(json.dumps(mark))


def test_another_machines_claim_counts_while_it_is_touched(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.launch.claims, "STALE_SECONDS", 0.3)
    elsewhere(path)
    assert holder(path) == "process 1 on node7, Slurm job 17_3 since 2026-01-01T00:00:00+00:00"
    with Claims() as claims:
        for _ in range(5):
            os.utime(path)
            assert is_claimed(path)
            assert not claims.take(path)
            time.sleep(0.1)
        time.sleep(0.3)
        assert not is_claimed(path)
        assert claims.take(path)


def test_the_clocks_of_machines_need_not_agree(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An old time of another clock is no sign of death before it has stood still for a while."""
    monkeypatch.setattr(bench.launch.claims, "STALE_SECONDS", 0.3)
    elsewhere(path)
    os.utime(path, (1, 1))
    with Claims() as claims:
        assert not claims.take(path)
        time.sleep(0.35)
        assert claims.take(path)


def test_a_holder_touches_its_claims(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.launch.claims, "BEAT_SECONDS", 0.05)
    with Claims() as claims:
        assert claims.take(path)
        os.utime(path, (1, 1))
        time.sleep(0.3)
        assert path.stat().st_mtime > 1


def test_a_forked_process_does_not_keep_the_lock_beyond_its_parent(path: Path) -> None:
    """As the workers do that read images."""
    fork_and_die = HOLDER.replace(
        "    time.sleep(60)", "    import os\n    if os.fork(): os._exit(0)\n    time.sleep(5)"
    )
    process = python(fork_and_die, path)
    assert process.wait(30) == 0
    with Claims() as claims:
        assert claims.take(path)
    assert process.stdout is not None
    process.stdout.close()


def test_a_file_system_without_hard_links_has_claims_too(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", _unsupported)
    with Claims() as mine, Claims() as other:
        assert mine.take(path)
        assert f"process {os.getpid()} on " in holder(path)
        assert not other.take(path)
    assert list(path.parent.iterdir()) == []


def test_a_file_system_without_locks_is_told_as_such(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", _unsupported)
    with Claims() as claims, pytest.raises(OSError, match="the file system has no locks") as raised:
        claims.take(path)
    assert raised.value.filename == str(path)


def _unsupported(*arguments: object) -> None:
    raise OSError(errno.EOPNOTSUPP, "Operation not supported")


def test_a_damaged_claim_is_nobodys(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"\xff{")
    assert holder(path) == "another process"
    with Claims() as claims:
        assert claims.take(path)
