"""What reading data costs, as ratios measured in one run: the scan, the remap, the loader, the memory it takes."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from bench.imports import output_of_bench

if TYPE_CHECKING:
    from torch import Tensor

    from benchmarks.annotated import AnnotatedImages

CLASSES = 6
BATCH, EPOCHS, WORKERS = 8, 4, 2
"""Of what workers feed a training with."""


def scan(data_root: Path | None) -> None:
    """Print the time of `bench scenario` from nothing and with the cache, against one `numpy.unique` pass."""
    from benchmarks.files import read_mask
    from benchmarks.scenarios import load_scenario
    from benchmarks.sets.registry import open_image_set
    from benchmarks.sets.voc import Voc

    imageset = open_image_set("voc", data_root)
    assert isinstance(imageset, Voc)
    paths = imageset.mask_paths("train")
    for path in paths:
        path.read_bytes()  # every measurement finds the files in the system's cache
    with tempfile.TemporaryDirectory() as folder, environment("BENCH_CACHE", folder):
        unique = _seconds(lambda: [np.unique(read_mask(path)) for path in paths])
        cold = _seconds(lambda: load_scenario("voc-15-1-disjoint", data_root))
        arguments = ["scenario", "voc-15-1-disjoint", "--data-root", str(imageset.root.resolve())]
        warm = _seconds(lambda: output_of_bench(arguments, Path(folder)))
    print(f"scan: {len(paths)} training label maps (the scenario reads the test split's too)")
    print(f"  numpy.unique pass, one core  {unique:6.2f} s")
    print(f"  scenario from nothing        {cold:6.2f} s   {cold / unique:.2f} x numpy.unique")
    print(f"  whole command, with the cache {warm:5.2f} s   {warm / unique:.3f} x numpy.unique")


def remap(data_root: Path | None) -> None:
    """Print the time of one label map's remapping by table, against a lambda called for every pixel."""
    import torch

    from benchmarks.labels import label_table

    rng = np.random.default_rng(0)
    label_map = np.repeat(np.repeat(rng.integers(0, 21, (30, 40)), 12, 0), 12, 1).astype(np.uint8)
    positions = {c: c for c in range(1, 16)}
    table = label_table(positions)
    known = {**positions, 255: 255}
    pixels = torch.from_numpy(label_map)
    by_table = _best(lambda: torch.from_numpy(table[label_map]), 50)
    by_lambda = _best(lambda: pixels.clone().apply_(lambda c: known.get(c, 0)), 3)
    print(f"remap: one label map of {label_map.shape[1]} x {label_map.shape[0]} pixels")
    print(f"  a lambda for every pixel  {1000 * by_lambda:8.3f} ms")
    print(f"  one table look-up         {1000 * by_table:8.3f} ms   {by_lambda / by_table:.0f} x as fast")


def loader(data_root: Path | None) -> None:
    """Print how much of an update's time goes into waiting for its images, kept in memory and decoded by a worker."""
    from benchmarks.streams import load_benchmark

    print("loader: er's updates of the small network on one thread, 4 + 4 images of 500 x 375, scaled, cropped to 160")
    with tempfile.TemporaryDirectory() as folder, environment("BENCH_CACHE", f"{folder}/cache"):
        root = painted_folder(Path(folder) / "data", 240, (500, 375))
        for kind, budget in (("kept in memory", 1e12), ("decoded by one worker", 96 * 2**20)):
            benchmark = load_benchmark(f"folder-{CLASSES - 2}-2-overlapped", root, ram_budget=budget)
            base, step = (benchmark.train_stream[t].data for t in (0, 1))
            waiting, replaying, whole = _updates(base, step)
            shares = (
                f"{100 * waiting / whole:.1f} % of it waiting, {100 * replaying / whole:.1f} % reading the memory's"
            )
            print(f"  {kind:<22} {1000 * whole:6.1f} ms an update, {shares}")
        print(f"feed: {EPOCHS} epochs of {len(base)} images of 500 x 375, {BATCH} crops of 512, {WORKERS} workers")
        for kind, speed in _feed(base).items():
            print(f"  {kind:<36} {speed:6.1f} images/s")


def _feed(data: AnnotatedImages) -> dict[str, float]:
    """Return images a second that workers decode alone, and that they make batches of."""
    from benchmarks.augmentation import Augmentation
    from benchmarks.loading import ordered_batches

    augmentation, order = Augmentation((0.5, 2.0), 512, True), list(range(len(data)))
    decoding: Any = _Decoded(data)
    places = [order[i : i + BATCH] for i in range(0, len(order), BATCH)]

    def decoded() -> None:
        for _ in ordered_batches(decoding, EPOCHS * places, _nothing, list, WORKERS):
            pass

    def anew() -> None:
        for epoch in range(EPOCHS):
            for _ in data.batches(BATCH, order, augmentation, (epoch,), WORKERS):
                pass

    def going_on() -> None:
        for epoch in data.epochs(BATCH, [(order, (n,)) for n in range(EPOCHS)], augmentation, WORKERS):
            for _ in epoch:
                pass

    kinds = {
        "decoded alone": decoded,
        "batches, workers started each epoch": anew,
        "batches, workers that go on": going_on,
    }
    return {kind: EPOCHS * len(data) / _best(work, 2) for kind, work in kinds.items()}


class _Decoded:
    """Images that are decoded, of which nothing is given."""

    def __init__(self, data: AnnotatedImages) -> None:
        self.data = data

    def __getitem__(self, index: int) -> None:
        self.data.sample(index, None, None)


def _nothing(samples: Sequence[None]) -> list[Tensor]:
    return []


def _updates(base: AnnotatedImages, step: AnnotatedImages, updates: int = 40) -> tuple[float, float, float]:
    """Return the median seconds an update waits for incoming images, reads the memory's, and takes in all."""
    import torch
    from torch.nn.functional import cross_entropy

    from benchmarks.augmentation import Augmentation
    from strategies.networks.build import build_network

    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = build_network("small", CLASSES, "linear").to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(network.parameters(), 1e-3, 0.9)
    rng = np.random.default_rng(0)
    augmentation = Augmentation((0.5, 2.0), 160, True)
    memory = [base.exemplar(i) for i in range(100)]
    order = rng.integers(0, len(step), 4 * updates).tolist()
    batches = iter(step.batches(4, order, augmentation, workers=1))
    waits, replays, wholes = [], [], []
    for _ in range(updates):
        started = time.perf_counter()
        images, labels, _, _ = next(batches)
        came = time.perf_counter()
        kept = [memory[i].load(augmentation, rng) for i in rng.choice(100, 4, replace=False)]
        x = torch.cat([images, torch.stack([image for image, _ in kept])])
        y = torch.cat([labels, torch.stack([label for _, label in kept])])
        loaded = time.perf_counter()
        optimizer.zero_grad()
        torch.autograd.backward(cross_entropy(network(x), y, ignore_index=255))
        optimizer.step()
        waits.append(came - started)
        replays.append(loaded - came)
        wholes.append(time.perf_counter() - started)
    return float(np.median(waits)), float(np.median(replays)), float(np.median(wholes))


def memory(data_root: Path | None) -> None:
    """Print the peak RAM of a run on images that fit in the RAM budget, on ten times as many, and on these all kept."""
    budget, size = 24 * 2**20, (320, 240)
    decoded = size[0] * size[1] * 4
    fitting = budget // decoded
    print(f"memory: one run each on images of {size[0]} x {size[1]}")
    with tempfile.TemporaryDirectory() as folder, environment("BENCH_CACHE", f"{folder}/cache"):
        few, many = (painted_folder(Path(folder) / str(count), count, size) for count in (fitting, 10 * fitting))
        kinds = {(fitting, budget): few, (10 * fitting, budget): many, (10 * fitting, 20 * budget): many}
        peaks = {kind: _peak_ram(root, Path(folder) / f"runs-{kind}", kind[1]) for kind, root in kinds.items()}
    for (count, allowed), peak in peaks.items():
        held = f"{count:4} images, {count * decoded / 2**20:4.0f} MiB decoded, budget {allowed / 2**20:4.0f} MiB"
        print(f"  {held}: peak RAM {peak / 2**20:5.0f} MiB, {peak / peaks[fitting, budget]:.2f} x")


def _peak_ram(root: Path, out: Path, budget: int) -> float:
    from reports.records import find_runs

    settings = {
        "data.size": "null",
        "data.crop": 64,
        "data.ram_gb": budget / 2**30,
        "evaluation.batch_size": 1,
        "base.epochs": 1,
    }
    sets = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    scenario = ["--scenario", f"folder-{CLASSES - 2}-2-disjoint", "--data-root", str(root)]
    arguments = ["run", "--strategies", "er", *scenario, "--preset", "small", *sets, "--jobs", "1", "--out", str(out)]
    output_of_bench(arguments, root)
    [run] = find_runs(out)
    return max(row["peak_ram_bytes"] for row in run.costs)


def painted_folder(root: Path, count: int, size: tuple[int, int]) -> Path:
    """Write a `folder` data set of `count` JPEGs of `size` (width, height), each with one of six classes."""
    for part in ("images", "masks"):
        (root / part).mkdir(parents=True)
    (root / "classes.txt").write_text("".join(f"class {c}\n" for c in range(1, CLASSES + 1)), encoding="utf-8")
    width, height = size
    for i in range(count):
        rng = np.random.default_rng(i)
        coarse = rng.integers(40, 215, (height // 12 + 1, width // 12 + 1, 3)).astype(np.uint8)
        image = np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)).copy()
        label_map = np.zeros((height, width), dtype=np.uint8)
        c = 1 + i % CLASSES
        top, left = rng.integers(0, height // 2), rng.integers(0, width // 2)
        label_map[top : top + height // 2, left : left + width // 2] = c
        image[label_map == c] = image[label_map == c] // 2 + np.uint8(20 * c)
        Image.fromarray(image).save(root / "images" / f"{i:05d}.jpg", quality=90)
        Image.fromarray(label_map).save(root / "masks" / f"{i:05d}.png")
    return root


def _best(work: Callable[[], Any], times: int) -> float:
    return min(_seconds(work) for _ in range(times))


def _seconds(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


@contextmanager
def environment(name: str, value: str) -> Iterator[None]:
    """Set a variable of the environment for a block."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
