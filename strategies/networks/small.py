"""`small`: 0.15 M parameters at stride 4, for a CPU."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from strategies.networks.backbone import Backbone, Stage
from strategies.networks.settings import NetworkSettings


def _convolution(inputs: int, outputs: int, side: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    padding = dilation * (side // 2)
    convolution = nn.Conv2d(inputs, outputs, side, stride, padding, dilation, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class Residual(nn.Module):
    """Two 3x3 convolutions, and their input added to what they make of it."""

    def __init__(self, inputs: int, outputs: int, dilation: int) -> None:
        super().__init__()
        self.first = _convolution(inputs, outputs, 3, dilation=dilation)
        self.second = nn.Sequential(
            nn.Conv2d(outputs, outputs, 3, padding=dilation, dilation=dilation, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.skip = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Return a map of the size of x."""
        activated: Tensor = self.relu(self.second(self.first(x)) + self.skip(x))
        return activated


class SmallBackbone(Backbone):
    """Stride-4 stem, three residual blocks of growing dilation, a light pyramid with an image-level branch."""

    channels = 64
    stride = 4
    stages = (Stage("stem", 32, 4), *(Stage(f"blocks.{i}", 48, 4) for i in range(3)))
    pyramid_modules = ("near", "wide", "joined", "pooled")
    usual_side = 64

    def __init__(self, settings: NetworkSettings | None = None) -> None:
        super().__init__()
        stem, width = 32, 48
        self.stem = nn.Sequential(_convolution(3, stem, 3, 2), _convolution(stem, stem, 3, 2))
        self.blocks = nn.Sequential(Residual(stem, width, 1), Residual(width, width, 2), Residual(width, width, 4))
        self.near = _convolution(width, self.channels // 2, 1)
        self.wide = _convolution(width, self.channels // 2, 3, dilation=6)
        self.joined = _convolution(self.channels, self.channels, 1)
        self.pooled = nn.Linear(width, self.channels)

    def forward(self, images: Tensor) -> Tensor:
        """Return features (B, 64, H / 4, W / 4)."""
        x = self.blocks(self.stem(images))
        context = self.pooled(x.mean((2, 3)))[:, :, None, None]
        return F.relu(self.joined(torch.cat([self.near(x), self.wide(x)], 1)) + context)
