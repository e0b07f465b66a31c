"""Batches that other processes make: the same, in order, without shared memory's folder, and nobody waits for ever."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import psutil
import pytest
import torch
from surroundings import in_surroundings
from torch import Tensor

from benchmarks import loading
from benchmarks.errors import DataError, ReaderDiedError
from benchmarks.loading import AHEAD, Batches

PLACES = [[0, 1], [2], [3, 4, 5], [6], [7], [8, 9]]


def numbers(places: Sequence[int]) -> list[Tensor]:
    """A batch of several types, shapes and strides."""
    of = torch.tensor(places)
    return [of.float()[:, None].expand(-1, 33) / 7, of, of.to(torch.uint8) > 3, torch.tensor(0.5).double()]


def made(workers: int) -> list[list[Tensor]]:
    return [[part.clone() for part in batch] for batch in Batches(numbers, PLACES, workers)]


def same(one: list[list[Tensor]], other: list[list[Tensor]]) -> bool:
    pairs = [pair for x, y in zip(one, other, strict=True) for pair in zip(x, y, strict=True)]
    return all(torch.equal(a, b) and a.dtype == b.dtype for a, b in pairs)


@pytest.mark.parametrize("workers", [1, 2, 9])
def test_batches_of_other_processes_are_the_same_in_order(workers: int) -> None:
    assert same(made(workers), made(0))


def test_batches_are_the_same_where_the_system_has_no_files_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create")
    assert same(made(2), made(0))


def test_a_batch_stays_what_it_was_when_later_ones_have_come() -> None:
    kept = list(Batches(numbers, PLACES, 2))
    assert same(kept, made(0))


def touched(folder: Path, places: Sequence[int]) -> list[Tensor]:
    (folder / str(places[0])).touch()
    return [torch.tensor(places)]


def test_a_process_is_no_more_than_a_few_batches_ahead(tmp_path: Path) -> None:
    with closing(iter(Batches(partial(touched, tmp_path), [[i] for i in range(20)], 1))) as batches:
        next(batches)
        time.sleep(0.5)
        assert len(list(tmp_path.iterdir())) == AHEAD + 1


def test_batches_come_where_there_is_no_folder_of_shared_memory() -> None:
    code = (
        "import torch; from test_loading import large; from benchmarks.loading import Batches\n"
        "print(sum(len(images) for images, in Batches(large, [[0, 1]] * 5, 2)))"
    )
    done = in_surroundings([sys.executable, "-W", "ignore", "-c", code], shm="none", cwd=Path(__file__).parent)
    assert (done.stdout, done.stderr) == ("10\n", "")


def large(places: Sequence[int]) -> list[Tensor]:
    return [torch.ones(len(places), 3, 200, 200)]


def fails(error: Exception, places: Sequence[int]) -> list[Tensor]:
    if places[0] == 3:
        raise error
    return numbers(places)


def test_an_error_comes_as_it_is_with_its_traceback_behind_the_batches_before_it() -> None:
    batches = iter(Batches(partial(fails, DataError("a.png: damaged")), PLACES, 2))
    assert same([next(batches), next(batches)], made(0)[:2])
    with pytest.raises(DataError, match=r"^a.png: damaged$") as caught:
        next(batches)
    assert "in fails\n" in str(caught.value.__cause__)


class UnsendableError(Exception):
    def __init__(self, one: str, other: str) -> None:
        super().__init__(one + other)


def test_an_error_that_cannot_be_sent_comes_as_its_text() -> None:
    with pytest.raises(RuntimeError, match=r"^UnsendableError: ab$"):
        list(Batches(partial(fails, UnsendableError("a", "b")), PLACES, 1))


def dies(places: Sequence[int]) -> list[Tensor]:
    if places[0] == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return numbers(places)


def test_a_process_that_died_is_noticed_at_once() -> None:
    started = time.monotonic()
    with pytest.raises(ReaderDiedError) as caught:
        list(Batches(dies, PLACES, 2))
    assert caught.value.status == -signal.SIGKILL
    assert time.monotonic() - started < 5


def test_no_process_stays_when_the_batches_are_not_wanted_any_more() -> None:
    before = set(psutil.pids())
    with closing(iter(Batches(numbers, PLACES, 2))) as batches:
        next(batches)
        readers = {child.pid for child in psutil.Process().children()} - before
        assert len(readers) == 2
    assert not any(map(psutil.pid_exists, readers))


LEAVES = """
import os, sys
from test_loading import PLACES, numbers
from benchmarks.loading import Batches
import psutil
batches = iter(Batches(numbers, [[i] for i in range(99)], 2))
next(batches)
print(*(child.pid for child in psutil.Process().children()), flush=True)
if sys.argv[1] == "killed":
    os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("how", ["killed", "ended"])
def test_no_process_stays_when_the_one_that_takes_the_batches_is_gone(how: str) -> None:
    here = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": f"{here.parent}:{here}"}
    command = [sys.executable, "-W", "ignore", "-c", LEAVES, how]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False, timeout=60)
    readers = [int(number) for number in done.stdout.split()]
    assert len(readers) == 2
    until = time.monotonic() + 10
    while any(map(psutil.pid_exists, readers)) and time.monotonic() < until:
        time.sleep(0.1)
    assert not any(map(psutil.pid_exists, readers))


def test_copies_are_made_ahead_in_order_and_end_with_the_batches() -> None:
    ended = []

    def batches() -> Generator[list[Tensor], None, None]:
        try:
            yield from Batches(numbers, PLACES, 0)
        finally:
            ended.append(True)

    def copy(batch: list[Tensor]) -> list[Tensor]:
        return [part.clone() for part in batch]

    assert same(list(loading._copied_ahead(batches(), copy, None)), made(0))
    with closing(loading._copied_ahead(batches(), copy, None)) as some:
        next(some)
    assert len(ended) == 2
