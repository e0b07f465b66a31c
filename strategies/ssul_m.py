"""SSUL-M: SSUL with exemplars of all classes, half of every batch."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from benchmarks.labels import BACKGROUND, UNKNOWN, VOID
from strategies.learning.exemplars import ExemplarMethod
from strategies.learning.strategy import Strategy
from strategies.networks.settings import STRICT
from strategies.ssul import Ssul, SsulParameters, sure_classes


@dataclass(frozen=True, config=STRICT)
class SsulMParameters(SsulParameters):
    """Hyper-parameters of SSUL-M."""

    exemplars: Annotated[int, Field(ge=1)] = 100
    """Images in memory: 100 published for VOC, 300 for ADE20K."""
    replayed: Literal["corrected", "shifted"] = "corrected"
    """How images from memory are labelled: with the truth of all classes seen, or, as in the published code, with that
    one output too low: class c trains that of c - 1, the first the background's, the background the unknown's."""


class SsulM(ExemplarMethod, Ssul):
    """SSUL whose batches have images from memory at half of their places, drawn at random.

    The loss is SSUL's. The images are chosen after each step, balanced over the classes that they show or are
    predicted to, and carry the truth of all classes seen so far.
    """

    citation: ClassVar[str] = Ssul.citation
    Parameters = SsulMParameters
    protocols: ClassVar[tuple[str, ...]] = ("offline",)
    resumable: ClassVar[bool] = True
    parameters: SsulMParameters

    def sure_classes(self, logits: Tensor) -> Tensor:
        """Return what would be a pseudo label."""
        return sure_classes(logits, self.parameters.threshold)

    def before_training_iteration(self, strategy: Strategy, *args: Any, **kwargs: Any) -> None:
        """Put images from memory at half of the batch's places."""
        count = len(strategy.mb_x)
        drawn = self.told(strategy, self.memory.draw(count // 2))
        if drawn:
            places = torch.from_numpy(self.rng.permutation(count)[: len(drawn)])
            strategy.replace(strategy.load(drawn), places)

    def annotation(self, strategy: Strategy) -> Tensor:
        """Return the mini-batch's annotation, of images from memory shifted where that is asked for."""
        if self.parameters.replayed == "corrected":
            return strategy.mb_y
        return torch.where(strategy.is_memory[:, None, None], shifted(strategy.mb_y), strategy.mb_y)


def shifted(labels: Tensor) -> Tensor:
    """Return labels (B, H, W) as the published code's images from memory have them, one output too low."""
    lower = torch.where((labels == BACKGROUND) | (labels == UNKNOWN), UNKNOWN, labels - 1)
    return lower.where(labels != VOID, VOID)
