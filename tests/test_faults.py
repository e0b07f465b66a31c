"""What the machine does to a run is told in one line, leaves nothing half made, and the same request goes on."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
import torch
from ending_job import Ending
from jobs import Listener
from small_disk import mounted
from test_resume import SCENARIO, command_line
from usual import usual

import bench.cli.entry
import bench.train.base
import bench.train.epochs
import bench.train.networks
from bench.cli.entry import main
from bench.launch import pool
from bench.plan.code import code_digest, copy_code
from bench.screen.faults import explained, explained_exit
from bench.screen.log import log, logged
from bench.train.base import load_base
from bench.train.checkpoint import Checkpoint
from bench.train.kept import base_model
from benchmarks.sets.voc import Voc
from benchmarks.streams import load_benchmark
from reports.atomic import write_atomic
from strategies.networks.build import build_network

TINY = ("data.size=16", "base.epochs=2", "base.batch_size=8", "memory.size=8", "evaluation.pictures=2")


# ------------------------------------------------------------------------------------------------- a full disk


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with mounted(tmp_path / "disk", "size=16m") as folder:
        yield folder


def fill(disk: Path) -> None:
    ballast = os.open(disk / "ballast", os.O_WRONLY | os.O_CREAT)
    while shutil.disk_usage(disk).free:
        os.write(ballast, bytes(4096))
    os.close(ballast)


@contextmanager
def filled_before(written: str, disk: Path) -> Iterator[list[str]]:
    """Fill the disk the first time that a file with `written` in its path there is opened to be written."""
    happened: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        real = Path.open

        def opened(self: Path, mode: str = "r", *args: Any, **kwargs: Any) -> IO[Any]:
            if "w" in mode and disk in self.parents and written in str(self.relative_to(disk)):
                happened.append(self.name)
                patch.setattr(Path, "open", real)
                fill(disk)
            return real(self, mode, *args, **kwargs)

        patch.setattr(Path, "open", opened)
        yield happened


def bench_run(data_root: Path, out: Path, *settings: str) -> int:
    """The exit status of `bench run`."""
    with pytest.raises(SystemExit) as ended:
        main([*command_line(data_root, out, "er", [*TINY, *settings]), "--jobs", "1", "--device", "cpu"])
    assert isinstance(ended.value.code, int)
    return ended.value.code


def results(out: Path) -> dict[str, bytes]:
    """The files of the finished runs, less those with times, and what says how images were to be read."""
    folder, left_out = out / SCENARIO, ("costs.csv", "log.txt", "spec.yaml")
    files = (f for f in folder.rglob("*") if f.is_file() and f.name not in left_out)
    return {str(f.relative_to(folder)): f.read_bytes() for f in files}


def scrap(folder: Path) -> list[Path]:
    """What is hidden or named as temporary."""
    return [path for path in folder.rglob("*") if path.name.startswith(".") or "tmp" in path.name]


@pytest.fixture(scope="module")
def whole(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What an undisturbed run writes."""
    out = tmp_path_factory.mktemp("whole")
    assert bench_run(data_root, out) == 0
    return results(out)


def the_line(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line printed that tells of a full disk, with no traceback around it."""
    text = "".join(capsys.readouterr())
    assert "Traceback" not in text
    [line] = {line[line.index("the disk is full") :] for line in text.splitlines() if "the disk is full" in line}
    return line


GO_ON = "make space, then the same command goes on where it stopped"
POINTS = [
    "spec.yaml",
    "2007_",
    "step-0.csv",
    "step-0.ckpt",
    "step-1.csv",
    "costs.csv",
    "step-1.ckpt",
    "done",
    ".tex",
    ".pdf",
]


@pytest.mark.parametrize("written", usual(POINTS, "costs.csv", "step-1.ckpt"))
def test_a_run_on_a_disk_that_fills_up_goes_on_when_there_is_space(
    written: str, data_root: Path, disk: Path, whole: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    with filled_before(written, disk) as happened:
        assert bench_run(data_root, disk / "runs") == 1
    [name] = happened
    line = the_line(capsys)
    path = Path(line.removeprefix("the disk is full: ").partition(" cannot be written")[0])
    assert path.name == name.split(".tmp-")[0].removeprefix(".")
    assert disk in path.parents
    assert line == f"the disk is full: {path} cannot be written, 0 MiB are free in {path.parent}; {GO_ON}"
    assert scrap(disk) == []
    (disk / "ballast").unlink()
    assert bench_run(data_root, disk / "runs") == 0
    assert results(disk / "runs") == whole
    assert scrap(disk) == []


CACHED = {
    "train-images": "packed",
    "test-label-maps": "packed",
    "train-sizes": "packed",
    ".npz": "presence",
    ".ckpt": "bases",
    ".json": "bases",
    ".base": "bases",
    "sound/": "sound",
}


@pytest.mark.parametrize("written", usual(CACHED, "train-images", ".ckpt"))
def test_a_cache_on_a_disk_that_fills_up_is_completed_when_there_is_space(
    written: str,
    data_root: Path,
    disk: Path,
    whole: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(disk))
    monkeypatch.setattr(bench.train.epochs, "CHECKPOINT_SECONDS", 0.0)
    settings = ["data.ram_gb=0"] if CACHED[written] == "sound" else []
    with filled_before(written, disk) as happened:
        assert bench_run(data_root, tmp_path / "runs", *settings) == 1
    assert len(happened) == 1
    line = the_line(capsys)
    folder = disk / CACHED[written]
    assert line.startswith(f"the disk is full: {folder}/")
    assert line.endswith(f" cannot be written, 0 MiB are free in {folder}; {GO_ON}")
    assert scrap(disk) == []
    (disk / "ballast").unlink()
    assert bench_run(data_root, tmp_path / "runs", *settings) == 0
    assert results(tmp_path / "runs") == whole
    assert scrap(disk) == []


def test_a_log_that_cannot_be_written_stops_nothing(disk: Path) -> None:
    with logged(disk / "log.txt", "er seed 0", lambda event: None, verbose=False):
        log.info("begins")
        fill(disk)
        log.info("a line that needs room %s", 10_000 * ".")
    assert "begins" in (disk / "log.txt").read_text()


def test_a_copy_of_the_code_on_a_full_disk_names_the_copy(disk: Path) -> None:
    fill(disk)
    with pytest.raises(OSError, match="No space left") as caught:
        copy_code(disk / "code")
    assert caught.value.filename == str(disk / "code" / code_digest()[:12])


def test_a_disk_without_a_free_inode_is_told_as_such(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "size=16m,nr_inodes=2") as folder:
        path = folder / "b.csv"
        write_atomic(folder / "a.csv", "1\n")
        with pytest.raises(OSError, match="No space left on device") as caught:
            write_atomic(path, "1\n")
        line = f"the disk is full: {path} cannot be written, no inode is free in {folder}; {GO_ON}"
        assert explained(caught.value) == line


def test_a_quota_is_told_without_the_space_of_others() -> None:
    error = OSError(errno.EDQUOT, "Disk quota exceeded", "/runs/a.csv")
    assert explained(error) == f"the disk quota is used up: /runs/a.csv cannot be written; {GO_ON}"


def test_a_full_disk_of_which_nothing_is_known_is_told_too() -> None:
    error = OSError(errno.ENOSPC, "No space left on device")
    assert explained(error) == f"the disk is full: a file cannot be written; {GO_ON}"


# ------------------------------------------------------------------------------------------------------- memory

LESS = "use fewer --jobs or a smaller data.ram_gb"

ALLOCATE = """
import json, mmap, resource, sys
from pathlib import Path
import numpy, torch
from bench.launch import pool
from jobs import IdleJob, Listener

GIB = 2**30
ALLOCATE = {
    "torch": lambda: torch.ones(GIB),
    "numpy": lambda: numpy.ones(GIB, numpy.uint8),
    "bytes": lambda: bytearray(GIB),
    "mmap": lambda: mmap.mmap(-1, GIB),
    "nothing": lambda: None,
}

class Allocating(IdleJob):
    def execute(self, report):
        ALLOCATE[self.key]()

jobs = [Allocating(key, Path(sys.argv[1])) for key in ALLOCATE]
pages = int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + GIB // 4,) * 2)
print(json.dumps(pool.run_jobs(jobs, {}, 1, Listener()).failures))
"""


def test_a_process_that_gets_no_more_memory_says_so(tmp_path: Path) -> None:
    here = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": f"{here.parent}:{here}"}
    command = [sys.executable, "-W", "ignore", "-c", ALLOCATE, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {
        "torch": f"the machine's memory is full: you tried to allocate 4294967296 bytes; {LESS}",
        "numpy": "the machine's memory is full: "
        f"Unable to allocate 1.00 GiB for an array with shape (1073741824,) and data type uint8; {LESS}",
        "bytes": f"the machine's memory is full: no more could be allocated; {LESS}",
        "mmap": f"the machine's memory is full: [Errno 12] Cannot allocate memory; {LESS}",
    }


def test_a_full_gpu_says_so() -> None:
    text = (
        "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 139.80 GiB of which 9.12 MiB "
        "is free. Process 1 has 139.79 GiB memory in use.\nSee documentation for Memory Management"
    )
    assert explained(torch.OutOfMemoryError(text)) == (
        "the GPU's memory is full: CUDA out of memory. Tried to allocate 20.00 MiB; "
        "use fewer --jobs on one GPU, a smaller incremental.batch_size, base.batch_size or data.crop"
    )
    context = RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported")
    assert str(explained(context)).startswith("the GPU's memory is full: CUDA error: out of memory; use")


def test_a_checkpoint_for_which_there_is_no_memory_is_kept(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "a.ckpt", {"step": 1})
    checkpoint.write({"weights": torch.zeros(3)})

    def load(state: object) -> None:
        torch.empty(2**46)

    with pytest.raises(RuntimeError, match="can't allocate memory"):
        checkpoint.restore(load)


def test_a_base_model_for_which_there_is_no_memory_is_not_called_damaged(monkeypatch: pytest.MonkeyPatch) -> None:
    base_model("hash").write({})
    monkeypatch.setattr(torch, "load", lambda *args, **kwargs: np.zeros(2**46))
    with pytest.raises(MemoryError, match="Unable to allocate"):
        load_base("hash", build_network("small", 3, "linear", 1.0, False))


def test_a_checkpoint_that_cannot_be_read_just_now_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = Checkpoint(tmp_path / "a.ckpt", {"step": 1})
    checkpoint.write({})

    def too_many(path: Path) -> bytes:
        raise OSError(errno.EMFILE, "Too many open files", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", too_many)
        with pytest.raises(OSError, match="Too many open files"):
            checkpoint.fault()
    assert checkpoint.fault() is None


def test_what_is_known_of_an_error_may_be_its_cause() -> None:
    error = RuntimeError("the base model cannot be built")
    error.__cause__ = MemoryError("Unable to allocate 1 TiB")
    assert explained(error) == f"the machine's memory is full: Unable to allocate 1 TiB; {LESS}"


@pytest.mark.parametrize("error", [RuntimeError("planted"), FileNotFoundError(2, "No such file", "a"), KeyError("a")])
def test_other_errors_are_not_explained(error: Exception) -> None:
    assert explained(error) is None


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "bench: the machine's memory is full: no more could be allocated; "),
        (OSError(errno.EIO, "Input/output error", "a.png"), "bench: [Errno 5] Input/output error: 'a.png'"),
    ],
)
def test_the_command_line_says_it_in_one_line(
    error: Exception, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("bench.cli.listing._scenarios", _raising(error))
    with pytest.raises(SystemExit, match="1"):
        main(["scenarios"])
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(said)


def test_the_command_line_leaves_a_bug_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.cli.listing._scenarios", _raising(RuntimeError("planted")))
    with pytest.raises(RuntimeError, match="planted"):
        main(["scenarios"])


def _raising(error: Exception) -> Callable[[object], int]:
    def command(options: object) -> int:
        raise error

    return command


# ------------------------------------------------------------------------------------------ processes that were killed


def test_a_job_whose_process_ended_without_a_word_is_told_by_how_it_ended(tmp_path: Path) -> None:
    jobs = [Ending(key, tmp_path) for key in ("SIGKILL", "SIGSEGV", "SIGUSR1", "3")]
    assert pool.run_jobs(jobs, {}, 2, Listener()).failures == {
        "SIGKILL": f"its process was killed (SIGKILL): most likely the machine's memory is full; {LESS}",
        "SIGSEGV": "its process crashed (SIGSEGV)",
        "SIGUSR1": "its process was terminated (SIGUSR1)",
        "3": "its process ended with exit status 3",
    }


@pytest.mark.parametrize(("status", "signal_told"), [(-15, "SIGTERM"), (-40, "signal 40")])
def test_a_process_that_was_terminated_is_told_with_the_signal(status: int, signal_told: str) -> None:
    assert explained_exit(status) == f"its process was terminated ({signal_told})"


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (signal.SIGKILL, "was killed (Killed): most likely the machine's memory is full; "),
        (signal.SIGBUS, "was killed (Bus error): most likely the shared memory, /dev/shm, is full; "),
        (signal.SIGTERM, "was killed (Terminated)"),
    ],
)
def test_a_killed_worker_of_a_loader_is_told(
    number: int, said: str, data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = _of_a_worker(lambda: os.kill(os.getpid(), number), data_root, monkeypatch)
    assert message.startswith(f"a process that reads images {said}")
    assert "\n" not in message


def test_a_worker_of_a_loader_that_gets_no_more_memory_is_told(
    data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = _of_a_worker(lambda: np.zeros(2**46), data_root, monkeypatch)
    assert message.startswith("the machine's memory is full: ")
    assert "Unable to allocate 512. TiB" in message
    assert "\n" not in message


def _of_a_worker(happening: Callable[[], object], data_root: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """What is told of something that happens in a loader's worker as it reads an image."""
    data = load_benchmark(SCENARIO, data_root, ram_budget=0).train_stream[1].data
    monkeypatch.setattr(Voc, "read", lambda *args: happening())
    with pytest.raises(RuntimeError) as caught:
        list(data.batches(4, workers=1))
    return str(explained(caught.value))
