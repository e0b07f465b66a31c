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
    """Reservoir memory, uniform draws without replacement, cross-entropy on all images [8]."""

    citation: ClassVar[str] = "Chaudhry et al., On Tiny Episodic Memories in Continual Learning, 2019"
    Parameters = ErParameters
    resumable: ClassVar[bool] = True

    def make_memory(self, size: int) -> StreamMemory:
        """Return a reservoir."""
        return Reservoir(size, self.rng)
