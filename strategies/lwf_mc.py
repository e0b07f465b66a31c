"""LwF.MC*: sigmoid outputs; the previous model's for known classes, the label map for new ones."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic.dataclasses import dataclass
from torch import Tensor

from benchmarks.labels import BACKGROUND, VOID
from strategies.learning.losses import binary_cross_entropy, one_hot
from strategies.learning.memory import Reservoir, StreamMemory
from strategies.learning.method import Distilling, StreamReplay
from strategies.learning.protocol import BaseRecipe
from strategies.learning.strategy import Strategy
from strategies.networks.settings import STRICT


@dataclass(frozen=True, config=STRICT)
class LwfMcParameters:
    """lwf-mc has no hyper-parameters beside the memory's size."""


class LwfMc(Distilling, StreamReplay):
    """Per-class binary cross-entropy on incoming and memory images alike [28, 19]; reservoir memory."""

    citation: ClassVar[str] = (
        "Rebuffi et al., iCaRL, CVPR 2017 (LwF.MC); Li and Hoiem, Learning without Forgetting, 2016"
    )
    Parameters: ClassVar[type[Any]] = LwfMcParameters
    resumable: ClassVar[bool] = True

    @classmethod
    def recipe(cls, parameters: Any) -> BaseRecipe:
        """Ask for a base model trained with per-class binary cross-entropy."""
        return BaseRecipe(loss="sigmoid-bce")

    def make_memory(self, size: int) -> StreamMemory:
        """Return a reservoir."""
        return Reservoir(size, self.rng)

    def loss(self, strategy: Strategy) -> Tensor:
        """Return the binary cross-entropy with `lwf_targets`."""
        logits, labels = strategy.mb_output, strategy.mb_y
        targets = lwf_targets(self.old_logits(strategy.mb_x), labels, logits.shape[1])
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
