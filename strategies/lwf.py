"""LwF, learning without forgetting: cross-entropy, and distillation of the previous model's outputs."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from strategies.learning import offline_losses
from strategies.learning.method import Distilling
from strategies.learning.search import Search
from strategies.learning.strategy import Strategy
from strategies.networks.settings import STRICT


@dataclass(frozen=True, config=STRICT)
class LwfParameters:
    """Hyper-parameters of lwf."""

    distillation_weight: Annotated[
        float, Field(ge=0), Search(10.0, 1000.0, "ten times below and above 100 (MiB)", log=True)
    ] = 100.0
    """Weight of the distillation beside the cross-entropy; 100 in MiB's code."""


class Lwf(Distilling):
    """Cross-entropy with the step's labels + weight x distillation by the softmax over the previous outputs alone.

        L = -(1/N) Σ_i log p_i(y_i) - (λ / ON) Σ_i Σ_k q_i(k) log p'_i(k)

    over all N pixels i of the batch; q are the probabilities of the previous model's O outputs k, p' the softmax over
    the first O logits, λ `distillation_weight`.
    """

    citation: ClassVar[str] = "Li and Hoiem, Learning without Forgetting, ECCV 2016"
    Parameters = LwfParameters
    protocols: ClassVar[tuple[str, ...]] = ("offline",)
    resumable: ClassVar[bool] = True
    parameters: LwfParameters

    def loss(self, strategy: Strategy) -> Tensor:
        """Return cross-entropy + weight x distillation, means over all pixels."""
        logits = strategy.mb_output
        distillation = offline_losses.distillation(logits, self.old_logits(strategy.mb_x))
        cross_entropy = offline_losses.cross_entropy(logits, strategy.mb_y)
        return cross_entropy + self.parameters.distillation_weight * distillation
