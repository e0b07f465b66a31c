"""`deeplabv3-resnet101`: torchvision's, stride 16 (Sec. 4.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class PooledBatchNorm(nn.BatchNorm2d):
    """BatchNorm that falls back to its running statistics for a batch with one value per channel.

    The image-level branch of DeepLab is 1 x 1, so the last incoming image of a step may come alone.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return x (B, C, h, w) normalised."""
        if self.training and x.numel() == x.shape[1]:
            return by_running_statistics(self, x)
        return super().forward(x)


def by_running_statistics(layer: nn.BatchNorm2d | nn.SyncBatchNorm, x: Tensor) -> Tensor:
    """Return x (B, C, h, w) normalised as in eval mode."""
    return F.batch_norm(x, layer.running_mean, layer.running_var, layer.weight, layer.bias, False, 0.0, layer.eps)


class _Backbone(nn.Module):
    def __init__(self, trunk: nn.Module, pyramid: nn.Module) -> None:
        super().__init__()
        self.trunk = trunk
        self.pyramid = pyramid

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.pyramid(self.trunk(images)["out"])
        return features


def deeplab_backbone(pretrained: bool) -> nn.Module:
    """torchvision's DeepLab-v3 ResNet-101 up to the 256 channels before its classifier, stride 16."""
    from torchvision.models import ResNet101_Weights, resnet101
    from torchvision.models._utils import IntermediateLayerGetter
    from torchvision.models.segmentation.deeplabv3 import DeepLabHead

    weights = ResNet101_Weights.IMAGENET1K_V1 if pretrained else None
    try:
        resnet = resnet101(weights=weights, replace_stride_with_dilation=[False, False, True])
    except OSError as error:
        raise RuntimeError(
            f"cannot get the ImageNet weights {ResNet101_Weights.IMAGENET1K_V1.url} ({error}); put the file into "
            f"{torch.hub.get_dir()}/checkpoints or set network.pretrained=false"
        ) from error
    trunk = IntermediateLayerGetter(resnet, return_layers={"layer4": "out"})
    head = DeepLabHead(2048, 1, atrous_rates=(6, 12, 18))
    pooling = head[0].convs[-1]
    pooling[2] = PooledBatchNorm(pooling[2].num_features)
    return _Backbone(trunk, nn.Sequential(*list(head)[:-1]))
