"""One update of each method, as ratios measured in one run: against er's, and er's against a bare PyTorch loop."""

from __future__ import annotations

import copy
import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

if TYPE_CHECKING:
    from bench.settings.schema import Config
    from benchmarks.annotated import AnnotatedImages, Exemplar
    from benchmarks.streams import SegmentationExperience, SegmentationScenario
    from strategies.learning.offline import OfflineTemplate
    from strategies.networks.network import SegmentationNetwork

SCENARIO = "shapes-15-1-disjoint"
ROUNDS = 3
FILLED = 120
"""Base images offered to a memory before its updates are measured: enough to fill it."""


@dataclass(frozen=True)
class Bare:
    """A plain loop that makes a method's updates: the seconds one takes."""

    method: str
    seconds: Callable[[SegmentationNetwork, Config, SegmentationScenario], float]

    @property
    def name(self) -> str:
        """Its name among the measured."""
        return f"bare loop ({self.method})"


def update(data_root: Path | None) -> None:
    """Print milliseconds per update and ratios: methods against er, the template against a bare loop."""
    from bench.settings.merging import resolve_config
    from bench.train.networks import normalisation
    from benchmarks.streams import load_benchmark
    from strategies.learning.registry import STRATEGIES, method_class

    config = resolve_config(SCENARIO)
    benchmark = load_benchmark(SCENARIO, size=config.data.size, normalisation=normalisation(config))
    names = [
        name.rpartition(":")[2] for name in STRATEGIES.built_in_names() if "online" in method_class(name).protocols
    ]
    names += [f"mir(candidates={count})" for count in (10, 25, 100)]
    print(f"update: small network, 64 x 64, 4 + 4 images, {config.runtime.threads} thread, least of {ROUNDS}")
    print_updates(update_seconds(names, config, SCENARIO, benchmark, ER), ER)


def offline(data_root: Path | None) -> None:
    """Print the same of the offline protocol: each method against finetune, and that against a bare loop."""
    _print_offline(SCENARIO, "small", [])


def offline_laptop(data_root: Path | None) -> None:
    """Print what `offline` does for the preset `laptop`, as it is on the photographs of docs/offline-photos.md."""
    settings = ["data.size=96", "data.crop=96", "runtime.threads=1", "network.weights=none"]
    _print_offline("shapes-5-3-disjoint", "laptop", settings)


def _print_offline(scenario: str, preset: str, settings: list[str]) -> None:
    from bench.settings.merging import resolve_config
    from bench.train.networks import normalisation
    from benchmarks.streams import load_benchmark
    from strategies.learning.registry import STRATEGIES, method_class

    config = resolve_config(scenario, preset, None, ["protocol=offline", "incremental.epochs=2", *settings])
    side, count = config.data.size, config.incremental.batch_size
    benchmark = load_benchmark(scenario, size=side, normalisation=normalisation(config))
    names = [
        name.rpartition(":")[2] for name in STRATEGIES.built_in_names() if "offline" in method_class(name).protocols
    ]
    threads = f"{config.runtime.threads} thread{'s' if config.runtime.threads > 1 else ''}"
    print(f"offline: preset {preset}, {side} x {side}, {count} images, {threads}, least of {ROUNDS}")
    print_updates(update_seconds(names, config, scenario, benchmark, FINETUNE), FINETUNE)


def update_seconds(
    names: Sequence[str],
    config: Config,
    scenario: str,
    benchmark: SegmentationScenario,
    bare: Bare,
    rounds: int = ROUNDS,
) -> dict[str, float]:
    """Return the least seconds an update of step 1 takes, by method, and in a bare loop; all take turns."""
    import torch

    from bench.settings.strategies import method_parameters, parse_strategies
    from bench.train.computing import computing
    from bench.train.heap import keep_freed_memory
    from bench.train.networks import new_network
    from bench.train.template import make_template
    from strategies.learning.importance import BaseMeasures
    from strategies.learning.offline import OfflineTemplate
    from strategies.learning.protocol import BaseRecipe
    from strategies.learning.registry import method_class
    from strategies.networks.settings import HeadName
    from strategies.plugins.registry import OWN_PACKAGE

    keep_freed_memory()  # as every training process does
    known = len(benchmark.train_stream[0].classes_in_this_experience)
    networks = {
        head: new_network(config, BaseRecipe(head=head), known, pretrained=False) for head in get_args(HeadName)
    }

    def method(name: str) -> Callable[[], float]:
        request = parse_strategies(f"{OWN_PACKAGE}:{name}")[0]
        parameters = method_parameters(request, config)
        kind = method_class(request.name)

        def one_step() -> float:
            network = copy.deepcopy(networks[kind.recipe(parameters).head])
            device = torch.device("cpu")
            template = make_template(network, kind, parameters, config, scenario, 0, device)
            if kind.recipe(parameters).importance:  # as a base training leaves it: without, there is no penalty
                measures = BaseMeasures(network)
                measures.finish()
                template.method.begin_from(measures.found())
            template.begin(_few_images(benchmark.train_stream[0]))
            if isinstance(template, OfflineTemplate):
                return _second_epoch(template, benchmark.train_stream[1])
            template.train(benchmark.train_stream[1], eval_streams=[])
            return template.cost.seconds / template.cost.updates

        return one_step

    kinds = {name: method(name) for name in names}
    kinds[bare.name] = lambda: bare.seconds(copy.deepcopy(networks["linear"]), config, benchmark)
    with computing(config.runtime):
        return _interleaved(kinds, rounds)


def _second_epoch(template: OfflineTemplate, experience: SegmentationExperience) -> float:
    """Return the seconds of an update of the second of two epochs: the first may begin with other work."""
    ends: list[tuple[float, int]] = []
    template.end_epoch = lambda: ends.append((template.cost.seconds, template.cost.updates))
    template.train(experience, eval_streams=[])
    (before, done), (after, all_done) = ends
    return (after - before) / (all_done - done)


def print_updates(seconds: dict[str, float], bare: Bare) -> None:
    """Print what `update_seconds` found."""
    reference = seconds[bare.method]
    for name, of_it in seconds.items():
        if name != bare.name:
            print(f"  {name:<20} {1000 * of_it:7.1f} ms   {of_it / reference:.2f} x {bare.method}")
    alone = seconds[bare.name]
    print(f"  {bare.name:<20} {1000 * alone:7.1f} ms   template {100 * (reference / alone - 1):+.1f} %")


@dataclass(frozen=True)
class _FewImages:
    data: AnnotatedImages

    def __len__(self) -> int:
        return min(FILLED, len(self.data))

    def exemplar(self, index: int) -> Exemplar:
        return self.data.exemplar(index)


def _few_images(base: SegmentationExperience) -> Any:
    """Return what `SegmentationTemplate.begin` reads of an experience, with `FILLED` images at most."""
    return SimpleNamespace(data=_FewImages(base.data), classes_in_this_experience=base.classes_in_this_experience)


def _bare_er(network: SegmentationNetwork, config: Config, benchmark: SegmentationScenario) -> float:
    """Make er's updates of step 1 in a plain loop over the same feed; return seconds per update."""
    import torch
    from torch.nn.functional import cross_entropy

    from bench.train.networks import augmentation
    from strategies.learning.losses import without_unlabelled
    from strategies.learning.memory import Reservoir

    base, step = (benchmark.train_stream[t].data for t in (0, 1))
    known, new = (len(benchmark.train_stream[t].classes_in_this_experience) for t in (0, 1))
    memory = Reservoir(config.memory.size, np.random.default_rng(0))
    for i in range(min(FILLED, len(base))):
        memory.offer(base.exemplar(i), known)
    network.grow(new)
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
            memory.offer(step.exemplar(i), known + new)
    return (time.perf_counter() - started) / len(batches)


def _bare_finetune(network: SegmentationNetwork, config: Config, benchmark: SegmentationScenario) -> float:
    """Make finetune's offline updates of step 1 in a plain loop over the same feed; return seconds per update."""
    import torch
    from torch.nn.functional import cross_entropy

    from bench.train.networks import augmentation
    from strategies.learning.protocol import OfflineProtocol

    data, p = benchmark.train_stream[1].data, config.incremental
    assert isinstance(p, OfflineProtocol)
    network.grow(len(benchmark.train_stream[1].classes_in_this_experience))
    optimizer = torch.optim.AdamW(network.parameters(), p.lr, weight_decay=p.weight_decay)
    augment, total, done = augmentation(config), p.updates_over(len(data)), 0
    network.train()
    started = time.perf_counter()
    for epoch in range(p.epochs):
        for images, labels, *_ in data.batches(p.batch_size, range(len(data)), augment, (0, epoch)):
            for group in optimizer.param_groups:
                group["lr"] = p.lr * (1 - done / total) ** p.poly_power
            optimizer.zero_grad()
            torch.autograd.backward(cross_entropy(network(images), labels, ignore_index=255))
            optimizer.step()
            done += 1
    return (time.perf_counter() - started) / total


ER, FINETUNE = Bare("er", _bare_er), Bare("finetune", _bare_finetune)


def _interleaved(kinds: dict[str, Callable[[], float]], count: int) -> dict[str, float]:
    """Return the least of each measurement over rounds, one round of warm-up; all take turns in a round."""

    def alone(kind: Callable[[], float]) -> float:
        gc.collect()  # templates lie in cycles: one that is still there has memory that the next must fetch anew
        return kind()

    rounds = [{name: alone(kind) for name, kind in kinds.items()} for _ in range(count + 1)][1:]
    return {name: min(r[name] for r in rounds) for name in kinds}
