"""From a backbone's last feature map to the one that is classified: DeepLab-v3's pyramid, and a light one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from strategies.networks.batchnorm import PooledBatchNorm

if TYPE_CHECKING:
    from strategies.networks.backbone import Stage


def aspp(channels: int, stride: int) -> nn.Sequential:
    """Return torchvision's DeepLab-v3 pyramid up to the 256 channels before its classifier.

    Its dilations are DeepLab-v3's at stride 16, (6, 12, 18), and cover as many image pixels at another.
    """
    from torchvision.models.segmentation.deeplabv3 import DeepLabHead

    head = DeepLabHead(channels, 1, atrous_rates=dilations(6, stride))
    pooling = head[0].convs[-1]
    pooling[2] = PooledBatchNorm(pooling[2].num_features)
    return nn.Sequential(*list(head)[:-1])


def dilations(first: int, stride: int) -> tuple[int, int, int]:
    """Return three dilations for a stride: `first` and its multiples at 16, fewer features apart where it is larger."""
    one, two, three = (max(1, first * factor * 16 // stride) for factor in (1, 2, 3))
    return one, two, three


class LightDecoder(nn.Module):
    """A pyramid of 1x1, separable and image-level branches, joined and then joined with a finer map.

    Of the last map (B, C, h, w) and a finer one it makes features (B, 128, H', W') of the finer one's size.
    """

    channels = 128

    def __init__(self, last: Stage, fine: Stage) -> None:
        super().__init__()
        width, of_fine = self.channels, 32
        self.point = _convolution(last.channels, width)
        self.wide = nn.ModuleList(_separable(last.channels, width, d) for d in dilations(2, last.stride))
        self.pooled = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(last.channels, width, 1, bias=False), PooledBatchNorm(width), nn.ReLU()
        )
        self.joined = _convolution(5 * width, width)
        self.fine = _convolution(fine.channels, of_fine)
        self.out = _separable(width + of_fine, width, 1)

    def forward(self, last: Tensor, fine: Tensor) -> Tensor:
        """Return features (B, 128, H', W') of maps (B, C, h, w) and (B, C', H', W')."""
        image = self.pooled(last).expand(-1, -1, *last.shape[-2:])
        joined = self.joined(torch.cat([self.point(last), *(branch(last) for branch in self.wide), image], 1))
        enlarged = F.interpolate(joined, size=fine.shape[-2:], mode="bilinear", align_corners=False)
        features: Tensor = self.out(torch.cat([enlarged, self.fine(fine)], 1))
        return features


def _convolution(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def _separable(inputs: int, outputs: int, dilation: int) -> nn.Sequential:
    """A 3x3 convolution of each channel by itself, then a 1x1 over the channels."""
    each = nn.Conv2d(inputs, inputs, 3, padding=dilation, dilation=dilation, groups=inputs, bias=False)
    return nn.Sequential(each, *_convolution(inputs, outputs))
