"""What runs of ResNet-101 would cost on one to 64 GPUs: arithmetic and a simulation of the loop, no measurement.

docs/scale.md says where each number comes from, and has what this prints.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from pathlib import Path

import numpy as np

FORWARD = 0.1357
"""TFLOP of an image of 512 x 512 pixels; a training pass takes three times as many."""
GRADIENT_BYTES = 58.7e6 * 4
TFLOPS = {"fp32": 20.1, "tf32": 84.6, "bf16": 102.8}
"""What a bare loop over batches of 8 crops of 512 pixels reached on an H200 (docs/speed.md)."""
LINK = {8: 300e9, 64: 40e9}
"""Bytes a second that a ring of at most so many GPUs is assumed to pass on."""
LAUNCH = 0.025
"""Seconds that the host is assumed to spend on starting an update's kernels."""
JPEG, LABELS, AUGMENT = 0.0030, 0.0013, 0.0057
"""Seconds of a core for a photograph of VOC's size: its decoding, its label map's, scale, crop and flip."""
WORKERS = 4
AHEAD = 2
"""Batches that a worker reads before they are asked for."""
SPREAD = 0.5
"""Deviation of the logarithm of a reading time."""
UPDATES = 1000


@dataclass(frozen=True)
class Loop:
    """A training loop: a batch of `incoming` images from workers and as many from `memory`, read by the host."""

    incoming: int
    memory: bool
    shared_reading: bool
    """Whether a process reads its share of a batch alone."""


BASE = Loop(24, memory=False, shared_reading=True)
ONLINE = Loop(4, memory=True, shared_reading=False)


def update_seconds(loop: Loop, gpus: int, precision: str) -> float:
    """Return the mean seconds of an update: simulated, workers, host and GPU each at their own pace."""
    rng = np.random.default_rng(0)
    read = loop.incoming if not loop.shared_reading else math.ceil(loop.incoming / gpus)
    passed = math.ceil(loop.incoming * (2 if loop.memory else 1) / gpus)
    device = passed * 3 * FORWARD / TFLOPS[precision] + reduce_seconds(gpus)
    workers = [0.0] * WORKERS
    host = gpu = 0.0
    taken = deque([0.0] * (AHEAD * WORKERS), AHEAD * WORKERS)
    for update in range(UPDATES):
        worker = update % WORKERS
        begun = max(workers[worker], taken[0])
        workers[worker] = begun + (JPEG + LABELS + AUGMENT) * read * rng.lognormal(-(SPREAD**2) / 2, SPREAD)
        host = max(host, workers[worker])
        taken.append(host)
        host += LAUNCH + (AUGMENT * read if loop.memory else 0)  # the memory's images stay decoded
        before, gpu = gpu, max(gpu, host) + device
        host = max(host, before)  # the loss of the update before is looked at
    return gpu / UPDATES


def reduce_seconds(gpus: int) -> float:
    """Return the seconds in which a ring adds up the gradients."""
    if gpus == 1:
        return 0.0
    return 2 * (gpus - 1) / gpus * GRADIENT_BYTES / LINK[8 if gpus <= 8 else 64]


@dataclass(frozen=True)
class Data:
    """The images of a scenario's base step, of its increments, and of all its evaluations."""

    name: str
    base: int
    increments: int
    tested: int
    pixels: float
    """Of a test image, in those of 512 x 512."""

    def hours(self, gpus: int, precision: str) -> tuple[float, float, float]:
        """Return the hours of a base training of 60 epochs, of the increments, and of the evaluations on one GPU."""
        base = 60 * math.ceil(self.base / BASE.incoming) * update_seconds(BASE, gpus, precision)
        online = math.ceil(self.increments / ONLINE.incoming) * update_seconds(ONLINE, min(gpus, 8), precision)
        image = max(LAUNCH / 3, FORWARD * self.pixels / TFLOPS[precision], (JPEG + LABELS) / WORKERS)
        return base / 3600, online / 3600, self.tested * image / 3600


RUNS = (
    Data("VOC 15-1", 8_437, 2_145, 8_069, 0.72),
    Data("ADE 100-10", 13_452, 6_744, 12_000, 1.33),
    Data("COCO-Stuff", 78_858, 39_429, 30_000, 1.17),
    Data("10^9 images", 0, 10**9, 30_000, 1.17),
)


def scale(data_root: Path | None) -> None:
    """Print the tables of docs/scale.md."""
    for line in (*updates_table(), "", *hours_table(), "", *stream_table()):
        print(line)


def updates_table() -> list[str]:
    """Return how long updates take, and how many images go by."""
    lines = ["| update | GPUs | fp32, ms | images/s | tf32, ms | images/s | bf16, ms | images/s |", "|---" * 8 + "|"]
    for name, loop, counts in (("base, 24", BASE, (1, 8, 64)), ("online, 4 + 4", ONLINE, (1, 2, 4, 8))):
        for gpus in counts:
            seconds = [update_seconds(loop, gpus, precision) for precision in TFLOPS]
            passed = loop.incoming * (2 if loop.memory else 1)
            cells = [f"{1000 * each:.0f} | {passed / each:.0f}" for each in seconds]
            lines.append(f"| {name} | {gpus} | {' | '.join(cells)} |")
    return lines


def hours_table() -> list[str]:
    """Return what runs take."""
    lines = ["| run | GPUs | fp32: base, h | increments, h | evaluations, h | bf16: base, h | increments, h |"]
    lines.append("|---" * 7 + "|")
    for data in RUNS:
        for gpus in (1, 8, 64):
            exact, half = (data.hours(gpus, precision) for precision in ("fp32", "bf16"))
            cells = [f"{hours:,.2f}" if hours < 100 else f"{hours:,.0f}" for hours in (*exact, *half[:2])]
            lines.append(f"| {data.name} | {gpus} | {' | '.join(cells)} |")
    return lines


def stream_table() -> list[str]:
    """Return what 10^9 images take in larger batches, which make another training, by who reads what."""
    lines = ["| 10^9 images, a batch | GPUs | every process reads all, days | each its share, days |", "|---" * 4 + "|"]
    for incoming, gpus in ((4, 1), (32, 8), (256, 64)):
        days = [
            10**9 / incoming * update_seconds(Loop(incoming, True, shared), gpus, "bf16") / 86400
            for shared in (False, True)
        ]
        lines.append(f"| {incoming} + {incoming} | {gpus} | {days[0]:,.0f} | {days[1]:,.0f} |")
    return lines
