"""DKD-M: DKD with exemplars of all classes beside each step's images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from benchmarks.labels import BACKGROUND
from strategies.dkd import Dkd, DkdParameters
from strategies.learning.exemplars import ExemplarMethod
from strategies.learning.memory import Exemplar
from strategies.learning.search import Search
from strategies.learning.strategy import Strategy
from strategies.networks.settings import STRICT


@dataclass(frozen=True, config=STRICT)
class DkdMParameters(DkdParameters):
    """Hyper-parameters of DKD-M."""

    exemplars: Annotated[int, Field(ge=1)] = 100
    """Images in memory: 100 published for VOC, 300 for ADE20K."""
    threshold: Annotated[float, Field(ge=0, le=1), Search(0.5, 0.99, "around 0.9 (code)")] = 0.9
    """From which sigmoid on an image is thought to show a class that is not annotated in it."""
    replayed: Literal["corrected", "erased"] = "corrected"
    """How images from memory are labelled: with the truth of all classes seen, or, as in the published code, with that
    of the step's new classes alone, the old ones being erased."""

    @property
    def images_beside(self) -> int:
        """How many images join a step's own in each epoch."""
        return self.exemplars


class DkdM(ExemplarMethod, Dkd):
    """DKD whose epochs pass over the images in memory as over the step's own.

        L = L_DKD + m[ Σ_{c old} l(z_c, [y = c]) ], the mean's sum over images from memory alone (in `sequential` all)

    The images are chosen after each step, balanced over the classes that they show or are predicted to. The
    old classes learn from their labels beside the distillation, unless these are erased.
    """

    citation: ClassVar[str] = Dkd.citation
    Parameters = DkdMParameters
    protocols: ClassVar[tuple[str, ...]] = ("offline",)
    resumable: ClassVar[bool] = True
    parameters: DkdMParameters

    def beside(self, strategy: Strategy) -> Sequence[Exemplar]:
        """Return the images in memory."""
        return self.told(strategy, self.memory.exemplars)

    def sure_classes(self, logits: Tensor) -> Tensor:
        """Return the class of the largest sigmoid if that is `threshold` or more."""
        best, place = logits[:, 1:].max(1)
        return (place + 1).where(best.sigmoid() >= self.parameters.threshold, BACKGROUND)

    def telling_old(self, strategy: Strategy) -> Tensor | None:
        """Return which images are from memory, or by their annotation tell old classes; without those from memory where
        their labels of old classes are erased.
        """
        annotated, erased = super().telling_old(strategy), self.parameters.replayed == "erased"
        if annotated is None:
            return None if erased else strategy.is_memory
        return ~strategy.is_memory if erased else annotated
