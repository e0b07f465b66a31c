"""torch's DataLoader where /dev/shm is small or absent, as it is in containers.

Tensors of a worker would pass through /dev/shm, and the DataLoader waits for ever where a thread of it fails at that.
Batches go through its pipe as arrays instead, before they are made larger for training; where the system has no room
for the workers' locks, there are no workers. For a GPU they are copied to it from pinned memory, and finished there.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice, tee
from multiprocessing.queues import Queue
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

T = TypeVar("T")
Join = Callable[[Sequence[Any]], list[Tensor]]
"""Makes a batch of samples."""
Finish = Callable[[Sequence[Tensor]], list[Tensor]]
"""Makes of it what is trained on."""

_START_METHOD = "fork" if sys.platform == "linux" else None


def ordered_batches(
    samples: Dataset[Any], places: Iterable[list[Any]], join: Join, finish: Finish, workers: int, pinned: bool = False
) -> DataLoader[Any]:
    """Return a loader of one batch for each list of places among the samples: they are read and joined by a worker,
    and finished in this process, `pinned` in memory from which a GPU copies while this process goes on.

    Places that are not kept, but come as they are asked for, are passed over once.
    """
    workers = min(workers, os.cpu_count() or 1)
    loader = _Loader(
        samples,
        batch_sampler=cast(Any, places),
        num_workers=workers,
        multiprocessing_context=_START_METHOD if workers else None,
        worker_init_fn=_die_of_what_cannot_be_sent,
        collate_fn=_Collate(join),
        generator=torch.Generator(),
        pin_memory=pinned,
    )
    loader.finish = finish
    return loader


class Pass:
    """The batches of one of several passes that go by one after another; they go by once."""

    def __init__(self, batches: Iterator[list[Tensor]], count: int) -> None:
        self._batches, self._count = batches, count
        self._gone = False

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[list[Tensor]]:
        if self._gone:
            raise RuntimeError("the batches of a pass go by once")
        self._gone = True
        return islice(self._batches, self._count)


def passes(load: Callable[[Iterable[T]], Iterable[list[Tensor]]], places: Iterable[Sequence[T]]) -> Iterator[Pass]:
    """Yield a pass over each of several sequences of places, all loaded as one: workers go on from one to the next.

    A pass must have gone by before the next is asked for.
    """
    ours, ahead = tee(places)
    batches = iter(load(chain.from_iterable(ahead)))
    for each in ours:
        yield Pass(batches, len(each))


class _Loader(DataLoader[Any]):
    """A DataLoader that finishes batches, and goes on without workers where there is no room for their locks."""

    finish: Finish

    def __iter__(self) -> Any:
        return map(self.finish, self._joined())

    def _joined(self) -> Any:
        if self.num_workers and not _room_for_locks(self.num_workers):
            self._without_workers()
        try:
            return super().__iter__()
        except OSError:  # another process has taken the room since
            if not self.num_workers:
                raise
            self._without_workers()
            return super().__iter__()

    def _without_workers(self) -> None:
        self.multiprocessing_context = None
        self.num_workers = 0


def _room_for_locks(workers: int) -> bool:
    """Return whether the system gives as many semaphores as the DataLoader takes: each is a page of /dev/shm."""
    context = multiprocessing.get_context(_START_METHOD)
    try:
        return bool([context.Event(), *(context.Queue() for _ in range(1 + workers))])
    except (ImportError, OSError):
        return False


@dataclass(frozen=True)
class _Collate:
    join: Join

    def __call__(self, samples: Sequence[Any]) -> list[Tensor]:
        batch = self.join(samples)
        return _Piped(batch) if get_worker_info() else batch


class _Piped(list[Tensor]):
    """A batch that is pickled as arrays."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _arrived, ([part.numpy() for part in self],)


def _arrived(arrays: Sequence[np.ndarray]) -> list[Tensor]:
    return [torch.from_numpy(array) for array in arrays]


def _die_of_what_cannot_be_sent(worker: int) -> None:
    """Let a worker end where its thread cannot send a batch: the DataLoader notices that, and nothing else."""

    def end(error: Exception, batch: Any) -> None:
        sys.stderr.flush()
        os._exit(1)

    queue: Any = Queue
    queue._on_queue_feeder_error = staticmethod(end)
