"""The segmentation network that grows: backbone, D-channel feature map, per-pixel classifier (Sec. 3.2).

Logits are upsampled bilinearly to the image. Output 0 is the background, output c the c-th class learned.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from strategies.protocol import HeadName, NetworkName, Precision


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


class PassTally:
    """How many forward passes, and of how many images, a network and all its copies have made."""

    def __init__(self) -> None:
        self.passes = 0
        self.images = 0

    def __deepcopy__(self, memo: dict[int, object]) -> PassTally:
        return self


class SegmentationNetwork(nn.Module):
    """A backbone that gives features (B, D, h, w) and a head that classifies them.

    With `precision` bf16 the backbone computes under autocast; head, logits and losses stay in float32.
    """

    def __init__(self, backbone: nn.Module, head: LinearHead | CosineHead) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.precision: Precision = "fp32"
        self.tally = PassTally()

    @property
    def outputs(self) -> int:
        """Background and classes known so far."""
        return self.head.weight.shape[0]

    def features(self, images: Tensor) -> Tensor:
        """Return the feature map (B, D, h, w) of images (B, 3, H, W), Eq. 1."""
        self.tally.passes += 1
        self.tally.images += len(images)
        with self._autocast(images):
            features: Tensor = self.backbone(images)
        return features.float() if self.precision == "bf16" else features

    def _autocast(self, images: Tensor) -> torch.autocast:
        return torch.autocast(images.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, C, H, W) of images (B, 3, H, W), Eq. 2."""
        logits = self.head(self.features(images))
        return F.interpolate(logits, size=images.shape[-2:], mode="bilinear", align_corners=False)

    def grow(self, outputs: int) -> None:
        """Append outputs for new classes; those that are there keep their weights."""
        self.head.grow(outputs)


def trained_parameters(network: nn.Module) -> dict[str, nn.Parameter]:
    """Return by name the parameters that are not frozen."""
    return {name: p for name, p in network.named_parameters() if p.requires_grad}


@contextmanager
def evaluation_mode(network: nn.Module) -> Iterator[None]:
    """Put every module into eval mode for a block and give each its own mode back after it."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


@contextmanager
def batch_statistics(network: nn.Module) -> Iterator[None]:
    """Let BatchNorm in train mode normalise by its batch for a block without moving its running statistics."""
    layers = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d) and m.training]
    for layer in layers:
        layer.track_running_stats = False
    try:
        yield
    finally:
        for layer in layers:
            layer.track_running_stats = True


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
        backbone, channels = _deeplab_backbone(pretrained), 256
    outputs = classes + 1
    top = LinearHead(channels, outputs) if head == "linear" else CosineHead(channels, outputs, tau or 12.0)
    return SegmentationNetwork(backbone, top)


def _convolution(inputs: int, outputs: int, side: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    padding = dilation * (side // 2)
    convolution = nn.Conv2d(inputs, outputs, side, stride, padding, dilation, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class _Residual(nn.Module):
    def __init__(self, inputs: int, outputs: int, dilation: int) -> None:
        super().__init__()
        self.first = _convolution(inputs, outputs, 3, dilation=dilation)
        self.second = nn.Sequential(
            nn.Conv2d(outputs, outputs, 3, padding=dilation, dilation=dilation, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.skip = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.second(self.first(x)) + self.skip(x))


class SmallBackbone(nn.Module):
    """Stride-4 stem, three residual blocks of growing dilation, a light pyramid with an image-level branch."""

    channels = 64

    def __init__(self) -> None:
        super().__init__()
        stem, width = 32, 48
        self.stem = nn.Sequential(_convolution(3, stem, 3, 2), _convolution(stem, stem, 3, 2))
        self.blocks = nn.Sequential(_Residual(stem, width, 1), _Residual(width, width, 2), _Residual(width, width, 4))
        self.near = _convolution(width, self.channels // 2, 1)
        self.wide = _convolution(width, self.channels // 2, 3, dilation=6)
        self.joined = _convolution(self.channels, self.channels, 1)
        self.pooled = nn.Linear(width, self.channels)

    def forward(self, images: Tensor) -> Tensor:
        """Return features (B, 64, H / 4, W / 4)."""
        x = self.blocks(self.stem(images))
        context = self.pooled(x.mean((2, 3)))[:, :, None, None]
        return F.relu(self.joined(torch.cat([self.near(x), self.wide(x)], 1)) + context)


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


class _DeepLabBackbone(nn.Module):
    def __init__(self, trunk: nn.Module, pyramid: nn.Module) -> None:
        super().__init__()
        self.trunk = trunk
        self.pyramid = pyramid

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.pyramid(self.trunk(images)["out"])
        return features


def _deeplab_backbone(pretrained: bool) -> nn.Module:
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
    return _DeepLabBackbone(trunk, nn.Sequential(*list(head)[:-1]))
