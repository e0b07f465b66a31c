"""Ctrl-C, `kill` and a closed terminal end every command alike: what is finished is kept, one line, status 128 + n."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console
from test_resume import plan

import bench
from bench.cli.entry import main
from bench.launch import execution
from bench.launch.execution import say_end
from bench.launch.session import execute
from bench.screen import stopping
from bench.screen.stopping import Interrupted, ends_interrupt, signals_heeded, stop_asked

QUIET = Console(quiet=True)
ROOT = Path(bench.__file__).parents[1]
SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
TOLD = {
    signal.SIGINT: "bench: interrupted\n",
    signal.SIGTERM: "bench: interrupted by SIGTERM\n",
    signal.SIGHUP: "bench: interrupted by SIGHUP\n",
}
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1"}


# ---------------------------------------------------------------- before there is anything to stop

SENDING = """
import os, signal, sys
sys.argv[0] = "bench"
class Sends:
    def find_spec(self, name, path, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), {number})
sys.meta_path.insert(0, Sends())
from bench.start import main
main()
"""


@pytest.mark.parametrize(
    ("module", "number"),
    [("argparse", signal.SIGINT), ("reports", signal.SIGINT), ("bench.cli.arguments", signal.SIGTERM)],
)
def test_a_signal_while_modules_are_imported_is_one_line(module: str, number: signal.Signals) -> None:
    """At the first import of all, those of the command line, and those of a command."""
    code = SENDING.format(module=module, number=int(number))
    done = subprocess.run(
        [sys.executable, "-c", code, "tables", "--runs", "none"], env=ENVIRONMENT, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (128 + number, "", TOLD[number])


def test_nothing_is_imported_before_ctrl_c_is_one_line() -> None:
    """Neither by the console script nor by `python -m bench`, which both start where signals are seen to."""
    code = "import os, sys; had = set(sys.modules); import bench.start; print(*sorted(set(sys.modules) - had))"
    done = subprocess.run([sys.executable, "-S", "-c", code], env=ENVIRONMENT, capture_output=True, text=True)
    assert set(done.stdout.split()) <= {"__future__", "bench", "bench.interrupted", "bench.start"}, done.stderr
    assert 'bench = "bench.start:main"' in (ROOT / "pyproject.toml").read_text()
    [line] = [line for line in (ROOT / "bench" / "__main__.py").read_text().splitlines() if "import" in line]
    assert line == "from bench.start import main"


# ---------------------------------------------------------------- every command


@pytest.mark.parametrize("number", SIGNALS)
def test_every_command_ends_with_one_line(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    before = [signal.getsignal(one) for one in SIGNALS]
    monkeypatch.setattr("bench.cli.listing._scenarios", lambda options: signal.raise_signal(number))
    with pytest.raises(SystemExit) as ended:
        main(["scenarios"])
    assert (ended.value.code, *capfd.readouterr()) == (128 + number, "", TOLD[number])
    assert [signal.getsignal(one) for one in SIGNALS] == before


def test_below_nohup_a_closed_terminal_ends_nothing() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with ends_interrupt(), signals_heeded(pytest.fail):
            signal.raise_signal(signal.SIGHUP)
            assert not stop_asked()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_forked_process_ends_by_the_signal_itself() -> None:
    with ends_interrupt():
        child = os.fork()
        if child == 0:
            os.kill(os.getpid(), signal.SIGTERM)
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM


# ---------------------------------------------------------------- while runs are made


def test_a_stopped_run_is_told_of_and_the_status_says_by_what(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What asks for it as the work begins; that it ends behind a checkpoint stands in test_pool."""
    planned = plan(data_root, tmp_path / "out", "er")
    for number in SIGNALS:
        monkeypatch.setattr(execution, "announce", lambda run, number=number: signal.raise_signal(number))
        stopped = execute(planned, QUIET)
        assert "er seed 0" in stopped.stopped and stopped.failures == {} and stopped.interrupted
        assert say_end(stopped, Console(width=200)) == 128 + number
        assert "not finished; the same command, without --overwrite, goes on with them" in capsys.readouterr().out


def test_the_second_signal_interrupts() -> None:
    said: list[str] = []
    with signals_heeded(said.append) as heeded:
        signal.raise_signal(signal.SIGTERM)
        assert heeded.number == signal.SIGTERM and stop_asked()
        with pytest.raises(Interrupted) as ended:
            signal.raise_signal(signal.SIGHUP)
    assert ended.value.number == signal.SIGHUP
    assert not stop_asked()


def test_a_thread_leaves_signals_and_what_was_asked_for_alone() -> None:
    seen: list[Callable[..., object] | int | None] = []

    def block() -> None:
        with signals_heeded(pytest.fail), ends_interrupt():
            seen.append(signal.getsignal(signal.SIGTERM))

    stopping.ask_to_stop()
    try:
        thread = threading.Thread(target=block)
        thread.start()
        thread.join()
        assert seen == [signal.getsignal(signal.SIGTERM)] and stop_asked()
    finally:
        stopping._asked.clear()


def test_what_is_printed_to_a_closed_terminal_goes_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """And to an open one as before."""
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as terminal, Path(os.devnull).open("w") as other:
        monkeypatch.setattr(sys, "__stdout__", terminal)
        monkeypatch.setattr(sys, "__stderr__", other)
        with signals_heeded(lambda text: None):
            signal.raise_signal(signal.SIGTERM)
            print("seen", file=terminal, flush=True)
            assert os.read(ours, 100) == b"seen\r\n"
        os.close(ours)
        with pytest.raises(OSError, match="Input/output error"):
            os.write(theirs, b"lost")
        with signals_heeded(lambda text: None):
            signal.raise_signal(signal.SIGHUP)
        print("nowhere", file=terminal, flush=True)
