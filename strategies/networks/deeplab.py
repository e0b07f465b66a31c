"""`deeplabv3-resnet101` and `deeplabv3-resnet50`: DeepLab-v3 on torchvision's ResNets, stride 16 (Sec. 4.2)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import ClassVar

from torch import Tensor, nn
from torchvision.models import ResNet50_Weights, ResNet101_Weights, WeightsEnum, resnet50, resnet101
from torchvision.models._utils import IntermediateLayerGetter

from strategies.networks.backbone import Backbone, Stage
from strategies.networks.decoders import aspp
from strategies.networks.settings import NetworkSettings
from strategies.networks.sources import Published, Source, load_by_name


class _DeepLab(Backbone):
    """A ResNet of torchvision's whose last stage is dilated, and DeepLab-v3's pyramid."""

    channels = 256
    stride = 16
    stages = (
        Stage("trunk.layer1", 256, 4),
        Stage("trunk.layer2", 512, 8),
        Stage("trunk.layer3", 1024, 16),
        Stage("trunk.layer4", 2048, 16),
    )
    pyramid_modules = ("pyramid",)
    usual_side = 512
    resnet: ClassVar[Callable[..., nn.Module]]
    published: ClassVar[type[WeightsEnum]]

    def __init__(self, settings: NetworkSettings | None = None) -> None:
        super().__init__()
        resnet = type(self).resnet(weights=None, replace_stride_with_dilation=[False, False, True])
        self.trunk = IntermediateLayerGetter(resnet, return_layers={"layer4": "out"})
        self.pyramid = aspp(2048, self.stride)

    def forward(self, images: Tensor) -> Tensor:
        """Return features (B, 256, H / 16, W / 16)."""
        features: Tensor = self.pyramid(self.trunk(images)["out"])
        return features

    @classmethod
    def weights(cls, settings: NetworkSettings) -> dict[str, Source]:
        """Return torchvision's, by torchvision's names."""
        return {each.name: from_url(each.url) for each in cls.published}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over a ResNet's state dict; what is its classifier's is left alone."""
        load_by_name(self.trunk, tensors)


class DeepLabResNet101(_DeepLab):
    """The paper's network, 58.6 M parameters."""

    resnet = staticmethod(resnet101)
    published = ResNet101_Weights


class DeepLabResNet50(_DeepLab):
    """The same on a ResNet-50, 39.6 M parameters."""

    resnet = staticmethod(resnet50)
    published = ResNet50_Weights


def from_url(url: str) -> Published:
    """Return a source from an address whose file's name ends with the beginning of its SHA-256, as torchvision's do."""
    name = url.rpartition("/")[2]
    digest = re.search(r"-([0-9a-f]{8,})\.", name)
    return Published(url, name, digest[1] if digest else None)
