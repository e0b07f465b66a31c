"""Networks by their settings: a backbone and a head on it."""

from __future__ import annotations

from strategies.networks.backbone import Backbone
from strategies.networks.grouped_head import GroupedHead
from strategies.networks.heads import AuxiliaryHead, CosineHead, Head, LinearHead
from strategies.networks.network import SegmentationNetwork
from strategies.networks.registry import network_class
from strategies.networks.settings import NO_WEIGHTS, HeadName, NetworkSettings
from strategies.networks.weights import load_weights


def build_network(
    network: NetworkSettings | str,
    classes: int,
    head: HeadName = "linear",
    tau: float | None = None,
    pretrained: bool = True,
) -> SegmentationNetwork:
    """Return a network for `classes` foreground classes, by its settings or, with random weights, by its name.

    Without `pretrained` the settings' weights are left out, for a network that gets others. Raises
    `UnknownPluginError`, `BrokenPluginError` and `WeightsError`.
    """
    settings = default_settings(network) if isinstance(network, str) else network
    backbone = build_backbone(settings)
    top = _head(head, backbone.channels, classes + 1, tau)
    backbone.start_head(top)
    if pretrained:
        load_weights(backbone, settings)
    return SegmentationNetwork(backbone, top)


def _head(name: HeadName, channels: int, outputs: int, tau: float | None) -> Head:
    if name == "cosine":
        return CosineHead(channels, outputs, tau or 12.0)
    return {"linear": LinearHead, "auxiliary": AuxiliaryHead, "grouped": GroupedHead}[name](channels, outputs)


def default_settings(name: str) -> NetworkSettings:
    """Return a network's settings by default, with random weights."""
    return network_class(name).Settings(name, NO_WEIGHTS)


def build_backbone(settings: NetworkSettings) -> Backbone:
    """Return a backbone with random weights."""
    return network_class(settings.name)(settings)
