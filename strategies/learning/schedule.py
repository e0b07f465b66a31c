"""The optimiser of a training over epochs and its learning rate at every update."""

from __future__ import annotations

from typing import Any

import torch

from strategies.learning.protocol import EpochProtocol, OfflineProtocol
from strategies.networks.modes import freeze_affine
from strategies.networks.network import SegmentationNetwork
from strategies.networks.settings import OF_INCREMENTS


def learning_rate(protocol: EpochProtocol, iteration: int, total: int) -> float:
    """Return the rate of update `iteration` of `total`: linear warm-up and poly decay, without `min_lr`."""
    p = protocol
    warm, warmup = _warm_up(p, iteration, total)
    start, length = (warm, total - warm) if p.warmup_poly == "after" else (0, total)
    decay = (1 - max(0, iteration - start) / max(1, length)) ** p.poly_power
    return float(p.lr * warmup * decay)


def _warm_up(protocol: EpochProtocol, iteration: int, total: int) -> tuple[int, float]:
    """The number of updates of the warm-up, and its factor at one."""
    p = protocol
    if p.warmup_share:
        warm = int(p.warmup_share * total)
        return warm, min(1.0, p.warmup_from + (1 - p.warmup_from) * iteration / warm) if warm else 1.0
    if p.warmup_steps:
        return p.warmup_steps, min(1.0, (iteration + 1) / p.warmup_steps)
    return 0, 1.0


def make_optimizer(network: SegmentationNetwork, protocol: EpochProtocol, fused: bool = False) -> torch.optim.Optimizer:
    """Return the optimiser of a step, `fused` into one kernel: a group for each part with a rate or decay, else one.

    A group's `lr_factor` is what its learning rate is multiplied by (`set_learning_rate`). What is not trained, a part
    with factor 0 or a frozen BatchNorm, gets no gradient.
    """
    p = protocol
    network.requires_grad_(True)
    groups = _groups(network, p)
    if p.batchnorm == "frozen":
        freeze_affine(network)
    kernel = fused or None  # False would leave torch no choice of another one either
    if p.optimizer == "adamw":
        return torch.optim.AdamW(groups, p.lr, weight_decay=p.weight_decay, fused=kernel)
    return torch.optim.SGD(groups, p.lr, p.momentum, weight_decay=p.weight_decay, nesterov=p.nesterov, fused=kernel)


def _groups(network: SegmentationNetwork, protocol: EpochProtocol) -> list[dict[str, Any]]:
    factors, decays = protocol.lr_factors, protocol.weight_decays
    if not factors and not decays:
        return [{"params": list(network.parameters()), "lr_factor": 1.0}]
    groups: list[dict[str, Any]] = []
    for part, parameters in network.parts().items():
        if part in OF_INCREMENTS and not isinstance(protocol, OfflineProtocol):
            part = "classifier"
        factor = factors.get(part, 1.0)
        for parameter in parameters:
            parameter.requires_grad_(factor > 0)
        if factor > 0 and parameters:
            decay = decays.get(part, protocol.weight_decay)
            groups.append({"params": parameters, "lr_factor": factor, "weight_decay": decay})
    return groups


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float, least: float) -> None:
    """Set the rate of every group, times its factor, but not below the least."""
    for group in optimizer.param_groups:
        group["lr"] = max(rate * group["lr_factor"], least)
