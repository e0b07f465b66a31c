"""SSUL-M: SSUL with exemplars of all classes, half of every batch."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from benchmarks.labels import BACKGROUND, UNKNOWN, VOID
from strategies.learning.exemplars import ChosenExemplars, shown_classes
from strategies.learning.memory import Exemplar
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


class SsulM(Ssul):
    """SSUL whose batches have images from memory at half of their places, drawn at random.

    They are chosen after each step, balanced over the classes that they show or are predicted to (OFFLINE, 1.4), and
    carry the truth of all classes seen so far.
    """

    citation: ClassVar[str] = Ssul.citation
    Parameters = SsulMParameters
    protocols: ClassVar[tuple[str, ...]] = ("offline",)
    resumable: ClassVar[bool] = True
    on_one_device: ClassVar[bool] = True
    parameters: SsulMParameters

    def __init__(self, parameters: SsulMParameters, memory_size: int, rng: np.random.Generator) -> None:
        super().__init__(parameters, memory_size, rng)
        self.rng = rng
        self.memory = ChosenExemplars(parameters.exemplars, rng)

    def fill(self, strategy: Strategy, exemplars: list[Exemplar], known_classes: int) -> None:
        """Choose among the base step's images by what is annotated in them."""
        self.memory.choose({exemplar: exemplar.classes for exemplar in exemplars})

    def after_training_exp(self, strategy: Strategy, *args: Any, **kwargs: Any) -> None:
        """Choose among the step's images and those in memory by what is annotated in them or predicted surely."""
        data, ids = strategy.experience.data, set(strategy.experience.data.ids)
        step = [data.exemplar(i) for i in range(len(data))]
        others = [exemplar for exemplar in self.memory.exemplars if exemplar.image_id not in ids]
        replayed = [exemplar.told_up_to(strategy.known_classes) for exemplar in others]
        sure = partial(sure_classes, threshold=self.parameters.threshold)
        shown = shown_classes(strategy, [*step, *replayed], sure)
        self.memory.choose(dict(zip([*step, *others], shown, strict=True)))

    def before_training_iteration(self, strategy: Strategy, *args: Any, **kwargs: Any) -> None:
        """Put images from memory at half of the batch's places."""
        count = len(strategy.mb_x)
        drawn = [e.told_up_to(strategy.known_classes) for e in self.memory.draw(count // 2)]
        if drawn:
            places = torch.from_numpy(self.rng.permutation(count)[: len(drawn)])
            strategy.replace(strategy.load(drawn), places.to(strategy.device))

    def annotation(self, strategy: Strategy) -> Tensor:
        """Return the mini-batch's annotation, of images from memory shifted where that is asked for."""
        if self.parameters.replayed == "corrected":
            return strategy.mb_y
        return torch.where(strategy.is_memory[:, None, None], shifted(strategy.mb_y), strategy.mb_y)

    def kept(self) -> int:
        """Return the number of images in memory."""
        return len(self.memory)

    def memory_bytes(self) -> int:
        """Return what the memory holds, in bytes."""
        return self.memory.bytes()

    def state_dict(self) -> dict[str, Any]:
        """Return the memory and the generator of the random choices."""
        return {"memory": self.memory.state_dict(), "rng": self.rng.bit_generator.state}

    def load_state_dict(self, strategy: Strategy, state: dict[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        self.memory.load_state_dict(state["memory"])
        self.rng.bit_generator.state = state["rng"]


def shifted(labels: Tensor) -> Tensor:
    """Return labels (B, H, W) as the published code's images from memory have them, one output too low."""
    lower = torch.where((labels == BACKGROUND) | (labels == UNKNOWN), UNKNOWN, labels - 1)
    return lower.where(labels != VOID, VOID)
