"""Whether a network that is installed can be used, and its size and speed, where its code can do no harm."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from bench.plan.own_process import EndedError, answer_of
from strategies.networks.backbone import Backbone
from strategies.networks.build import default_settings
from strategies.networks.registry import MissingPackageError, network_class
from strategies.plugins.faults import in_a_line
from strategies.plugins.registry import BrokenPluginError

_PASSES = 3


@dataclass(frozen=True)
class Measured:
    """What a network with its settings by default is; `seconds` are those of a forward pass of one image."""

    parameters: int
    channels: int
    stride: int
    side: int
    macs: float
    seconds: float
    weights: tuple[str, ...]

    def __str__(self) -> str:
        size = f"{self.parameters / 1e6:.2f} M parameters, {self.channels} channels at stride {self.stride}"
        cost = f"{self.macs / 1e9:.2f} GMACs and {1000 * self.seconds:.0f} ms at {self.side} x {self.side}"
        return f"{size}, {cost}; weights: {', '.join(self.weights) or 'none'}"


@dataclass(frozen=True)
class Unusable:
    """Why a network cannot be used; `broken` if that is its fault, not a package's that is not installed."""

    reason: str
    broken: bool = True

    def __str__(self) -> str:
        return f"BROKEN: {self.reason}" if self.broken else self.reason


def look_at(name: str) -> Measured | Unusable:
    """Build a network in a process of its own and return what it is, or why it cannot be used."""
    try:
        return answer_of(_look_at, name)
    except EndedError as error:
        return Unusable(f"cannot be built: {error}")


def _look_at(name: str) -> Measured | Unusable:
    try:
        kind, settings = network_class(name), default_settings(name)
        backbone = kind(settings).eval()
        known = tuple(kind.weights(settings))
    except MissingPackageError as error:
        return Unusable(error.reason, broken=False)
    except BrokenPluginError as error:
        return Unusable(error.reason)
    except Exception as error:
        return Unusable(f"cannot be built: {in_a_line(error)}")
    try:
        return _measured(backbone, known)
    except Exception as error:
        return Unusable(f"computes no features: {in_a_line(error)}")


def _measured(backbone: Backbone, weights: tuple[str, ...]) -> Measured | Unusable:
    """Return what a backbone is; where its maps are not what it says, that."""
    side = backbone.usual_side
    image = torch.zeros(1, 3, side, side)
    seen: dict[str, torch.Size] = {}
    hooks = [_watch(backbone, stage.name, seen) for stage in backbone.stages]
    with torch.no_grad():
        with FlopCounterMode(display=False) as counter:
            seen["its features"] = backbone(image).shape
        for hook in hooks:
            hook.remove()
        seconds = min(_seconds(backbone, image) for _ in range(_PASSES))
    said = {stage.name: (stage.channels, stage.stride) for stage in backbone.stages}
    for name, (channels, stride) in {**said, "its features": (backbone.channels, backbone.stride)}.items():
        if seen.get(name) != (wanted := (1, channels, -(-side // stride), -(-side // stride))):
            return Unusable(f"says that {name} is {wanted}, it is {tuple(seen.get(name, ()))}")
    parameters = sum(p.numel() for p in backbone.parameters())
    macs = counter.get_total_flops() / 2
    return Measured(parameters, backbone.channels, backbone.stride, side, macs, seconds, weights)


def _watch(backbone: Backbone, name: str, seen: dict[str, torch.Size]) -> torch.utils.hooks.RemovableHandle:
    def look(module: torch.nn.Module, inputs: object, output: torch.Tensor) -> None:
        seen[name] = output.shape

    return backbone.get_submodule(name).register_forward_hook(look)


def _seconds(backbone: Backbone, image: torch.Tensor) -> float:
    started = time.perf_counter()
    backbone(image)
    return time.perf_counter() - started
