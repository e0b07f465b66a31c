"""From a run's directory, or a file, to a network in memory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.plan.folders import finished_at
from bench.settings.checking import checked
from bench.settings.errors import RequestError
from bench.settings.networks import network_settings
from bench.train.keeping import kept_steps, network_path
from bench.train.network_file import Kept, NetworkFileError, read_network
from reports.spec import read_spec
from strategies.learning.evaluation import best_classes, largest_of
from strategies.learning.registry import method_class
from strategies.networks.build import build_network
from strategies.networks.network import SegmentationNetwork
from strategies.networks.settings import NO_WEIGHTS
from strategies.plugins.registry import BrokenPluginError, UnknownPluginError


def kept_file(run: Path, step: int | None = None) -> Path:
    """Return the file of a run's network after a step, by default the last one; raise `RequestError` without one."""
    if not run.is_dir():
        raise RequestError(f"{run}: there is no such run directory")
    if not (run / "spec.yaml").exists():
        below = sorted(str(spec.parent) for depth in range(1, 4) for spec in run.glob("*/" * depth + "spec.yaml"))
        told = f"; below it is {below[0]}" + (f", and {len(below) - 1} more" if below[1:] else "") if below else ""
        raise RequestError(f"{run}: no run's directory, it has no spec.yaml{told}")
    spec = read_spec(run)
    steps = kept_steps(run)
    if not steps and not finished_at(run):
        raise RequestError(f"{run}: the run is not finished and has no network yet; `bench run-one` goes on with it")
    if not steps:
        kept = spec["config"].get("keep", "none")
        again = "the command that made it keeps one with --set keep=last --overwrite always"
        raise RequestError(f"{run}: no network of this run was kept (keep={kept}); {again}")
    if step is not None and step not in steps:
        told = ", ".join(map(str, steps))
        raise RequestError(f"--step {step}: {run} has the networks after step {told} (keep=all keeps those after all)")
    return network_path(run, steps[-1] if step is None else step)


def require_of_run(kept: Kept, run: Path, file: Path) -> None:
    """Raise `NetworkFileError` where a file in a run's directory is another run's."""
    spec = read_spec(run)
    for key, there, here in (("hash", kept.hash, spec["hash"]), ("seed", kept.seed, spec["seed"])):
        if there != here:
            raise NetworkFileError(f"{file}: another run's network, its {key} is {there}, not {here}")


class KeptNetwork:
    """A network in eval mode with what its method predicts by."""

    def __init__(self, file: Path, device: torch.device) -> None:
        """Raise `RequestError` where the file is damaged, or its network or method is not installed here."""
        read = read_network(file)
        self.kept = read.kept
        self.device = device
        self.method_state = {name: tensor.to(device) for name, tensor in read.method.items()}
        """What its method predicts by."""
        self.network = _network(file, read.kept, read.network).to(device)
        self._method = _method(file, read.kept, self.method_state) if read.kept.predicts == "method" else None

    def scores(self, images: Tensor) -> Tensor:
        """Return scores float32 (B, C, H, W) of images (B, 3, H, W) as the network takes them, as in the run."""
        seen = _Evaluated(self.network, self.device, images)
        scores: Tensor = self._method.predict(seen) if self._method else self.network.scores(images)
        return scores

    def classes(self, images: Tensor) -> Tensor:
        """Return int64 (B, H, W), the class of the largest score of each pixel."""
        if self._method:
            return best_classes(self.scores(images))
        return largest_of(self.network, images, lambda: self.scores(images))


class _Evaluated:
    """What a method that predicts sees of a strategy."""

    def __init__(self, network: SegmentationNetwork, device: torch.device, images: Tensor) -> None:
        self.network, self.device, self.mb_x = network, device, images


def _network(file: Path, kept: Kept, tensors: Mapping[str, Tensor]) -> SegmentationNetwork:
    settings = network_settings({**kept.network, "weights": NO_WEIGHTS})  # those it started from are of no use any more
    with torch.random.fork_rng(devices=[]):
        base, *added = kept.groups or [len(kept.classes) - 1]
        network = build_network(settings, base, kept.head, kept.tau, pretrained=False)
        for classes in added:
            network.grow(classes)
    try:
        network.load_state_dict(dict(tensors), assign=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise NetworkFileError(f"{file}: its tensors are not those of the network in its header ({reason})") from None
    network.precision = kept.precision
    return network.to(memory_format=torch.channels_last).eval().requires_grad_(False)


def _method(file: Path, kept: Kept, state: Mapping[str, Tensor]) -> Any:
    """Return the method as it was before it was trained, with what it predicts by."""
    name = kept.method
    try:
        kind = method_class(name)
    except (BrokenPluginError, UnknownPluginError) as error:
        raise RequestError(f"{file}: it needs {name}, which does not predict by logits alone: {error}") from None
    method = kind(checked(kind.Parameters, kept.parameters, str(file)), kept.memory, np.random.default_rng(0))
    try:
        method.load_prediction_state(state)
    except LookupError as error:
        raise NetworkFileError(f"{file}: {name} predicts by {error}, which is not there") from None
    return method
