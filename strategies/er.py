"""ER, experience replay: cross-entropy on incoming and memory images with the annotations they arrived with."""

from __future__ import annotations

from typing import ClassVar

from pydantic.dataclasses import dataclass

from strategies.learning.memory import Reservoir, StreamMemory
from strategies.learning.method import CrossEntropy, CrossEntropyParameters, StreamReplay
from strategies.networks.settings import STRICT


@dataclass(frozen=True, config=STRICT)
class ErParameters(CrossEntropyParameters):
    """er has no others beside the memory's size."""


class Er(CrossEntropy, StreamReplay):
    """Reservoir memory, uniform draws without replacement, cross-entropy on all images [8].

        L = -(1/N) Σ_i log p_i(y_i)

    over the N labelled pixels i of incoming and memory images, p the softmax of the logits, y the annotation that the
    image came with. After n images each is in the memory with probability size / n.
    """

    citation: ClassVar[str] = "Chaudhry et al., On Tiny Episodic Memories in Continual Learning, 2019"
    Parameters = ErParameters
    resumable: ClassVar[bool] = True
    shares_batches: ClassVar[bool] = True

    def make_memory(self, size: int) -> StreamMemory:
        """Return a reservoir."""
        return Reservoir(size, self.rng)
