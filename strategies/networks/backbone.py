"""What a network is to the harness: a plug-in that makes a feature map of images and says what it needs and gives."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

from torch import Tensor, nn

from strategies.networks.settings import OF_IMAGENET, NetworkSettings, Normalisation
from strategies.networks.sources import Source, load_by_name


class Stage(NamedTuple):
    """A feature map on the way to the last one, for methods that distil features.

    `name` is that of the module below the backbone whose output (B, channels, H / stride, W / stride) it is: a forward
    hook there sees it.
    """

    name: str
    channels: int
    stride: int


class Backbone(nn.Module):
    """A network up to the feature map that a head classifies per pixel. Subclasses are plug-ins.

    It is built from its settings, `Settings`, with random weights. A package declares it as an entry point of the group
    `bench.networks`.
    """

    Settings: ClassVar[type[NetworkSettings]] = NetworkSettings
    packages: ClassVar[Mapping[str, str]] = {}
    """Distributions that it needs and whose versions may change its numbers, and what `pip install` gets them by."""
    channels: int
    """D of the feature map."""
    stride: int
    """Image pixels per feature along a side."""
    stages: tuple[Stage, ...]
    """From the first to the last."""
    pyramid_modules: ClassVar[tuple[str, ...]] = ()
    """The names of its modules that no pretrained weights are for: what lies between the trunk and the head."""
    usual_side: int
    """The side of the square images that `bench networks --check` measures it at."""

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """Return features (B, channels, h, w) of normalised images (B, 3, H, W)."""

    def start_head(self, head: nn.Module) -> None:
        """Give a new head on it other first weights than its layers have by themselves."""

    @classmethod
    def fault(cls, settings: Any) -> str | None:
        """Return which setting cannot be used and why, `backbone=x: ...`, beyond its type and range."""
        return None

    @classmethod
    def normalisation(cls, settings: Any) -> Normalisation:
        """Return what is done to the colours of its input."""
        return OF_IMAGENET

    @classmethod
    def weights(cls, settings: Any) -> dict[str, Source]:
        """Return by the names that `network.weights` takes where weights come from."""
        return {}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over weights as they are published for it; raise `WeightsError` where they do not fit."""
        load_by_name(self, tensors)
