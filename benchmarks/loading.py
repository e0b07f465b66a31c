"""Batches in order, made ahead by other processes, that need no /dev/shm and no socket with a path.

torch's DataLoader passes tensors through /dev/shm, which containers keep small or leave out, and waits for ever where
a thread of a worker fails at it. Here a batch lies in memory that has no name, and only its descriptor is passed on.
"""

from __future__ import annotations

import mmap
import multiprocessing
import os
import pickle
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle, send_handle
from multiprocessing.util import Finalize
from typing import Any

import torch
from torch import Tensor

from benchmarks.errors import ReaderDiedError

AHEAD = 2
"""Batches that each process makes before the first of them is taken."""
POLL_SECONDS = 2.0
"""Between two looks of such a process at whether it is still waited for."""

Batch = list[Tensor]
Make = Callable[[Sequence[int]], Batch]
"""Makes a batch of the samples at some places; it can be pickled."""


@dataclass(frozen=True)
class Batches:
    """One batch for each list of places, made in this process or by `workers` others; page-locked where CUDA is."""

    make: Make
    places: Sequence[Sequence[int]]
    workers: int

    def __len__(self) -> int:
        return len(self.places)

    def __iter__(self) -> Iterator[Batch]:
        cuda = torch.cuda.is_available()
        if self.workers:
            made = _made_ahead(self.make, self.places, self.workers)
            yield from _copied_ahead(made, _page_locked, torch.cuda.current_device()) if cuda else made
        else:
            made = (self.make(places) for places in self.places)
            yield from map(_page_locked, made) if cuda else made


def _page_locked(batch: Batch) -> Batch:
    return [part.pin_memory() for part in batch]


def _copied_ahead(
    batches: Generator[Batch, None, None], copy: Callable[[Batch], Batch], device: int | None
) -> Iterator[Batch]:
    """Yield copies of batches; a thread for which a CUDA device is current makes the next one meanwhile."""

    def next_copy() -> Batch | None:
        if device is not None:
            torch.cuda.set_device(device)
        batch = next(batches, None)
        return None if batch is None else copy(batch)

    with closing(batches), ThreadPoolExecutor(1) as thread:
        following = thread.submit(next_copy)
        while (batch := following.result()) is not None:
            following = thread.submit(next_copy)
            yield batch


def _made_ahead(make: Make, places: Sequence[Sequence[int]], workers: int) -> Generator[Batch, None, None]:
    """Yield the batches; process w of n makes those at w, w + n, ..."""
    workers = min(workers, len(places))
    readers: list[_Reader] = []
    try:
        for first in range(workers):
            readers.append(_Reader(make, places[first::workers], [reader.pipe for reader in readers]))
        for number in range(len(places)):
            yield readers[number % workers].next()
    finally:
        for reader in readers:
            reader.end()


class _Reader:
    """A process that makes some of the batches, and our end of the pipe to it."""

    def __init__(self, make: Make, places: Sequence[Sequence[int]], others: Sequence[Connection]) -> None:
        context = multiprocessing.get_context("fork" if sys.platform == "linux" else None)
        self.pipe, theirs = context.Pipe()
        arguments = (make, places, theirs, [*others, self.pipe])
        with theirs:
            self._process: Any = context.Process(target=_make_all, args=arguments, daemon=True)
            self._process.start()
        self.end = Finalize(None, self._end, exitpriority=0)  # at the exit of this process, if not before

    def next(self) -> Batch:
        """Return the next of its batches, and let it make one more."""
        try:
            message = self.pipe.recv()
            batch = _received(message, recv_handle(self.pipe)) if isinstance(message, _Layout) else None
        except (EOFError, ConnectionError):
            self._process.join(POLL_SECONDS)
            raise ReaderDiedError(self._process.exitcode) from None
        if batch is None:
            error, text = message
            raise error from RuntimeError(f"in a process that reads images:\n{text}")
        with suppress(ConnectionError):  # its last one, and it has ended
            self.pipe.send(None)
        return batch

    def _end(self) -> None:
        self.pipe.close()
        self._process.kill()
        self._process.join()


def _make_all(make: Make, places: Sequence[Sequence[int]], pipe: Connection, others: Sequence[Connection]) -> None:
    """Make batches and send them, at most `AHEAD` before the first one is taken; end with who takes them."""
    for other in others:
        other.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; who takes the batches says what it means
    torch.set_num_threads(1)
    parent = os.getppid()
    with suppress(EOFError, ConnectionError):
        for number, some in enumerate(places):
            while number >= AHEAD and not pipe.poll(POLL_SECONDS):
                if os.getppid() != parent:
                    return
            if number >= AHEAD:
                pipe.recv()
            try:
                file, layout = _stored(make(some))
            except Exception as error:
                pipe.send((sendable(error), traceback.format_exc()))
                return
            try:
                pipe.send(layout)
                send_handle(pipe, file, parent)
            finally:
                os.close(file)


def sendable(error: Exception) -> Exception:
    """Return an error as another process can be sent it: itself, or its text."""
    try:
        copy: Exception = pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return copy


@dataclass(frozen=True)
class _Layout:
    """Where the tensors of a batch lie in a file: of each its type, shape and first byte; and the file's length."""

    parts: tuple[tuple[torch.dtype, tuple[int, ...], int], ...]
    length: int


_ALIGNED = 64
"""Bytes."""


def _stored(batch: Batch) -> tuple[int, _Layout]:
    """Return the descriptor of a file without a name that holds a batch, and where in it."""
    parts, length = [], 0
    for part in batch:
        parts.append((part.dtype, tuple(part.shape), length))
        length += -(-part.nbytes // _ALIGNED) * _ALIGNED
    file = _unnamed_file()
    try:
        os.ftruncate(file, length)
        with open(file, "wb", closefd=False) as stream:
            for part, (_, _, first) in zip(batch, parts, strict=True):
                stream.seek(first)
                stream.write(part.contiguous().numpy().data)
    except BaseException:
        os.close(file)
        raise
    return file, _Layout(tuple(parts), length)


def _unnamed_file() -> int:
    """Return the descriptor of a new file in memory, on disk where the system has no such files."""
    with suppress(AttributeError, OSError):
        return os.memfd_create("batch")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _received(layout: _Layout, file: int) -> Batch:
    """Return the batch in a file, whose descriptor is closed; its memory is free when the tensors are."""
    try:
        memory = mmap.mmap(file, layout.length)
    finally:
        os.close(file)
    return [
        torch.frombuffer(memory, dtype=dtype, count=torch.Size(shape).numel(), offset=first).reshape(shape)
        for dtype, shape, first in layout.parts
    ]
