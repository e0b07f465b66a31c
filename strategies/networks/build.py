"""Networks by name."""

from __future__ import annotations

from torch import nn

from strategies.networks.deeplab import deeplab_backbone
from strategies.networks.heads import CosineHead, LinearHead
from strategies.networks.network import SegmentationNetwork
from strategies.networks.settings import HeadName, NetworkName
from strategies.networks.small import SmallBackbone


def build_network(
    name: NetworkName, classes: int, head: HeadName = "linear", tau: float | None = None, pretrained: bool = False
) -> SegmentationNetwork:
    """Return a network for `classes` foreground classes; `pretrained` loads ImageNet weights.

    `small`: 0.15 M parameters at stride 4 for a CPU. `deeplabv3-resnet101`: torchvision's, stride 16.
    """
    if name == "small":
        backbone: nn.Module = SmallBackbone()
        channels = SmallBackbone.channels
    else:
        backbone, channels = deeplab_backbone(pretrained), 256
    outputs = classes + 1
    top = LinearHead(channels, outputs) if head == "linear" else CosineHead(channels, outputs, tau or 12.0)
    return SegmentationNetwork(backbone, top)
