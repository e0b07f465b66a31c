"""finetune, the lower reference: cross-entropy on the incoming images, no memory."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic.dataclasses import dataclass
from torch import Tensor

from strategies.learning import offline_losses
from strategies.learning.method import CrossEntropy, CrossEntropyParameters
from strategies.learning.protocol import OfflineProtocol
from strategies.learning.strategy import Strategy
from strategies.networks.settings import STRICT


@dataclass(frozen=True, config=STRICT)
class FinetuneParameters(CrossEntropyParameters):
    """finetune's default is the other one: without memory, `ignore` leaves nothing that holds the new classes back."""

    unlabelled: Literal["ignore", "background"] = "background"


class Finetune(CrossEntropy):
    """Cross-entropy on the incoming images alone: online its mean over the pixels that are not void, offline over all.

        L = -(1/N) Σ_i log p_i(y_i)

    over the N pixels i of the batch, p the softmax of the logits. Offline it is what the field's tables call FT.
    """

    citation: ClassVar[str] = "reference"
    Parameters = FinetuneParameters
    protocols: ClassVar[tuple[str, ...]] = ("online", "offline")
    resumable: ClassVar[bool] = True
    shares_batches: ClassVar[bool] = True

    def loss(self, strategy: Strategy) -> Tensor:
        """Return the cross-entropy of the mini-batch."""
        if not isinstance(strategy.protocol, OfflineProtocol):
            return super().loss(strategy)
        targets = self.targets(strategy, strategy.mb_y, strategy.mb_step)
        return offline_losses.cross_entropy(strategy.mb_output, targets)
