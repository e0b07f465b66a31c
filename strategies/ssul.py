"""SSUL: an unknown class beside the background, pseudo labels of sure old classes, and nothing but heads is trained."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from benchmarks.labels import BACKGROUND, UNKNOWN, SaliencySource
from strategies.learning.method import Distilling
from strategies.learning.protocol import BaseRecipe
from strategies.learning.search import Search
from strategies.learning.strategy import Strategy
from strategies.learning.tiled_offline import one_vs_rest
from strategies.networks.grouped_head import GroupedHead
from strategies.networks.settings import STRICT, Part

FROZEN: Mapping[Part, float] = {"backbone": 0.0, "pyramid": 0.0, "classifier": 0.0}
"""What the increments do not train, as `EpochProtocol.lr_factors` has it."""


@dataclass(frozen=True, config=STRICT)
class SsulParameters:
    """Hyper-parameters of SSUL."""

    saliency: SaliencySource = "maps"
    """What of a step's background is of the unknown class: what files of saliency maps say (published for VOC), what
    the spectral residual says, a stand-in that is computed, or with `none` all of it (published for ADE20K)."""
    threshold: Annotated[float, Field(ge=0, le=1), Search(0.5, 0.95, "around 0.7 (code)")] = 0.7
    """From which sigmoid on the previous model's class is a pixel's pseudo label."""
    background_rate: Annotated[float, Field(ge=0), Search(1e-6, 1e-2, "a hundred times around 1e-4", log=True)] = 1e-4
    """By what the learning rate of the background's layers is multiplied in the increments."""


class Ssul(Distilling):
    """Binary cross-entropies with truth, saliency and pseudo labels; of the network the new head and the unknown's are
    trained, the background's at a small rate.

        L = (1/N) Σ_i Σ_k l(z_ik, [ỹ_i = k]),  l(z, t) = -t log σ(z) - (1-t) log(1-σ(z)), k the unknown class too
        ỹ_i = y_i where that is a class or void; else the previous model's largest output where that is a class and
              its sigmoid at least `threshold`; else unknown where i is salient; else background
        prediction  argmax of σ(z_0) + σ(z_unknown), σ(z_1), σ(z_2), ...

    The previous model only labels; there is no distillation. In `sequential` ỹ is y: an image tells every class seen.
    """

    citation: ClassVar[str] = (
        "Cha et al., SSUL: Semantic Segmentation with Unknown Label for Exemplar-based Class-Incremental Learning, "
        "NeurIPS 2021"
    )
    Parameters = SsulParameters
    protocols: ClassVar[tuple[str, ...]] = ("offline",)
    resumable: ClassVar[bool] = True
    parameters: SsulParameters

    @classmethod
    def recipe(cls, parameters: SsulParameters) -> BaseRecipe:
        """Return a head of groups, trained with the unknown class."""
        return BaseRecipe(head="grouped", loss="sigmoid-bce-unknown", saliency=parameters.saliency)

    def protocol_of(self, protocol: Any) -> Any:
        """Freeze all but the heads that learn, and BatchNorm everywhere."""
        rates = {**protocol.lr_factors, **FROZEN, "background": self.parameters.background_rate}
        return dataclasses.replace(protocol, lr_factors=rates, batchnorm="frozen")

    def grow(self, strategy: Strategy, outputs: int) -> None:
        """Freeze the previous step's model; the new outputs begin as the unknown class."""
        super().grow(strategy, outputs)
        head_of(strategy).start_as_unknown()

    def loss(self, strategy: Strategy) -> Tensor:
        """Return the binary cross-entropies: the sum over outputs, the unknown's too, the mean over non-void pixels."""
        logits, labels = strategy.mb_output, self.labels(strategy)
        return one_vs_rest(logits, labels.masked_fill(labels == UNKNOWN, logits.shape[1] - 1))

    def labels(self, strategy: Strategy) -> Tensor:
        """Return the annotation with the previous model's sure classes where it tells none, int64 (B, H, W).

        Where steps annotate every class seen so far (`sequential`) it tells all.
        """
        labels = self.annotation(strategy)
        if strategy.experience.annotates_all_seen:
            return labels
        sure = sure_classes(self.old_logits(strategy.mb_x), self.parameters.threshold)
        free = (labels == BACKGROUND) | (labels == UNKNOWN)
        return torch.where(free & (sure != BACKGROUND), sure, labels)

    def annotation(self, strategy: Strategy) -> Tensor:
        """Return the mini-batch's annotation, int64 (B, H, W)."""
        return strategy.mb_y


def head_of(strategy: Strategy) -> GroupedHead:
    """Return the network's head, which the method's recipe asks for."""
    head = strategy.network.head
    assert isinstance(head, GroupedHead)
    return head


def sure_classes(logits: Tensor, threshold: float) -> Tensor:
    """Return (B, H, W): a pixel's class where that has the largest sigmoid of all outputs, `threshold` or more.

    Else it is 0. `logits` (B, outputs + 1, H, W) are a `GroupedHead`'s.
    """
    best, place = logits.max(1)
    is_class = (place != BACKGROUND) & (place != logits.shape[1] - 1)
    return place.where(is_class & (best >= logit(threshold)), BACKGROUND)


def logit(probability: float) -> float:
    """Return the logit whose sigmoid a probability is."""
    if probability in (0, 1):
        return math.inf if probability else -math.inf
    return math.log(probability / (1 - probability))
