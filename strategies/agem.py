"""A-GEM: the incoming batch's gradient, projected so that the loss on a memory batch does not rise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor

from strategies.learning.losses import cross_entropy
from strategies.learning.memory import Reservoir, StreamMemory
from strategies.learning.method import CrossEntropy, CrossEntropyParameters, StreamReplay
from strategies.learning.strategy import Strategy
from strategies.networks.network import batch_statistics, trained_parameters
from strategies.networks.settings import STRICT


@dataclass(frozen=True, config=STRICT)
class AgemParameters(CrossEntropyParameters):
    """agem has no others beside the memory's size."""


class Agem(CrossEntropy, StreamReplay):
    """If g . g_ref < 0: g <- g - (g . g_ref / g_ref . g_ref) g_ref [7]; reservoir memory.

        g = ∇L(incoming),  g_ref = ∇L(memory),  L = -(1/N) Σ_i log p_i(y_i)

    The incoming pass moves BatchNorm's statistics; the memory pass normalises by its own batch and stores
    nothing.
    """

    citation: ClassVar[str] = "Chaudhry et al., Efficient Lifelong Learning with A-GEM, ICLR 2019"
    Parameters = AgemParameters
    resumable: ClassVar[bool] = True

    def make_memory(self, size: int) -> StreamMemory:
        """Return a reservoir."""
        return Reservoir(size, self.rng)

    def before_training_iteration(self, strategy: Strategy, *args: Any, **kwargs: Any) -> None:
        """Compute g_ref on a memory batch; the incoming images stay alone."""
        exemplars = self.draw(len(strategy.mb_x))
        self.reference: Sequence[Tensor] | None = None
        if exemplars:
            images, labels, steps, _ = strategy.load(exemplars)
            targets = self.targets(strategy, labels, steps)
            with batch_statistics(strategy.network):
                self.reference = strategy.gradient(cross_entropy(strategy.network(images), targets))

    def after_backward(self, strategy: Strategy, *args: Any, **kwargs: Any) -> None:
        """Project the incoming batch's gradient; it counts as 0 for a parameter that the batch does not reach."""
        if self.reference is not None:
            trained = trained_parameters(strategy.network).values()
            project([torch.zeros_like(p) if p.grad is None else p.grad for p in trained], self.reference)
            self.reference = None


def project(gradient: Sequence[Tensor], reference: Sequence[Tensor]) -> None:
    """Project `gradient` in place where it points against `reference`; both are lists of one shape."""
    with torch.no_grad():
        against, length = _dot(gradient, reference), _dot(reference, reference)
        if against < 0 < length:
            scale = against / length
            for g, r in zip(gradient, reference, strict=True):
                g.sub_(scale * r)


def _dot(one: Sequence[Tensor], other: Sequence[Tensor]) -> Tensor:
    return torch.stack([(a * b).sum() for a, b in zip(one, other, strict=True)]).sum()
