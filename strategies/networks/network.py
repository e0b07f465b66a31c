"""The segmentation network that grows: backbone, D-channel feature map, per-pixel classifier (Sec. 3.2).

Logits are upsampled bilinearly to the image. Output 0 is the background, output c the c-th class learned.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from strategies.networks.heads import Head
from strategies.networks.settings import Part, Precision


class PassTally:
    """How many forward passes, and of how many images, a network and all its copies have made."""

    def __init__(self) -> None:
        self.passes = 0
        self.images = 0

    @contextmanager
    def one_pass(self) -> Iterator[None]:
        """Count all passes of a block as one: that of a batch which is taken in parts."""
        before = self.passes
        yield
        self.passes = before + 1

    def __deepcopy__(self, memo: dict[int, object]) -> PassTally:
        return self


class SegmentationNetwork(nn.Module):
    """A backbone that gives features (B, D, h, w) and a head that classifies them.

    With `precision` bf16 the backbone computes under autocast; head, logits and losses stay in float32.
    """

    def __init__(self, backbone: nn.Module, head: Head) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.precision: Precision = "fp32"
        self._compiled = False
        self.tally = PassTally()

    @property
    def outputs(self) -> int:
        """Background and classes known so far."""
        return self.head.outputs

    def features(self, images: Tensor) -> Tensor:
        """Return the feature map (B, D, h, w) of images (B, 3, H, W), Eq. 1."""
        self.tally.passes += 1
        self.tally.images += images.shape[0]
        with self._autocast(images), self._as_compiled():
            features: Tensor = self.backbone(images)
        return features.float() if self.precision == "bf16" else features

    def _autocast(self, images: Tensor) -> torch.autocast:
        return torch.autocast(images.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    def compile_training(self) -> None:
        """Have torch.compile compile the backbone for passes in train mode; copies of the network are not compiled.

        In eval mode it computes as without, so that a network predicts the same when it is kept and loaded again.
        """
        torch._dynamo.config.skip_nnmodule_hook_guards = False  # methods come and go with hooks
        self.backbone.compile()
        self._compiled = True

    def _as_compiled(self) -> AbstractContextManager[Any]:
        if self.training or not self._compiled:
            return nullcontext()
        eager: AbstractContextManager[Any] = torch.compiler.set_stance("force_eager")
        return eager

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, C, H, W) of images (B, 3, H, W), Eq. 2."""
        return self.logits(self.features(images), images.shape[-2:])

    def logits(self, features: Tensor, size: Sequence[int]) -> Tensor:
        """Return logits (B, C, H, W) of features (B, D, h, w) for images of a size (H, W)."""
        logits = self.head(features)
        return F.interpolate(logits, size=size, mode="bilinear", align_corners=False)

    def scores(self, images: Tensor) -> Tensor:
        """Return scores (B, outputs, H, W) of images (B, 3, H, W); the largest is the prediction."""
        return self.head.scores(self(images))

    def cell_scores(self, images: Tensor) -> Tensor:
        """Return the scores (B, outputs, h, w) of the feature map's cells; `scores` are these scaled, of most heads."""
        return self.head.scores(self.head(self.features(images)))

    def parts(self) -> dict[Part, list[nn.Parameter]]:
        """Return the parameters by part, each of them once; a part may have none.

        The head tells its own apart (`Head.part_of`).
        """
        names = tuple(f"{name}." for name in getattr(self.backbone, "pyramid_modules", ()))
        parts: dict[Part, list[nn.Parameter]] = {name: [] for name in get_args(Part)}
        for name, parameter in self.backbone.named_parameters():
            parts["pyramid" if name.startswith(names) else "backbone"].append(parameter)
        for name, parameter in self.head.named_parameters():
            parts[self.head.part_of(name)].append(parameter)
        return parts

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
