"""torch's DataLoader where /dev/shm is small or absent, as it is in containers.

Tensors of a worker would pass through /dev/shm, and the DataLoader waits for ever where a thread of it fails at that.
Batches go through its pipe as arrays instead, before they are made larger for training; where the system gives no
semaphores, there are no workers.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from multiprocessing.queues import Queue
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

Join = Callable[[Sequence[Any]], list[Tensor]]
"""Makes a batch of samples."""
Finish = Callable[[Sequence[Tensor]], list[Tensor]]
"""Makes of it what is trained on; it can be pickled."""

_START_METHOD = "fork" if sys.platform == "linux" else None


def ordered_batches(
    samples: Dataset[Any], places: Sequence[list[int]], join: Join, finish: Finish, workers: int
) -> DataLoader[Any]:
    """Return a loader of one batch for each list of places among the samples: they are read and joined by a worker,
    and finished in this process.
    """
    workers = min(workers, os.cpu_count() or 1) if semaphores() else 0
    return DataLoader(
        samples,
        batch_sampler=places,
        num_workers=workers,
        multiprocessing_context=_START_METHOD if workers else None,
        worker_init_fn=_die_of_what_cannot_be_sent,
        collate_fn=_Collate(join, finish, piped=workers > 0),
        generator=torch.Generator(),
        pin_memory=torch.cuda.is_available(),
    )


@cache
def semaphores() -> bool:
    """Return whether processes can have the locks without which the DataLoader has no workers."""
    try:
        multiprocessing.get_context(_START_METHOD).Lock()
    except (ImportError, OSError):
        return False
    return True


@dataclass(frozen=True)
class _Collate:
    join: Join
    finish: Finish
    piped: bool

    def __call__(self, samples: Sequence[Any]) -> list[Tensor]:
        batch = self.join(samples)
        return _Piped(batch, self.finish) if self.piped else self.finish(batch)


class _Piped(list[Tensor]):
    """A batch that is pickled as arrays and is finished where these arrive."""

    def __init__(self, batch: Sequence[Tensor], finish: Finish) -> None:
        super().__init__(batch)
        self.finish = finish

    def __reduce__(self) -> tuple[Any, ...]:
        return _arrived, ([part.numpy() for part in self], self.finish)


def _arrived(arrays: Sequence[np.ndarray], finish: Finish) -> list[Tensor]:
    return finish([torch.from_numpy(array) for array in arrays])


def _die_of_what_cannot_be_sent(worker: int) -> None:
    """Let a worker end where its thread cannot send a batch: the DataLoader notices that, and nothing else."""

    def end(error: Exception, batch: Any) -> None:
        sys.stderr.flush()
        os._exit(1)

    Queue._on_queue_feeder_error = staticmethod(end)  # type: ignore[attr-defined]
