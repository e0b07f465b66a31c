"""BatchNorm of an image-level branch, whose map is 1 x 1."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class PooledBatchNorm(nn.BatchNorm2d):
    """BatchNorm that falls back to its running statistics for a batch with one value per channel.

    The image-level branch of a decoder is 1 x 1, so the last incoming image of a step may come alone.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return x (B, C, h, w) normalised."""
        if self.training and x.numel() == x.shape[1]:
            return by_running_statistics(self, x)
        return super().forward(x)


def by_running_statistics(layer: nn.BatchNorm2d | nn.SyncBatchNorm, x: Tensor) -> Tensor:
    """Return x (B, C, h, w) normalised as in eval mode."""
    return F.batch_norm(x, layer.running_mean, layer.running_var, layer.weight, layer.bias, False, 0.0, layer.eps)
