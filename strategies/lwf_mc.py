"""LwF.MC: sigmoid outputs; what the labels and the previous model say is one target online and two terms offline."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic.dataclasses import dataclass
from torch import Tensor

from benchmarks.labels import BACKGROUND, VOID
from strategies.learning import offline_losses
from strategies.learning.losses import binary_cross_entropy, one_hot
from strategies.learning.memory import Reservoir, StreamMemory
from strategies.learning.method import Distilling, StreamReplay
from strategies.learning.protocol import BaseRecipe, OfflineProtocol
from strategies.learning.strategy import Strategy
from strategies.networks.settings import STRICT

OFFLINE_WEIGHT = 10.0
"""Of the distillation beside the cross-entropy with the labels, in MiB's code."""


@dataclass(frozen=True, config=STRICT)
class LwfMcParameters:
    """lwf-mc has no hyper-parameters beside the memory's size."""


class LwfMc(Distilling, StreamReplay):
    """Per-class binary cross-entropy on incoming and memory images alike [28, 19]; reservoir memory.

        l(z, t) = -t log σ(z) - (1-t) log(1-σ(z))
        online   L = (1/N) Σ_i [ Σ_{c known} l(z_ic, σ(ẑ_ic)) + Σ_{c new} l(z_ic, [y_i = c]) ]
        offline  L = (1/N) Σ_i [ Σ_c l(z_ic, [y_i = c]) + 10 Σ_{c known} l(z_ic, σ(ẑ_ic)) ]

    Online the previous model's sigmoids σ(ẑ) replace the label map for the classes it knows, as in iCaRL's paper; the
    background's, one of them, is 0 on annotated pixels. Offline both act on these outputs: it is the loss of the LwF-MC
    in the tables of MiB and of what followed it.
    """

    citation: ClassVar[str] = (
        "Rebuffi et al., iCaRL, CVPR 2017 (LwF.MC); Li and Hoiem, Learning without Forgetting, 2016"
    )
    Parameters: ClassVar[type[Any]] = LwfMcParameters
    protocols: ClassVar[tuple[str, ...]] = ("online", "offline")
    resumable: ClassVar[bool] = True
    shares_batches: ClassVar[bool] = True

    @classmethod
    def recipe(cls, parameters: Any) -> BaseRecipe:
        """Ask for a base model trained with per-class binary cross-entropy."""
        return BaseRecipe(loss="sigmoid-bce")

    def make_memory(self, size: int) -> StreamMemory:
        """Return a reservoir."""
        return Reservoir(size, self.rng)

    def loss(self, strategy: Strategy) -> Tensor:
        """Return the binary cross-entropy with `lwf_targets`; offline with the labels + 10 x with the old sigmoids."""
        logits, labels, old_logits = strategy.mb_output, strategy.mb_y, self.old_logits(strategy.mb_x)
        if isinstance(strategy.protocol, OfflineProtocol):
            distillation = offline_losses.sigmoid_distillation(logits, old_logits)
            return offline_losses.one_vs_rest(logits, labels) + OFFLINE_WEIGHT * distillation
        targets = lwf_targets(old_logits, labels, logits.shape[1])
        return binary_cross_entropy(logits, targets, labels)


def lwf_targets(old_logits: Tensor, labels: Tensor, outputs: int) -> Tensor:
    """Return targets (B, C, H, W): the old model's sigmoids for the classes it knows, the label map for new ones.

    The background's is the old model's too, but 0 on annotated pixels (METHODS, lwf-mc).
    """
    targets = one_hot(labels, outputs, old_logits.dtype)
    old = old_logits.sigmoid()
    targets[:, : old.shape[1]] = old
    annotated = (labels != BACKGROUND) & (labels != VOID)
    targets[:, BACKGROUND] = old[:, BACKGROUND].masked_fill(annotated, 0.0)
    return targets
