"""`bench speed`: what this machine does, as ratios measured in one run.

`update`: one update of each method against one of er, and the template against a bare PyTorch loop.
`scan`: the class-presence scan of a data root's label maps against one pass of `numpy.unique`.
`remap`: a label map's remapping by table against a lambda for every pixel.
`loader`: the share of an update's time that goes into waiting for its images.
`memory`: the peak RAM of a run on ten times the RAM budget against one on what fits.
`pool`: the wall time of 24 runs side by side against one after another; it takes minutes, so only when named.
"""

from __future__ import annotations

import copy
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.speed import data as speed_data
from bench.speed import pool as speed_pool

if TYPE_CHECKING:
    from bench.settings.schema import Config
    from benchmarks.streams import AnnotatedImages, Exemplar, SegmentationExperience, SegmentationScenario
    from strategies.networks.network import SegmentationNetwork

SCENARIO = "shapes-15-1-disjoint"
ROUNDS = 3
FILLED = 120
"""Base images offered to a memory before its updates are measured: enough to fill it."""


def measure(what: Sequence[str], data_root: Path | None) -> int:
    """Print the measurements asked for (by default all that the machine's data allow); return the exit status."""
    from bench.settings.errors import RequestError

    for name in what:
        if name not in MEASUREMENTS:
            raise RequestError(f"unknown measurement '{name}' (known: {', '.join(MEASUREMENTS)})")
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    for name, measurement in MEASUREMENTS.items():
        if name in what or (not what and name != "pool" and (name != "scan" or data_root is not None)):
            measurement(data_root)
    return 0


def update(data_root: Path | None) -> None:
    """Print milliseconds per update and ratios: methods against er, the template against a bare loop."""
    import torch

    from bench.settings.merging import resolve_config
    from bench.settings.strategies import method_parameters, parse_strategies
    from bench.train.computing import computing
    from bench.train.networks import new_network, normalisation
    from bench.train.template import make_template
    from benchmarks.streams import load_benchmark
    from strategies.learning.protocol import BaseRecipe
    from strategies.learning.registry import STRATEGIES, method_class
    from strategies.plugins.registry import OWN_PACKAGE

    config = resolve_config(SCENARIO)
    benchmark = load_benchmark(SCENARIO, size=config.data.size, normalisation=normalisation(config))
    networks = {
        recipe.head: new_network(config, recipe, 15, pretrained=False)
        for recipe in (BaseRecipe(), BaseRecipe(head="cosine"))
    }

    def method(name: str) -> Callable[[], float]:
        request = parse_strategies(f"{OWN_PACKAGE}:{name}")[0]
        parameters = method_parameters(request, config)
        kind = method_class(request.name)

        def one_step() -> float:
            network = copy.deepcopy(networks[kind.recipe(parameters).head])
            device = torch.device("cpu")
            template = make_template(network, kind, parameters, config, SCENARIO, 0, device)
            template.begin(_few_images(benchmark.train_stream[0]))
            template.train(benchmark.train_stream[1], eval_streams=[])
            return template.cost.seconds / template.cost.updates

        return one_step

    names = [
        name.rpartition(":")[2] for name in STRATEGIES.built_in_names() if "online" in method_class(name).protocols
    ]
    names += [f"mir(candidates={count})" for count in (10, 25, 100)]
    kinds = {name: method(name) for name in names}
    kinds["bare loop (er)"] = lambda: _bare_er(copy.deepcopy(networks["linear"]), config, benchmark)
    with computing(config.runtime):
        seconds = _interleaved(kinds)
    print(f"update: small network, 64 x 64, 4 + 4 images, {config.runtime.threads} thread, median of {ROUNDS}")
    for name in names:
        print(f"  {name:<20} {1000 * seconds[name]:7.1f} ms   {seconds[name] / seconds['er']:.2f} x er")
    bare = seconds["bare loop (er)"]
    print(f"  {'bare loop (er)':<20} {1000 * bare:7.1f} ms   template {100 * (seconds['er'] / bare - 1):+.1f} %")


@dataclass(frozen=True)
class _FewImages:
    data: AnnotatedImages

    def __len__(self) -> int:
        return FILLED

    def exemplar(self, index: int) -> Exemplar:
        return self.data.exemplar(index)


def _few_images(base: SegmentationExperience) -> Any:
    """Return what `OnlineTemplate.begin` reads of an experience, with `FILLED` images."""
    return SimpleNamespace(data=_FewImages(base.data), classes_in_this_experience=base.classes_in_this_experience)


def _bare_er(network: SegmentationNetwork, config: Config, benchmark: SegmentationScenario) -> float:
    """Make er's updates of step 1 in a plain loop over the same feed; return seconds per update."""
    import torch
    from torch.nn.functional import cross_entropy

    from bench.train.networks import augmentation
    from strategies.learning.losses import without_unlabelled
    from strategies.learning.memory import Reservoir

    base, step = (benchmark.train_stream[t].data for t in (0, 1))
    memory = Reservoir(config.memory.size, np.random.default_rng(0))
    for i in range(FILLED):
        memory.offer(base.exemplar(i), 15)
    network.grow(1)
    p = config.incremental
    optimizer = torch.optim.SGD(network.parameters(), p.lr, p.momentum, weight_decay=p.weight_decay)
    augment, rng = augmentation(config), np.random.default_rng(1)
    network.train()
    started = time.perf_counter()
    batches = step.batches(p.batch_size, range(len(step)), augment)
    for images, labels, steps, indices in batches:
        drawn = memory.draw(len(images))
        kept = [e.load(augment, rng) for e in drawn]
        x = torch.cat([images, torch.stack([image for image, _ in kept])])
        y = torch.cat([labels, torch.stack([label for _, label in kept])])
        targets = without_unlabelled(y, torch.cat([steps, torch.tensor([e.step for e in drawn])]))
        optimizer.zero_grad()
        torch.autograd.backward(cross_entropy(network(x), targets, ignore_index=255))
        optimizer.step()
        for i in indices.tolist():
            memory.offer(step.exemplar(i), 16)
    return (time.perf_counter() - started) / len(batches)


def _interleaved(kinds: dict[str, Callable[[], float]]) -> dict[str, float]:
    """Return the median over rounds of each measurement, one round of warm-up; all take turns in a round."""
    rounds = [{name: kind() for name, kind in kinds.items()} for _ in range(ROUNDS + 1)][1:]
    return {name: statistics.median(r[name] for r in rounds) for name in kinds}


MEASUREMENTS: dict[str, Callable[[Path | None], None]] = {
    "update": update,
    "scan": speed_data.scan,
    "remap": speed_data.remap,
    "loader": speed_data.loader,
    "memory": speed_data.memory,
    "pool": speed_pool.pool,
}
"""By name; each is given the data root."""
