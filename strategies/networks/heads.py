"""Per-pixel classifiers that grow: linear, and cosine (Eq. 8)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class LinearHead(nn.Module):
    """1x1 classifier with weight and bias; parameters `weight` (C, D) and `bias` (C,)."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        layer = nn.Linear(channels, outputs)
        self.weight, self.bias = layer.weight, layer.bias

    def forward(self, features: Tensor) -> Tensor:
        """Return logits (B, C, h, w) of features (B, D, h, w)."""
        return F.conv2d(features, self.weight[:, :, None, None], self.bias)

    def grow(self, outputs: int) -> None:
        """Append outputs with the layer's default initialisation."""
        fresh = nn.Linear(self.weight.shape[1], outputs).to(self.weight)
        self.weight = nn.Parameter(torch.cat([self.weight.detach(), fresh.weight.detach()]))
        self.bias = nn.Parameter(torch.cat([self.bias.detach(), fresh.bias.detach()]))


class CosineHead(nn.Module):
    """Eq. 8: logit_c = tau cos(u_c, F), no bias; parameter `weight` (C, D)."""

    def __init__(self, channels: int, outputs: int, tau: float = 12.0) -> None:
        super().__init__()
        self.tau = tau
        self.weight = nn.Linear(channels, outputs, bias=False).weight

    def forward(self, features: Tensor) -> Tensor:
        """Return logits (B, C, h, w) of features (B, D, h, w)."""
        directions = F.normalize(self.weight, dim=1)[:, :, None, None]
        return self.tau * F.conv2d(F.normalize(features, dim=1), directions)

    def grow(self, outputs: int) -> None:
        """Append outputs with the layer's default initialisation."""
        fresh = nn.Linear(self.weight.shape[1], outputs, bias=False).to(self.weight)
        self.weight = nn.Parameter(torch.cat([self.weight.detach(), fresh.weight.detach()]))
