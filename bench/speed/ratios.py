"""`bench speed`: what this machine does, as ratios measured in one run.

`update`: one update of each method against one of er, and the template against a bare PyTorch loop.
`offline`: the same of the offline protocol, against finetune.
`offline-laptop`: the same for the preset `laptop` at 96 pixels; only when named.
`laptop`: the same of the preset `laptop` on photographs, its loader, evaluation against training, and its counting.
`losses`: methods' losses against er's on large logits, and the memory beside these; only when named.
`large`: updates of ResNet-101 on the CPU, online against er and offline against finetune; only when named.
`evaluation`: an evaluation of images as large as ADE20K's against one by scores of all pixels; only when named.
`scan`: the class-presence scan of a data root's label maps against one pass of `numpy.unique`.
`remap`: a label map's remapping by table against a lambda for every pixel.
`loader`: the share of an update's time that goes into waiting for its images.
`memory`: the peak RAM of a run on ten times the RAM budget against one on what fits.
`index`: what the index of 10^5, 10^6, 10^7 images takes: seconds, bytes, RAM; only when named.
`scale`: what runs would cost on one to 64 GPUs, by arithmetic and simulation (docs/scale.md); only when named.
`pool`: the wall time of 24 runs side by side against one after another; it takes minutes, so only when named.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.speed import data as speed_data
from bench.speed import evaluation as speed_evaluation
from bench.speed import index as speed_index
from bench.speed import laptop as speed_laptop
from bench.speed import large as speed_large
from bench.speed import losses as speed_losses
from bench.speed import pool as speed_pool
from bench.speed import scale as speed_scale
from bench.speed import updates as speed_updates


def measure(what: Sequence[str], data_root: Path | None) -> int:
    """Print the measurements asked for (by default all that the machine's data allow); return the exit status."""
    from bench.settings.errors import RequestError

    for name in what:
        if name not in MEASUREMENTS:
            raise RequestError(f"unknown measurement '{name}' (known: {', '.join(MEASUREMENTS)})")
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    for name, measurement in MEASUREMENTS.items():
        if name in what or (not what and name not in WHEN_NAMED and (name != "scan" or data_root is not None)):
            measurement(data_root)
    return 0


MEASUREMENTS: dict[str, Callable[[Path | None], None]] = {
    "update": speed_updates.update,
    "offline": speed_updates.offline,
    "offline-laptop": speed_updates.offline_laptop,
    "laptop": speed_laptop.laptop,
    "losses": speed_losses.losses,
    "large": speed_large.large,
    "evaluation": speed_evaluation.evaluation,
    "scan": speed_data.scan,
    "remap": speed_data.remap,
    "loader": speed_data.loader,
    "memory": speed_data.memory,
    "index": speed_index.index,
    "scale": speed_scale.scale,
    "pool": speed_pool.pool,
}
"""By name; each is given the data root."""
WHEN_NAMED = ("offline-laptop", "laptop", "losses", "large", "evaluation", "index", "scale", "pool")
"""They take minutes, or gigabytes, or measure nothing."""
