"""One training on several devices: a process each, and torch's DistributedDataParallel between them."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from itertools import chain, islice, repeat
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from bench.screen.events import Event, Report
from bench.screen.faults import explained_exit
from bench.screen.stopping import Stopped, ask_to_stop, stop_asked
from bench.settings.schema import RuntimeConfig
from bench.train.computing import compute_as
from bench.train.forkserver import start, warm_up
from bench.train.heap import keep_freed_memory
from strategies.networks.batchnorm import PooledBatchNorm, by_running_statistics
from strategies.networks.network import SegmentationNetwork

BACKENDS = {"cpu": "gloo", "cuda": "nccl"}
TIMEOUT = timedelta(minutes=30)
"""The ranks wait so long for one of them that lives but does not go on, such as one that downloads weights."""
POLL_SECONDS = 0.5
"""Between two looks at whether a stop was asked for."""
GRACE_SECONDS = 10.0
"""A process that is let go has so long to end."""


@dataclass(frozen=True)
class Rank:
    """One of `size` processes that train together, and its device; of size 1 it trains alone."""

    device: torch.device
    number: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this is the rank that tells how it goes and writes checkpoints."""
        return self.number == 0

    def synchronise(self, network: SegmentationNetwork) -> None:
        """Let the network's BatchNorm, on GPUs, normalise by the whole batch; it keeps its parameters and keys.

        On the CPU, for which torch has no such layer, each rank goes on normalising by its own share.
        """
        if self.size > 1 and self.device.type == "cuda":
            pooled = [name for name, layer in network.named_modules() if isinstance(layer, PooledBatchNorm)]
            _synchronise_batchnorm(network)
            for name in pooled:
                network.get_submodule(name).__class__ = _PooledSyncBatchNorm

    def parallel(self, network: SegmentationNetwork) -> nn.Module:
        """Return what computes the network's logits and averages its gradients over the ranks.

        All ranks start from the first one's parameters and take over its running statistics at every pass.
        """
        if self.size == 1:
            return network
        return DistributedDataParallel(network, [self.device] if self.device.type == "cuda" else None)

    def filled_up(self, batches: Iterable[list[Tensor]], count: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images and labels of the batches, and empty ones until there were `count`: the last may be too small.

        Empty images are float32 (0, 3, 64, 64), their labels int64 (0, 64, 64).
        """
        empty = [torch.zeros(0, 3, 64, 64), torch.zeros(0, 64, 64, dtype=torch.int64)]
        for images, labels, *_ in islice(chain(batches, repeat(empty)), count):
            yield images, labels

    def of_whole_batch(self, loss: Tensor, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss to differentiate on this rank, and the loss over the whole batch.

        `loss` is the mean over so many `pixels` of this rank's share of the batch. It is weighed by its share of them,
        so that the ranks' gradients average to that of the mean over all these pixels of the whole batch.
        """
        if self.size == 1:
            return loss, loss
        pixels = pixels.double()
        sums = torch.stack([loss.detach() * pixels, pixels])
        dist.all_reduce(sums)
        total, counted = sums[0], sums[1].clamp(min=1)
        return loss * (self.size * pixels / counted).to(loss.dtype), total / counted

    def agreed(self, wish: bool) -> bool:
        """Return whether any rank has the wish; all ask at the same place."""
        if self.size == 1:
            return wish
        wishes = torch.tensor(int(wish), device=self.device)
        dist.all_reduce(wishes, dist.ReduceOp.MAX)
        return bool(wishes)


def _synchronise_batchnorm(network: nn.Module) -> None:
    """Turn BatchNorm into SyncBatchNorm; timm's own holds an activation too, which only timm's function keeps."""
    if "timm" in sys.modules:
        from timm.layers import convert_sync_batchnorm

        convert_sync_batchnorm(network)
    else:
        nn.SyncBatchNorm.convert_sync_batchnorm(network)


class _PooledSyncBatchNorm(nn.SyncBatchNorm):
    """SyncBatchNorm with the fallback of `PooledBatchNorm`, for a whole batch with one value per channel."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            values = torch.tensor(x.numel() // x.shape[1], device=x.device)
            dist.all_reduce(values)
            if values == 1:
                return by_running_statistics(self, x)
        normalised: Tensor = super().forward(x)
        return normalised


Work = Callable[[Rank, Report], object]
"""What every rank does; it can be pickled."""


@dataclass(frozen=True)
class _Ending:
    """How a rank's work ended: well, unless there is an error."""

    error: Exception | None = None
    text: str = ""
    """The traceback."""


@dataclass(frozen=True)
class _Process:
    """A rank's process and our end of the pipe to it."""

    rank: Rank
    process: Any
    pipe: Connection

    @property
    def name(self) -> str:
        return f"rank {self.rank.number} of {self.rank.size}"


def run_ranks(work: Work, size: int, kind: str, runtime: RuntimeConfig, report: Report) -> None:
    """Do `work` in `size` processes that form a process group and compute as `runtime` says.

    The first one's events are passed on.
    `kind` is `cpu`, or `cuda`, where rank r has the r-th visible GPU. Where one fails the others are ended; raises
    the rank's error, its traceback as the cause, and RuntimeError for a process that ended. A stop that is asked for
    here is asked for in the ranks; raises `Stopped` when all have stopped.
    """
    warm_up()
    started: list[_Process] = []
    with tempfile.TemporaryDirectory(prefix="bench-ranks-") as folder:
        try:
            for number in range(size):
                rank = Rank(torch.device(f"cuda:{number}" if kind == "cuda" else kind), number, size)
                started.append(_start(work, rank, runtime, Path(folder) / "rendezvous"))
            last, ending = _followed(started, report)
        finally:
            died = _let_go(started)
    if ending.error is None:
        return
    if died:
        raise RuntimeError(f"{died.name}: {explained_exit(died.process.exitcode)}")
    raise ending.error from RuntimeError(f"{last.name}: {ending.text}")


def _start(work: Work, rank: Rank, runtime: RuntimeConfig, rendezvous: Path) -> _Process:
    context = multiprocessing.get_context("forkserver")
    ours, theirs = context.Pipe()
    process = context.Process(target=_child, args=(work, rank, runtime, rendezvous, theirs, dict(os.environ)))
    start(process)
    theirs.close()
    return _Process(rank, process, ours)


def _followed(started: list[_Process], report: Report) -> tuple[_Process, _Ending]:
    """Pass events on until a rank has failed or all have ended; return how the last of those that ended did."""
    going, told = list(started), False
    while True:
        if stop_asked() and not told:
            told = True
            with suppress(OSError):
                started[0].pipe.send("stop")
        ready = wait([one.pipe for one in going], POLL_SECONDS)
        for one in [one for one in going if one.pipe in ready]:
            message = _message(one)
            if isinstance(message, Event):
                report(message)
                continue
            going.remove(one)
            if not going or not isinstance(message.error, Stopped | None):
                return one, message


def _message(one: _Process) -> Event | _Ending:
    try:
        message: Event | _Ending = one.pipe.recv()
    except (EOFError, OSError):
        return _Ending(RuntimeError("its process ended"))
    return message


def _let_go(started: list[_Process]) -> _Process | None:
    """End the ranks' processes; return one that had ended by itself, the cause of what others say."""
    for one in started:
        one.pipe.close()
    for one in started:
        one.process.join(GRACE_SECONDS)
    died = next((one for one in started if one.process.exitcode), None)
    for one in started:
        one.process.kill()
        one.process.join()
    return died


def _child(
    work: Work, rank: Rank, runtime: RuntimeConfig, rendezvous: Path, pipe: Connection, environment: Mapping[str, str]
) -> None:
    """Do a rank's work and say how it ended; stay until the launcher lets go, as a rank that left would fail others."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # Slurm sends it to all; the launcher says what it means
    os.environ.clear()
    os.environ.update(environment)
    os.register_at_fork(after_in_child=pipe.close)  # a process that reads images may outlive this one
    threading.Thread(target=_heed_launcher, args=(pipe,), daemon=True).start()
    report = pipe.send if rank.leads else lambda event: None
    ending = _Ending()
    try:
        keep_freed_memory()
        compute_as(runtime)
        _join_group(rank, rendezvous)
        work(rank, report)
    except Exception as error:
        ending = _Ending(_sendable(error), traceback.format_exc())
    with suppress(OSError):
        pipe.send(ending)
    threading.Event().wait()


def _heed_launcher(pipe: Connection) -> None:
    """Ask for a stop where the launcher does; end the process when it lets go or is no more."""
    with suppress(EOFError, OSError):
        while True:
            pipe.recv()
            ask_to_stop()
    os._exit(0)


def _sendable(error: Exception) -> Exception:
    try:
        copy: Exception = pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return copy


def _join_group(rank: Rank, rendezvous: Path) -> None:
    if rank.device.type == "cuda":
        torch.cuda.set_device(rank.device)
    dist.init_process_group(
        BACKENDS[rank.device.type], f"file://{rendezvous}", TIMEOUT, world_size=rank.size, rank=rank.number
    )
