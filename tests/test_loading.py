"""Batches that other processes make need no shared memory's folder, and nobody waits for ever for one."""

import errno
import os
import pickle
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from surroundings import in_surroundings
from torch import Tensor

from benchmarks import loading
from benchmarks.loading import ordered_batches, passes

PLACES = [[0, 1], [2], [3, 4, 5], [6], [7], [8, 9]]


class Numbers:
    """Samples that are their own places."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, place: int) -> int:
        return place


def joined(places: Sequence[int]) -> list[Tensor]:
    """A batch of several types, shapes and strides."""
    of = torch.tensor(places)
    return [of.float()[:, None].expand(-1, 33) / 7, of, of.to(torch.uint8) > 3]


def doubled(batch: Sequence[Tensor]) -> list[Tensor]:
    return [part * 2 for part in batch]


def processes(places: Sequence[int]) -> list[Tensor]:
    """The places, and which process joins them."""
    return [torch.tensor(places), torch.tensor(os.getpid())]


def large(places: Sequence[int]) -> list[Tensor]:
    return [torch.ones(len(places), 3, 200, 200)]


@pytest.mark.parametrize("workers", [1, 2])
def test_batches_of_other_processes_are_the_same_in_order(workers: int) -> None:
    here, there = (list(ordered_batches(Numbers(), PLACES, joined, doubled, n)) for n in (0, workers))
    pairs = [pair for x, y in zip(here, there, strict=True) for pair in zip(x, y, strict=True)]
    assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in pairs)


def test_what_comes_through_the_pipe_can_be_changed_in_place() -> None:
    for (batch,) in ordered_batches(Numbers(), [[0, 1]], large, list, 1):
        batch += 1


@pytest.mark.long
@pytest.mark.parametrize("shm", ["64k", "none"])
def test_batches_come_where_the_folder_of_shared_memory_is_small_or_absent(shm: str) -> None:
    code = (
        "import torch; from test_loading import Numbers, large; from benchmarks.loading import ordered_batches\n"
        "three = [ordered_batches(Numbers(), [[0, 1]] * 5, large, list, 2) for _ in range(3)]  # 42 locks; 64k has 16\n"
        "print(sum(len(images) for batches in zip(*three) for images, in batches))"
    )
    done = in_surroundings([sys.executable, "-W", "ignore", "-c", code], shm=shm, cwd=Path(__file__).parent)
    assert (done.stdout, done.stderr) == ("30\n", "")


def test_batches_come_where_workers_cannot_be_started_after_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(loader: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("torch.utils.data.dataloader._MultiProcessingDataLoaderIter", full)
    assert len(list(ordered_batches(Numbers(), PLACES, joined, doubled, 2))) == len(PLACES)


@pytest.mark.parametrize("workers", [0, 2])
def test_passes_go_on_from_one_to_the_next_with_the_same_workers(workers: int) -> None:
    asked: list[int] = []

    def orders() -> Iterator[list[list[int]]]:
        for number, places in enumerate([PLACES, [[9], [1, 2]], PLACES[:1]]):
            asked.append(number)
            yield places

    def load(places: Iterable[list[int]]) -> Any:
        return ordered_batches(Numbers(), places, processes, list, workers)

    seen, lengths, by, ahead = [], [], [], []
    for each in passes(load, orders()):
        lengths.append(len(each))
        batches = list(each)
        ahead.append(len(asked))
        seen.append([places.tolist() for places, _ in batches])
        by.append({process.item() for _, process in batches})
        with pytest.raises(RuntimeError, match="go by once"):
            iter(each)
    assert seen == [PLACES, [[9], [1, 2]], PLACES[:1]] and lengths == [6, 2, 1]
    assert len(set().union(*by)) == max(1, workers)
    assert ahead == ([3, 3, 3] if workers else [1, 2, 3])  # four batches are read ahead, beyond a pass's end


class Unsendable(Tensor):
    """A tensor that another process cannot be sent."""

    def numpy(self, **_: object) -> None:
        raise pickle.PicklingError("no")


def unsendable(places: Sequence[int]) -> list[Tensor]:
    return [torch.zeros(2).as_subclass(Unsendable)]


def dies(places: Sequence[int]) -> list[Tensor]:
    os.kill(os.getpid(), signal.SIGKILL)
    return []


@pytest.mark.parametrize("join", [unsendable, dies])
def test_a_process_that_cannot_send_or_has_died_is_noticed_within_seconds(join: loading.Join) -> None:
    started = time.monotonic()
    with pytest.raises(RuntimeError, match="DataLoader worker"):
        list(ordered_batches(Numbers(), PLACES, join, list, 2))
    assert time.monotonic() - started < 20
