"""What the index of which classes stand in which image costs for many images: seconds, bytes, RAM; from no file."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bench.imports import environment_of_python

COUNTS = (10**5, 10**6, 10**7)
CLASSES, SHOWN = 150, 10
"""As in ADE20K; so many classes stand in an image on average."""
CHUNK = 10**5
BATCH = 4


def index(data_root: Path | None) -> None:
    """Print what each stage costs for ever more images, each number of these in a process of its own."""
    print(f"index: {CLASSES} classes, {SHOWN} in an image on average; a processor's seconds; RAM of the process")
    for count in COUNTS:
        command = [sys.executable, "-m", "bench.speed.index", str(count)]
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run(command, cwd=folder, env={**environment_of_python(), "BENCH_CACHE": folder}, check=True)


def measure(count: int) -> None:
    """Print what an index of so many synthetic images costs, from its file to the first batch of a step."""
    from benchmarks.annotated import AnnotatedImages
    from benchmarks.division import dense_disjoint, disjoint, overlapped, tested_images
    from benchmarks.packing import Decoded, Reader
    from benchmarks.presence import kept_presence
    from strategies.learning.arrivals import Holdings

    class Unread(Reader):
        kept = True

        def read(self, index: int) -> Decoded:
            raise AssertionError("the index needs no pixels")

    groups = [range(1, 101), *(range(c, c + 10) for c in range(101, CLASSES + 1, 10))]
    print(f"  {count:,} images, 100-10", flush=True)
    imageset = _told("made", lambda: synthetic(count))
    held = _told("written", lambda: kept_presence("synthetic", lambda: imageset.made))
    file = next(Path(os.environ["BENCH_CACHE"]).rglob("*.npz"))
    print(f"    its file: {file.stat().st_size / 1e6:,.1f} MB, {file.stat().st_size / count:.1f} bytes an image")
    del held
    imageset.made = None
    imageset.made = _told("read and checked", lambda: kept_presence("synthetic", lambda: imageset.made))
    presence = _told("matrix of classes", lambda: imageset.class_presence("train"))
    steps = _told("overlapped", lambda: overlapped(presence, groups))
    _told("disjoint, rule voc", lambda: disjoint(presence, groups))
    _told("test images", lambda: tested_images(presence, groups))
    _told("disjoint, rule ade", lambda: dense_disjoint(presence, groups))
    ids = _told("ids", lambda: imageset.ids("train"))
    labels = {c: c for c in groups[0]}
    images = _told("a step's images", lambda: AnnotatedImages(Unread(), steps[0], ids, presence, 0, labels))
    order = _told("their order", lambda: np.random.default_rng(0).permutation(len(images)))
    batches = _told("their batches", lambda: images.batches(BATCH, order, workers=0).batch_sampler)
    holdings = Holdings(100)

    def arrive() -> None:
        for batch in batches:
            holdings.arrive(0, [place.image for place in batch])
            holdings.end_batch(100)

    _told(f"{len(images):,} images come by", arrive)


def synthetic(count: int) -> Any:
    """Return an image set whose index alone is there: class c stands in an image by chance, with a long tail."""
    from benchmarks.imageset import Presence
    from benchmarks.sets.scenes import Scenes

    class Synthetic(Scenes):
        made: Presence | None

        def ids(self, split: Any) -> tuple[str, ...]:
            return tuple(f"{i:09d}" for i in range(count))

        def presence(self, split: Any) -> Presence:
            assert self.made is not None
            return self.made

    chance = 1 / (np.arange(CLASSES) + 5.0)
    chance = np.minimum(1, chance * SHOWN / chance.sum()).astype(np.float32)
    rng, labels = np.random.default_rng(0), np.zeros((count, 256), dtype=bool)
    for start in range(0, count, CHUNK):
        part = labels[start : start + CHUNK, 1 : CLASSES + 1]
        part[:] = rng.random(part.shape, dtype=np.float32) < chance
    imageset = Synthetic()
    imageset.made = Presence(labels, digest="synthetic")
    return imageset


def _told(stage: str, work: Callable[[], Any]) -> Any:
    started = time.process_time()
    made = work()
    seconds = time.process_time() - started
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    now, most = (int(status.split(f"{name}:")[1].split()[0]) / 2**20 for name in ("VmRSS", "VmHWM"))
    print(f"    {stage:<26} {seconds:8.2f} s   {now:6.2f} GiB held then, {most:6.2f} at most by then", flush=True)
    return made


if __name__ == "__main__":
    measure(int(sys.argv[1]))
