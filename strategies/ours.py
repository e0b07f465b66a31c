"""ours: the EM method (Sec. 3.3 and 3.4, Algorithms 1 and 2) with each of its parts a switch (Table 4)."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from strategies.learning.copies import ArrivingCopy
from strategies.learning.losses import class_confidences, composite_loss, relabel
from strategies.learning.memory import POLICIES, Exemplar, StreamMemory
from strategies.learning.method import CrossEntropy, CrossEntropyParameters, Method, StreamReplay
from strategies.learning.protocol import BaseRecipe
from strategies.learning.search import Search
from strategies.learning.strategy import Strategy
from strategies.learning.tiled import em_loss
from strategies.networks.network import evaluation_mode
from strategies.networks.settings import STRICT


@dataclass(frozen=True, config=STRICT)
class OursParameters(CrossEntropyParameters):
    """Hyper-parameters of the EM method; the defaults are the paper's for VOC (Sec. 4.2).

    `unlabelled` is of the cross-entropy alone: the composite loss has its own answer.
    """

    delta: Annotated[
        float, Field(ge=0, le=1), Search(0.5, 0.95, "around 0.8 (Sec. 4.2, 4.3)", when=("loss", "composite"))
    ] = 0.8
    """Probability above which a pixel is relabelled (E-step)."""
    gamma: Annotated[
        float,
        Field(ge=0),
        Search(0.02, 2.0, "around 0.5 for VOC, 0.1 for ADE20K (Sec. 4.2, 4.3)", log=True, when=("loss", "composite")),
    ] = 0.5
    """Weight of the latent term of the composite loss (Eq. 7)."""
    eta: Annotated[
        float,
        Field(ge=0),
        Search(0.1, 30.0, "around 1 for VOC, 10 for ADE20K (Sec. 4.2, 4.3)", log=True, when=("sampling", "dynamic")),
    ] = 1.0
    """Peakiness of the class sampling (Eq. 5)."""
    mu: Annotated[
        float, Field(ge=0, le=1), Search(0.5, 0.99, "around 0.9 (Sec. 4.2, 4.3)", when=("sampling", "dynamic"))
    ] = 0.9
    """Momentum of the class confidences (Eq. 3)."""
    tau: Annotated[float, Field(gt=0)] = 12.0
    """Temperature of the cosine head (Eq. 8)."""
    memory: Literal["cbes", "reservoir"] = "cbes"
    """Class-balanced exemplar selection (Algorithm 2), or a reservoir."""
    loss: Literal["composite", "cross-entropy"] = "composite"
    """Eq. 7 on relabelled pixels, or the cross-entropy with the annotations alone."""
    head: Literal["cosine", "linear"] = "cosine"
    """Eq. 8, or a linear classifier."""
    sampling: Literal["dynamic", "uniform"] = "dynamic"
    """Memory images by Eq. 5 with replacement, or uniformly without."""
    e_step: Literal["shared", "separate"] = "shared"
    """Whether the M-step's forward pass serves the E-step too, or one of its own in eval mode does."""


class Ours(CrossEntropy, StreamReplay):
    """Dynamic sampling, E-step, M-step, class-balanced memory: one update per incoming batch.

        E(c) ← μ E(c) + (1-μ) mean of p_i(c) over the batch's pixels i annotated c                  (3, 4)
        P_s(c) ∝ exp(-η E(c)), c a class in memory: draw a class, then one of its images            (5)
        ỹ_i = argmax p_i(c) over c ∉ C_τ where i is unlabelled and that is above δ, else none       (6)
        L = -(1/N) [ Σ_i log p_i(ỹ_i) + γ Σ_{i unlabelled} log Σ_{c ∉ C_τ} p_i(c) ]                 (7)
        z_ic = τ cos(f_i, w_c)                                                                      (8)

    C_τ are the classes of the step at which the image was annotated, ỹ = y where it is; N counts the pixels that are
    not void, f are features and w the head's weights. In (8) τ is the temperature `tau`.
    """

    citation: ClassVar[str] = "An EM Framework for Online Incremental Learning of Semantic Segmentation, ACM MM 2021"
    Parameters = OursParameters
    resumable: ClassVar[bool] = True
    shares_batches: ClassVar[bool] = True
    parameters: OursParameters

    def __init__(self, parameters: OursParameters, memory_size: int, rng: np.random.Generator) -> None:
        super().__init__(parameters, memory_size, rng)
        self._confidence = np.zeros(0)
        self._of_batch: tuple[ArrivingCopy, ArrivingCopy] | None = None

    @property
    def confidence(self) -> np.ndarray:
        """E(c) by output (Eq. 3), the last batch's confidences in it: reading it waits for them to come."""
        if self._of_batch is not None:
            means, pixels = (copy.value().numpy() for copy in self._of_batch)
            mu, self._of_batch = self.parameters.mu, None
            moved = mu * self._confidence + (1 - mu) * means
            self._confidence = np.where(pixels > 0, moved, self._confidence)
        return self._confidence

    @confidence.setter
    def confidence(self, confidence: np.ndarray) -> None:
        self._confidence, self._of_batch = confidence, None

    @classmethod
    def recipe(cls, parameters: OursParameters) -> BaseRecipe:
        """Ask for a base model with the head that the increments use."""
        if parameters.head == "linear":
            return BaseRecipe()
        return BaseRecipe(head="cosine", tau=parameters.tau)

    def make_memory(self, size: int) -> StreamMemory:
        """Return a memory under CBES (Algorithm 2), or a reservoir."""
        return POLICIES[self.parameters.memory](size, self.rng)

    def before_training_exp(self, strategy: Strategy, *args: Any, **kwargs: Any) -> None:
        """E(c) is 0 when class c starts, at step 1 for the base classes too."""
        known = self.confidence
        self.confidence = np.zeros(strategy.network.outputs)
        self.confidence[: len(known)] = known

    def draw(self, count: int) -> list[Exemplar]:
        """Draw a class from P_s (Eq. 5), then one of its exemplars uniformly; `count` times, with replacement."""
        if self.parameters.sampling == "uniform":
            return self.memory.draw(count)
        classes = sorted({c for e in self.memory.exemplars for c in e.classes})
        if not classes:
            return []
        p = sampling_probabilities(self.confidence[classes], self.parameters.eta)
        return [self._exemplar_of(int(self.rng.choice(classes, p=p))) for _ in range(count)]

    def _exemplar_of(self, c: int) -> Exemplar:
        return self.memory.exemplars[int(self.rng.choice(self.memory.holding(c)))]

    def before_forward(self, strategy: Strategy, *args: Any, **kwargs: Any) -> None:
        """Make the E-step's own pass, before the M-step's has moved BatchNorm's statistics."""
        if self.parameters.e_step == "separate":
            with torch.no_grad(), evaluation_mode(strategy.network):
                self._separate: Tensor = strategy.network(strategy.mb_x).log_softmax(1)

    def loss(self, strategy: Strategy) -> Tensor:
        """Return the M-step's loss (Eq. 7) on labels that the E-step filled in (Eq. 6)."""
        p, logits, labels, own = self.parameters, strategy.mb_output, strategy.mb_y, strategy.own
        if p.e_step == "shared" and p.loss == "composite":
            loss, *confidences = em_loss(logits, labels, own, p.delta, p.gamma)
            self._update_confidence(*strategy.devices.pooled(*confidences))
            return loss
        posterior = logits.detach().log_softmax(1) if p.e_step == "shared" else self._separate
        self._update_confidence(*strategy.devices.pooled(*class_confidences(posterior, labels)))
        if p.loss == "cross-entropy":
            return super().loss(strategy)
        relabelled = relabel(posterior, labels, own, p.delta)
        return composite_loss(logits.log_softmax(1), labels, relabelled, own, p.gamma)

    def counted_pixels(self, strategy: Strategy) -> Tensor:
        """Return the number of pixels that the loss is a mean over: of the composite loss all but void ones."""
        if self.parameters.loss == "cross-entropy":
            return super().counted_pixels(strategy)
        return Method.counted_pixels(self, strategy)

    def _update_confidence(self, of_batch: Tensor, counted: Tensor) -> None:
        """Take a batch's confidences (Eq. 4) and numbers of pixels in; classes absent from it keep E(c)."""
        self._confidence = self.confidence
        self._of_batch = ArrivingCopy(of_batch), ArrivingCopy(counted)

    def state_dict(self) -> dict[str, Any]:
        """Return the memory and E(c)."""
        return {**super().state_dict(), "confidence": self.confidence}

    def load_state_dict(self, strategy: Strategy, state: dict[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        super().load_state_dict(strategy, state)
        self.confidence = state["confidence"]


def sampling_probabilities(confidence: np.ndarray, eta: float) -> np.ndarray:
    """Eq. 5: softmax of -eta E(c) over the classes given, float (classes,)."""
    scores = np.exp(-eta * (confidence - confidence.min()))
    return np.asarray(scores / scores.sum())
