"""iCaRL: trained as lwf-mc, exemplars by herding, prediction by the nearest class mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor
from torch.nn import functional as F

from benchmarks.labels import VOID
from strategies.learning.losses import binary_cross_entropy
from strategies.learning.memory import Exemplar, HerdingMemory
from strategies.learning.method import Distilling, Replay
from strategies.learning.protocol import BaseRecipe
from strategies.learning.strategy import Strategy
from strategies.lwf_mc import lwf_targets
from strategies.networks.heads import LinearHead
from strategies.networks.network import evaluation_mode
from strategies.networks.settings import STRICT


@dataclass(frozen=True, config=STRICT)
class IcarlParameters:
    """icarl has no hyper-parameters beside the memory's size."""


class Icarl(Distilling, Replay):
    """LwF.MC's loss; herding on the image's mean class features; the nearest class mean by cosine [28].

        prediction  argmax_c cos(f_i, μ_c),  μ_c the mean of f_i / |f_i| over the memory's pixels annotated c
        herding     next of class c: argmin_x | m_c - (f̄_c(x) + Σ f̄_c(taken)) / (taken + 1) |

    Features are L2-normalised per pixel, f̄_c(x) is an image's mean, m_c the stream's. Class means come from the
    exemplars' annotated pixels, the background's from their label-0 pixels; they are computed anew after each step.
    """

    citation: ClassVar[str] = "Rebuffi et al., iCaRL: Incremental Classifier and Representation Learning, CVPR 2017"
    Parameters = IcarlParameters
    resumable: ClassVar[bool] = True
    memory: HerdingMemory
    means: Tensor

    @classmethod
    def recipe(cls, parameters: Any) -> BaseRecipe:
        """Ask for a base model trained with per-class binary cross-entropy."""
        return BaseRecipe(loss="sigmoid-bce")

    def make_memory(self, size: int) -> HerdingMemory:
        """Return a memory that herds."""
        return HerdingMemory(size, self.rng)

    def fill(self, strategy: Strategy, exemplars: list[Exemplar], known_classes: int) -> None:
        """Offer the base step's images with the base model's features."""
        for chunk, images, labels in strategy.inspected(exemplars):
            self._offer(chunk, strategy.network.features(images), labels)
        self.means = self._class_means(strategy)

    def after_training_iteration(self, strategy: Strategy, *args: Any, **kwargs: Any) -> None:
        """Offer the incoming images with the features of the updated network."""
        exemplars = strategy.incoming()
        images = strategy.mb_x[: len(exemplars)]
        with torch.no_grad(), evaluation_mode(strategy.network):
            self._offer(exemplars, strategy.network.features(images), strategy.mb_y)

    def after_training_exp(self, strategy: Strategy, *args: Any, **kwargs: Any) -> None:
        """Compute the class means anew."""
        with torch.no_grad(), evaluation_mode(strategy.network):
            self.means = self._class_means(strategy)

    def loss(self, strategy: Strategy) -> Tensor:
        """Return the binary cross-entropy of lwf-mc."""
        logits, labels = strategy.mb_output, strategy.mb_y
        targets = lwf_targets(self.old_logits(strategy.mb_x), labels, logits.shape[1])
        return binary_cross_entropy(logits, targets, labels)

    def predict(self, strategy: Strategy) -> Tensor:
        """Return the cosine (B, C, H, W) of each pixel's feature to each class mean, upsampled."""
        scores = nearest_mean_scores(strategy.network.features(strategy.mb_x), self.means)
        return F.interpolate(scores, size=strategy.mb_x.shape[-2:], mode="bilinear", align_corners=False)

    def prediction_state(self) -> dict[str, Tensor]:
        """Return the class means."""
        return {"means": self.means}

    def load_prediction_state(self, state: Mapping[str, Tensor]) -> None:
        """Take over what `prediction_state` returned."""
        self.means = state["means"]

    def state_dict(self) -> dict[str, Any]:
        """Return the memory and the class means."""
        return {**super().state_dict(), "means": self.means}

    def load_state_dict(self, strategy: Strategy, state: dict[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        super().load_state_dict(strategy, state)
        self.means = state["means"].to(strategy.device)

    def _offer(self, exemplars: list[Exemplar], features: Tensor, labels: Tensor) -> None:
        outputs = 1 + int(max([0, *(c for e in exemplars for c in e.classes)]))
        for i, exemplar in enumerate(exemplars):
            sums, pixels = class_sums(features[i : i + 1], labels[i : i + 1], outputs)
            there = [c for c in sorted(exemplar.classes) if pixels[c] > 0]
            means = {c: (sums[c] / pixels[c]).cpu().numpy() for c in there}
            self.memory.offer(exemplar, means, {c: int(pixels[c]) for c in there})

    def _class_means(self, strategy: Strategy) -> Tensor:
        """Return (C, D), the normalised mean feature of each output's pixels in memory, NaN where it has none."""
        head = strategy.network.head
        assert isinstance(head, LinearHead)
        outputs, channels = head.weight.shape
        sums, pixels = torch.zeros(outputs, channels), torch.zeros(outputs)
        for _, images, labels in strategy.inspected(self.memory.exemplars):
            more, count = class_sums(strategy.network.features(images), labels, outputs)
            sums, pixels = sums.to(more) + more, pixels.to(count) + count
        means = F.normalize(sums, dim=1)
        means[pixels == 0] = torch.nan
        return means


def class_sums(features: Tensor, labels: Tensor, outputs: int) -> tuple[Tensor, Tensor]:
    """Return per output the sum (C, D) of normalised features of its pixels and their number (C,).

    `features` are (B, D, h, w), a cell's label is that of `labels` (B, H, W) at its centre, about which
    scores are upsampled too; void is left out.
    """
    small = F.interpolate(labels[:, None].float(), size=features.shape[-2:], mode="nearest-exact")[:, 0].long()
    counted = (small != VOID) & (small < outputs)
    which = small[counted]
    vectors = F.normalize(features, dim=1).permute(0, 2, 3, 1)[counted]
    sums = torch.zeros(outputs, features.shape[1], dtype=features.dtype, device=features.device)
    return sums.index_add_(0, which, vectors), torch.bincount(which, minlength=outputs)


def nearest_mean_scores(features: Tensor, means: Tensor) -> Tensor:
    """Return the cosine (B, C, h, w) of features (B, D, h, w) to means (C, D), -1 to a mean that is NaN."""
    scores = F.conv2d(F.normalize(features, dim=1), means.nan_to_num()[:, :, None, None])
    return scores.masked_fill(means.isnan().any(1)[:, None, None], -1.0)
