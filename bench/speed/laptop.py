"""The preset `laptop` on JPEGs of a photograph's size: its updates, its loader, and evaluation against training."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from bench.speed.data import environment, painted_folder
from bench.speed.updates import ER, print_updates, update_seconds
from benchmarks.labels import VOID

if TYPE_CHECKING:
    from torch import Tensor

    from bench.settings.schema import Config
    from benchmarks.streams import SegmentationScenario
    from strategies.networks.network import SegmentationNetwork

SCENARIO = "folder-4-2-overlapped"
WARM_UP = 3
BATCHES = 20
"""That are timed, after those of the warm-up."""
UPDATES = 16
"""Of each method, in each round."""


def laptop(data_root: Path | None) -> None:
    """Print what updates take against a bare loop, what waiting for images takes of training, and an evaluation."""
    import torch

    from bench.settings.merging import resolve_config
    from bench.train.computing import computing
    from bench.train.networks import new_network, normalisation
    from benchmarks.streams import load_benchmark
    from strategies.learning.protocol import BaseRecipe

    config = resolve_config(SCENARIO, "laptop", assignments=["network.weights=none"])
    one_thread = dataclasses.replace(config, runtime=dataclasses.replace(config.runtime, threads=1))
    count = config.base.batch_size * (WARM_UP + BATCHES)
    with tempfile.TemporaryDirectory() as folder, environment("BENCH_CACHE", f"{folder}/cache"):
        root = painted_folder(Path(folder) / "data", 3 * count, (500, 375))
        few = painted_folder(Path(folder) / "few", 3 * UPDATES * config.incremental.batch_size, (500, 375))
        side = config.data.size
        read = partial(load_benchmark, SCENARIO, size=side, normalisation=normalisation(config))
        kept, decoded = read(root, ram_budget=1e12), read(root, ram_budget=0)
        print(f"laptop: {config.network.name} network, {side} x {side}, painted JPEGs of 500 x 375")
        print_updates(update_seconds(["er", "ours"], one_thread, SCENARIO, read(few), ER), ER)
        torch.manual_seed(0)
        network = new_network(config, BaseRecipe(), 4, pretrained=False)
        with computing(config.runtime):
            for kind, benchmark in (("kept in memory", kept), ("decoded by two workers", decoded)):
                waiting, training = _training(network, config, benchmark)
                print(f"  images {kind:<22} {1000 * training:6.1f} ms each in training, {100 * waiting:.1f} % waiting")
            evaluating, ratio = _evaluating(network, config, kept)
            quick = _gradients(network, config, kept)
            print(f"  forward and backward {quick:.2f} x those with torch's gradients where dilated")
            print(f"  evaluation {1000 * evaluating:6.1f} ms an image, {evaluating / training:.3f} x training's")
            print(f"  all classes' pixels counted, future ones' and void too: {ratio:.4f} x the known classes' alone")


def _training(network: SegmentationNetwork, config: Config, benchmark: SegmentationScenario) -> tuple[float, float]:
    """Return the share of base training's time that waits for images, and the seconds an image takes in all."""
    import torch
    from torch.nn.functional import cross_entropy

    from bench.train.networks import augmentation

    data, size = benchmark.train_stream[0].data, config.base.batch_size
    optimizer = torch.optim.AdamW(network.train().parameters(), config.base.lr)
    batches = iter(data.batches(size, range(size * (WARM_UP + BATCHES)), augmentation(config), workers=2))
    waits, wholes = [], []
    for _ in range(WARM_UP + BATCHES):
        started = time.perf_counter()
        images, labels, *_ = next(batches)
        waits.append(time.perf_counter() - started)
        optimizer.zero_grad()
        torch.autograd.backward(cross_entropy(network(images), labels, ignore_index=255))
        optimizer.step()
        wholes.append(time.perf_counter() - started)
    whole = sum(wholes[WARM_UP:])
    return sum(waits[WARM_UP:]) / whole, whole / (size * BATCHES)


def _gradients(network: SegmentationNetwork, config: Config, benchmark: SegmentationScenario) -> float:
    """Return what a batch takes forward and backward of what it takes with torch's own gradients of `DilatedDepthwise`.

    The two take turns; the least of each counts.
    """
    from torch import nn

    from strategies.networks.dilated import DilatedDepthwise

    images, *_ = next(iter(benchmark.train_stream[0].data.batches(config.base.batch_size)))
    dilated: list[nn.Conv2d] = [module for module in network.train().modules() if isinstance(module, DilatedDepthwise)]
    seconds: dict[type[nn.Conv2d], list[float]] = {nn.Conv2d: [], DilatedDepthwise: []}
    for _ in range(1 + WARM_UP):
        for kind, taken in seconds.items():
            for module in dilated:
                module.__class__ = kind
            network.zero_grad()
            started = time.perf_counter()
            network(images).mean().backward()
            taken.append(time.perf_counter() - started)
    return min(seconds[DilatedDepthwise]) / min(seconds[nn.Conv2d])


def _evaluating(network: SegmentationNetwork, config: Config, benchmark: SegmentationScenario) -> tuple[float, float]:
    """Return the seconds that an image's evaluation takes, its reading from memory included, and a ratio.

    That is of the evaluation to one that counts the pixels of known classes alone, of the same predictions; the two
    ways of counting take turns in being first.
    """
    import torch

    from strategies.learning.evaluation import best_classes

    network.eval()
    size, predicting = config.evaluation.batch_size, []
    counting: dict[_Counting, list[float]] = {_all_counts: [], _known_counts: []}
    with torch.no_grad():
        started = time.perf_counter()
        for images, labels, *_ in islice(benchmark.train_stream[0].data.batches(size), WARM_UP + BATCHES):
            prediction = best_classes(network(images))
            predicting.append(time.perf_counter() - started)
            for count in counting if len(predicting) % 2 else reversed(counting):
                started = time.perf_counter()
                count(prediction, labels, network.outputs)
                counting[count].append(time.perf_counter() - started)
            started = time.perf_counter()
    whole, known = (sum(predicting[WARM_UP:]) + sum(counting[count][WARM_UP:]) for count in counting)
    return whole / (size * BATCHES), whole / known


_Counting = Callable[["Tensor", "Tensor", int], "Tensor"]


def _all_counts(prediction: Tensor, labels: Tensor, outputs: int) -> Tensor:
    from strategies.learning.evaluation import pixel_counts

    return pixel_counts(prediction, labels, outputs, outputs)


def _known_counts(prediction: Tensor, labels: Tensor, outputs: int) -> Tensor:
    """The reference: the confusion matrix of the outputs, without void."""
    counted = labels != VOID
    pairs = labels[counted] * outputs + prediction[counted]
    return pairs.bincount(minlength=outputs**2).view(outputs, outputs)
