"""MiB, modelling the background; online MiB*, on incoming and memory images alike."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from strategies.learning.memory import Reservoir, StreamMemory
from strategies.learning.method import Distilling, StreamReplay
from strategies.learning.protocol import OfflineProtocol
from strategies.learning.search import Search
from strategies.learning.strategy import Strategy
from strategies.learning.tiled import unbiased_loss
from strategies.networks.heads import LinearHead, StepwiseHead
from strategies.networks.settings import STRICT

KD_WEIGHT = Search(1.0, 1000.0, "ten times below 10 (code) and above 100 (its author, for VOC 15-1)", log=True)


@dataclass(frozen=True, config=STRICT)
class MibParameters:
    """Hyper-parameters of MiB."""

    distillation_weight: Annotated[float, Field(ge=0), KD_WEIGHT] = 10.0
    """Weight of the distillation; 10 in the published code, 100 by its author for VOC 15-1."""


class Mib(Distilling, StreamReplay):
    """Unbiased cross-entropy and unbiased distillation from the previous step's frozen model [5].

        L = -(1/N) [ Σ_{y_i ≠ 0} log p_i(y_i) + Σ_{y_i = 0} log Σ_{c ∉ C_τ} p_i(c) ]
            - (λ / ON) Σ_i Σ_k q_i(k) log p'_i(k)
        p'(0) = p(0) + Σ_{c new} p(c),  p'(k) = p(k)
        start: w_c = w_0,  b_c = b_0 - log(n + 1) for the n new outputs c and for 0 itself

    q are the probabilities of the previous model's O outputs k, 0 is the background, λ `distillation_weight`. The
    per-image step tau, which '*' needs, takes the place of MiB's current step: C_τ are its classes.
    Online the terms are means over the pixels that are not void, offline over all, as in the published code.
    """

    citation: ClassVar[str] = "Cermelli et al., Modeling the Background for Incremental Learning, CVPR 2020"
    Parameters = MibParameters
    protocols: ClassVar[tuple[str, ...]] = ("online", "offline")
    resumable: ClassVar[bool] = True
    shares_batches: ClassVar[bool] = True
    parameters: MibParameters

    def make_memory(self, size: int) -> StreamMemory:
        """Return a reservoir."""
        return Reservoir(size, self.rng)

    def grow(self, strategy: Strategy, outputs: int) -> None:
        """Freeze the previous step's model, then append outputs that share the background's mass."""
        super().grow(strategy, outputs)
        if isinstance(strategy.network.head, LinearHead | StepwiseHead):
            share_background(strategy.network.head, outputs)

    def loss(self, strategy: Strategy) -> Tensor:
        """Return unbiased cross-entropy + weight x unbiased distillation."""
        old_logits, weight = self.old_logits(strategy.mb_x), self.parameters.distillation_weight
        offline = isinstance(strategy.protocol, OfflineProtocol)
        return unbiased_loss(strategy.mb_output, old_logits, strategy.mb_y, strategy.own, weight, over_all=offline)


def share_background(head: LinearHead | StepwiseHead, new: int) -> None:
    """MiB's initialisation: the last `new` outputs copy the background's weight, and their bias and the
    background's become b_background - log(new + 1), so that together they keep its probability.
    """
    weight, bias = head.weight.detach().clone(), head.bias.detach().clone()
    weight[-new:] = weight[0]
    bias[-new:] = bias[0] - math.log(new + 1)
    bias[0] = bias[0] - math.log(new + 1)
    head.set(weight, bias)
