"""DeepLab-v3 as the offline lineages have it: `mib-deeplabv3`, `ssul-deeplabv3`, `dkd-deeplabv3`.

They differ from torchvision's (`strategies.networks.deeplab`) and from each other in what lies between the ResNet and
the classifier, and in how BatchNorm is kept. In-place ABN, which MiB, PLOP and their successors use, is BatchNorm here,
followed by an activation of its own: its absolute value of the scale and its saving of memory are left out. SSUL's
classifiers of 3 x 3 convolutions and DKD's missing background are those methods' heads.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import ResNet50_Weights, ResNet101_Weights, WeightsEnum, resnet50, resnet101
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.segmentation.deeplabv3 import ASPP

from strategies.networks.backbone import Backbone, Stage
from strategies.networks.batchnorm import PooledBatchNorm
from strategies.networks.deeplab import from_url
from strategies.networks.settings import STRICT, NetworkSettings
from strategies.networks.small import Residual, SmallBackbone
from strategies.networks.sources import Source, load_by_name

Activation = Literal["leaky_relu", "relu"]
SLOPE = 0.01
"""Of leaky ReLU, as in mapillary's in-place ABN."""
WINDOW = 32
"""The side, in cells, of what MiB's image-level branch averages over in evaluation."""


@dataclass(frozen=True, config=STRICT)
class LineageSettings(NetworkSettings):
    """Settings of all three."""

    trunk: Literal["resnet101", "resnet50", "small"] = "resnet101"
    """`small`: the trunk of the network `small`, for generated images on a CPU."""


@dataclass(frozen=True, config=STRICT)
class MibSettings(LineageSettings):
    """Settings of MiB's form."""

    activation: Activation = "leaky_relu"
    """In the ResNet and the pyramid: leaky ReLU is what in-place ABN has, ReLU what torchvision's weights know."""


_RESNETS: dict[str, tuple[Callable[..., nn.Module], type[WeightsEnum]]] = {
    "resnet101": (resnet101, ResNet101_Weights),
    "resnet50": (resnet50, ResNet50_Weights),
}


class _Lineage(Backbone):
    """A trunk whose last stage is dilated, and a lineage's pyramid."""

    Settings: ClassVar[type[NetworkSettings]] = LineageSettings
    pyramid_modules = ("pyramid",)
    momentum: ClassVar[float]
    """Of the trunk's BatchNorm."""

    def __init__(self, settings: Any = None) -> None:
        super().__init__()
        chosen: Any = type(self).Settings("", "none") if settings is None else settings
        self.settings, self.small = chosen, chosen.trunk == "small"
        if self.small:
            small = SmallBackbone()
            self.trunk: nn.Module = nn.Sequential(small.stem, small.blocks)
            self.channels, self.stride, self.usual_side = small.channels, small.stride, small.usual_side
            self.stages = (Stage("trunk.0", 32, 4), *(Stage(f"trunk.1.{i}", 48, 4) for i in range(3)))
            inputs, rates = 48, (3, 6, 9)  # a map is 16 cells wide: larger ones would see padding alone
        else:
            make, _ = _RESNETS[chosen.trunk]
            resnet = make(weights=None, replace_stride_with_dilation=[False, False, True])
            self.trunk = IntermediateLayerGetter(resnet, return_layers={"layer4": "out"})
            self.channels, self.stride, self.usual_side = 256, 16, 512
            widths = ((256, 4), (512, 8), (1024, 16), (2048, 16))
            self.stages = tuple(Stage(f"trunk.layer{i}", *each) for i, each in enumerate(widths, start=1))
            inputs, rates = 2048, (6, 12, 18)
        for module in self.trunk.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = self.momentum
        self.pyramid = self.make_pyramid(inputs, rates)

    @abstractmethod
    def make_pyramid(self, inputs: int, rates: tuple[int, int, int]) -> nn.Module:
        """Return what makes features of the trunk's last map."""

    def forward(self, images: Tensor) -> Tensor:
        """Return features (B, D, H / stride, W / stride)."""
        last = self.trunk(images)
        features: Tensor = self.pyramid(last if self.small else last["out"])
        return features

    @classmethod
    def weights(cls, settings: Any) -> dict[str, Source]:
        """Return torchvision's for the ResNet, by torchvision's names."""
        if settings.trunk == "small":
            return {}
        return {each.name: from_url(each.url) for each in _RESNETS[settings.trunk][1]}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over a ResNet's state dict; what is its classifier's is left alone."""
        load_by_name(self.trunk, tensors)


class MibDeepLab(_Lineage):
    """MiB's, PLOP's and EWF's: leaky ReLU, all of the last stage dilated, an image-level branch that is added."""

    Settings = MibSettings
    momentum = 0.1

    def make_pyramid(self, inputs: int, rates: tuple[int, int, int]) -> nn.Module:
        """Return MiB's pyramid, and make the trunk MiB's."""
        if not self.small:
            first = self.trunk.get_submodule("layer4.0.conv2")
            assert isinstance(first, nn.Conv2d)
            first.dilation, first.padding = (2, 2), (2, 2)
        if self.settings.activation == "leaky_relu":
            _make_leaky(self.trunk)
        return MibPyramid(inputs, self.channels, rates, self.settings.activation)


class DkdDeepLab(_Lineage):
    """DKD's: MiB's pyramid with ReLU; the trunk's BatchNorm has momentum 0.01."""

    momentum = 0.01

    def make_pyramid(self, inputs: int, rates: tuple[int, int, int]) -> nn.Module:
        """Return MiB's pyramid with ReLU."""
        return MibPyramid(inputs, self.channels, rates, "relu")


class SsulDeepLab(_Lineage):
    """SSUL's: torchvision's pyramid with dropout 0.1, nothing behind it; the trunk's BatchNorm has momentum 0.01.

    The convolutions above the trunk start with He's normal weights, as in SSUL's code (clovaai/SSUL,
    network/_deeplab.py).
    """

    momentum = 0.01

    def make_pyramid(self, inputs: int, rates: tuple[int, int, int]) -> nn.Module:
        """Return torchvision's pyramid."""
        pyramid = ASPP(inputs, list(rates), self.channels)
        pooling = pyramid.convs[-1]
        pooling[2] = PooledBatchNorm(self.channels)
        pyramid.project[-1] = nn.Dropout(0.1)
        _he_normal(pyramid)
        return nn.Sequential(pyramid)

    def start_head(self, head: nn.Module) -> None:
        """Draw the weights of its convolutions."""
        _he_normal(head)


class MibPyramid(nn.Module):
    """1 x 1 and three dilated branches joined, and an image-level branch that is added to them.

    Features (B, D, h, w) of a map (B, C, h, w). In training the image-level branch averages over the map, in evaluation
    over windows of 32 x 32 cells, at the edges over the nearest whole one.
    """

    def __init__(self, inputs: int, width: int, rates: tuple[int, int, int], activation: Activation) -> None:
        super().__init__()
        near = nn.Conv2d(inputs, width, 1, bias=False)
        wide = (nn.Conv2d(inputs, width, 3, padding=rate, dilation=rate, bias=False) for rate in rates)
        self.branches = nn.ModuleList([near, *wide])
        self.norm = nn.Sequential(nn.BatchNorm2d(4 * width), _activation(activation))
        self.joined = nn.Conv2d(4 * width, width, 1, bias=False)
        self.image = nn.Sequential(
            nn.Conv2d(inputs, width, 1, bias=False),
            PooledBatchNorm(width),
            _activation(activation),
            nn.Conv2d(width, width, 1, bias=False),
        )
        self.out = nn.Sequential(nn.BatchNorm2d(width), _activation(activation))
        gain = nn.init.calculate_gain(activation, SLOPE if activation == "leaky_relu" else None)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_normal_(module.weight, gain)

    def forward(self, x: Tensor) -> Tensor:
        """Return features."""
        joined = self.joined(self.norm(torch.cat([branch(x) for branch in self.branches], 1)))
        features: Tensor = self.out(joined + self.image(self._averaged(x)))
        return features

    def _averaged(self, x: Tensor) -> Tensor:
        if self.training:
            return x.mean((2, 3), keepdim=True)
        sides = [min(side, WINDOW) for side in x.shape[2:]]
        averaged = F.avg_pool2d(x, sides, stride=1)
        high, wide = (((side - 1) // 2, side - 1 - (side - 1) // 2) for side in sides)
        return F.pad(averaged, (*wide, *high), mode="replicate")


def _he_normal(module: nn.Module) -> None:
    for each in module.modules():
        if isinstance(each, nn.Conv2d):
            nn.init.kaiming_normal_(each.weight)


def _activation(name: Activation) -> nn.Module:
    return nn.LeakyReLU(SLOPE, inplace=True) if name == "leaky_relu" else nn.ReLU(inplace=True)


def _make_leaky(trunk: nn.Module) -> None:
    """Put leaky ReLU in the place of every ReLU but those behind the sums of `small`."""
    for parent in list(trunk.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.ReLU) and not isinstance(parent, Residual):
                setattr(parent, name, nn.LeakyReLU(SLOPE, inplace=True))
