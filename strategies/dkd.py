"""DKD: no background output; the previous model's logits are distilled, and the parts that add up to them."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor
from torch.nn import functional as F

from strategies.learning.method import Distilling
from strategies.learning.offline_losses import sigmoid_distillation
from strategies.learning.protocol import BaseRecipe
from strategies.learning.search import Search
from strategies.learning.strategy import Strategy
from strategies.learning.tiled_offline import labels_and_distillation
from strategies.networks.features import LastFeatures
from strategies.networks.heads import AuxiliaryHead, StepwiseAuxiliaryHead
from strategies.networks.network import SegmentationNetwork
from strategies.networks.settings import STRICT

Weight = Annotated[float, Field(ge=0), Search(0.5, 50.0, "ten times below and above 5 (configuration)", log=True)]


@dataclass(frozen=True, config=STRICT)
class DkdParameters:
    """Hyper-parameters of DKD; the defaults are those of the published configuration for VOC."""

    base_positive_weight: Annotated[float, Field(gt=0)] = 2.0
    """How often a pixel counts for its own class in the base step; 35 for ADE20K."""
    positive_weight: Annotated[float, Field(gt=0), Search(0.5, 50.0, "around 1 and 35 (ADE20K)", log=True)] = 1.0
    """The same in the increments; 35 for ADE20K."""
    distillation_weight: Weight = 5.0
    """Weight of the distillation of the old classes' logits."""
    positive_part_weight: Weight = 5.0
    """Weight of the distillation of what raises these."""
    negative_part_weight: Weight = 5.0
    """Weight of the distillation of what lowers them."""


class Dkd(Distilling):
    """Binary cross-entropies of the step's classes, and distillations of the old ones' logits z = z+ + z- + b and of
    their parts z+ and z-, which come from the classifier's weights above and below 0.

        L = m[ Σ_{c new} l(z_c, [y = c]) + l(a, 0) + λ Σ_{c old} l(z_c, σ(ẑ_c)) ]
            + M[ Σ_{c old} λ+ l(z+_c, σ(ẑ+_c)) + λ- l(z-_c, σ(ẑ-_c)) ]
        z+_c = Σ_k max(w_ck, 0) f_k,  z-_c = Σ_k min(w_ck, 0) f_k,  l(z, t) = -t log σ(z) - (1-t) log(1-σ(z))

    m is a mean over the batch's pixels, M over the cells of the features f. An auxiliary classifier a on detached
    features learns to be 0 everywhere; new classifiers begin as copies of it. A pixel counts `positive_weight` times
    for its own class; void ones count as a negative of every class with `data.void=negative` and not at all without. A
    pixel is background where no sigmoid is above 1/2. In `sequential`, where images tell old classes, these learn from
    the labels too.
    """

    citation: ClassVar[str] = (
        "Baek et al., Decomposed Knowledge Distillation for Class-Incremental Semantic Segmentation, NeurIPS 2022"
    )
    Parameters = DkdParameters
    protocols: ClassVar[tuple[str, ...]] = ("offline",)
    void_is_negative: ClassVar[bool] = True
    resumable: ClassVar[bool] = True
    parameters: DkdParameters

    @classmethod
    def recipe(cls, parameters: DkdParameters) -> BaseRecipe:
        """Return a head with an auxiliary classifier, trained by binary cross-entropies of the classes."""
        return BaseRecipe(head="auxiliary", loss="classes-bce", positive_weight=parameters.base_positive_weight)

    def grow(self, strategy: Strategy, outputs: int) -> None:
        """Freeze the previous step's model; the new outputs begin as the auxiliary one."""
        super().grow(strategy, outputs)
        start_as_auxiliary(head_of(strategy.network), outputs)

    def before_training_exp(self, strategy: Strategy, *args: Any, **kwargs: Any) -> None:
        """Have the network leave its features."""
        self.features = LastFeatures(strategy.network)

    def after_training_exp(self, strategy: Strategy, *args: Any, **kwargs: Any) -> None:
        """Leave the network as it was."""
        self.features.detach()

    def loss(self, strategy: Strategy) -> Tensor:
        """Return the loss of the mini-batch: each term a mean over all its pixels, of the parts over the features'."""
        images, known, p = strategy.mb_x, self.old.outputs, self.parameters
        with torch.no_grad():
            old_features = self.old.features(images)
            old_logits = self.old.logits(old_features, images.shape[-2:])
        given = p.distillation_weight, p.positive_weight, strategy.void_is_negative, self.telling_old(strategy)
        loss = labels_and_distillation(strategy.mb_output, old_logits, strategy.mb_y, *given)
        new_parts = parts(self.features(), head_of(strategy.network).weight[1:known])
        old_parts = parts(old_features, head_of(self.old).weight[1:])
        weights = p.positive_part_weight, p.negative_part_weight
        for weight, new, old in zip(weights, new_parts, old_parts, strict=True):
            loss = loss + weight * sigmoid_distillation(new, old)
        return loss

    def telling_old(self, strategy: Strategy) -> Tensor | None:
        """Return of which images of the mini-batch, bool (B,), old classes learn from labels too; None if of none.

        Of all where steps annotate every class seen so far (`sequential`).
        """
        labels = strategy.mb_y
        return labels.new_ones(len(labels), dtype=torch.bool) if strategy.experience.annotates_all_seen else None


def parts(features: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return z+ and z- (B, n, h, w) of features (B, D, h, w): what weights (n, D) above and below 0 give of a logit."""
    kernel = weight[:, :, None, None]
    return F.conv2d(features, kernel.clamp(min=0)), F.conv2d(features, kernel.clamp(max=0))


def head_of(network: SegmentationNetwork) -> AuxiliaryHead | StepwiseAuxiliaryHead:
    """Return the network's head, which the method's recipe asks for."""
    assert isinstance(network.head, AuxiliaryHead | StepwiseAuxiliaryHead)
    return network.head


def start_as_auxiliary(head: AuxiliaryHead | StepwiseAuxiliaryHead, new: int) -> None:
    """Make copies of the auxiliary output, weight and bias, of the last `new` outputs."""
    weight, bias = head.weight.detach().clone(), head.bias.detach().clone()
    weight[-new:], bias[-new:] = weight[0], bias[0]
    head.set(weight, bias)
