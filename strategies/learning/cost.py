"""What the training of a step costs."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass
class StepCost:
    """What the training of one step took; `images` counts an image once per forward pass."""

    incoming_batches: int = 0
    updates: int = 0
    seconds: float = 0.0
    forward_passes: int = 0
    backward_passes: int = 0
    images: int = 0
    memory_images: int = 0
    memory_bytes: int = 0
    peak_ram_bytes: int = 0
    """Of the process, since it started."""
    peak_gpu_bytes: int = 0
    """Allocated by torch during the step."""


@contextmanager
def peak_gpu_counted(cost: StepCost, device: torch.device) -> Iterator[None]:
    """Raise `peak_gpu_bytes` to what torch holds on a GPU during a block, which ends when the GPU is done."""
    if device.type != "cuda":
        yield
        return
    torch.cuda.reset_peak_memory_stats(device)
    yield
    torch.cuda.synchronize(device)
    cost.peak_gpu_bytes = max(cost.peak_gpu_bytes, torch.cuda.max_memory_allocated(device))


def peak_ram_bytes() -> int:
    """Return the most memory that the process has held since it started.

    Linux carries `ru_maxrss` over from the process that started this one; `VmHWM` is this one's own.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    except (OSError, IndexError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
