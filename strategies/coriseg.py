"""CoRiSeg: cross-entropy on all images, distillation on memory images, exemplars chosen by confidence."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from strategies.learning.losses import class_confidences, distillation
from strategies.learning.memory import ConfidenceMemory, Exemplar
from strategies.learning.method import CrossEntropy, CrossEntropyParameters, Distilling, Replay
from strategies.learning.search import Search
from strategies.learning.strategy import Strategy
from strategies.networks.settings import STRICT


@dataclass(frozen=True, config=STRICT)
class CorisegParameters(CrossEntropyParameters):
    """Hyper-parameters of CoRiSeg."""

    distillation_weight: Annotated[
        float, Field(ge=0), Search(0.1, 10.0, "ten times below and above 1 (choice)", log=True)
    ] = 1.0
    """Weight of the distillation beside the cross-entropy (choice)."""


class Coriseg(CrossEntropy, Distilling, Replay):
    """Cross-entropy on incoming and memory images, distillation from the previous step's model on memory
    images [24]; the memory keeps, balanced over classes, the images that are predicted most confidently
    when they arrive.

        L = -(1/N) Σ_i log p_i(y_i) - (λ/M) Σ_{i in memory images} Σ_k q_i(k) log p'_i(k)

    q are the probabilities of the previous model's outputs k, p' the softmax over these outputs alone, λ
    `distillation_weight`. The distillation is on unlabelled pixels too, whatever the cross-entropy makes of these:
    there it is what keeps the known classes (choice).
    """

    citation: ClassVar[str] = "Ozdemir et al., Learn the New, Keep the Old, MICCAI 2018 (CoRiSeg [24])"
    Parameters = CorisegParameters
    resumable: ClassVar[bool] = True
    parameters: CorisegParameters
    memory: ConfidenceMemory

    def make_memory(self, size: int) -> ConfidenceMemory:
        """Return a memory that ranks a class's images by the confidence they arrived with."""
        return ConfidenceMemory(size, self.rng)

    def fill(self, strategy: Strategy, exemplars: list[Exemplar], known_classes: int) -> None:
        """Offer the base step's images with the base model's confidence."""
        for chunk, images, labels in strategy.inspected(exemplars):
            self._offer(chunk, strategy.network(images), labels)

    def after_training_iteration(self, strategy: Strategy, *args: Any, **kwargs: Any) -> None:
        """Offer the incoming images with the confidence of the pass that met them."""
        self._offer(strategy.incoming(), strategy.mb_output.detach(), strategy.mb_y)

    def _offer(self, exemplars: list[Exemplar], logits: Tensor, labels: Tensor) -> None:
        log_p = logits.log_softmax(1)
        for i, exemplar in enumerate(exemplars):
            means, _ = class_confidences(log_p[i : i + 1], labels[i : i + 1])
            self.memory.offer(exemplar, {c: float(means[c]) for c in exemplar.classes})

    def loss(self, strategy: Strategy) -> Tensor:
        """Return cross-entropy + weight x distillation on the memory images."""
        logits, labels = strategy.mb_output, strategy.mb_y
        loss = super().loss(strategy)
        kept = strategy.is_memory
        if kept.any():
            old_logits = self.old_logits(strategy.mb_x[kept])
            loss = loss + self.parameters.distillation_weight * distillation(logits[kept], old_logits, labels[kept])
        return loss
