"""latest: replay from a memory that keeps the images that came last."""

from typing import Annotated, Any, ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass

from strategies.memory import Exemplar, StreamMemory
from strategies.method import StreamReplay
from strategies.protocol import STRICT


@dataclass(frozen=True, config=STRICT)
class LatestParameters:
    every: Annotated[int, Field(ge=1)] = 1


class LatestMemory(StreamMemory):
    every = 1
    offered = 0

    def offer(self, exemplar: Exemplar, known_classes: int) -> None:
        self.offered += 1
        if self.offered % self.every == 0:
            self.exemplars = [*self.exemplars, exemplar][-self.size :]

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "offered": self.offered}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.offered = state["offered"]


class Latest(StreamReplay):
    citation: ClassVar[str] = "an example"
    Parameters = LatestParameters
    parameters: LatestParameters
    resumable: ClassVar[bool] = True

    def make_memory(self, size: int) -> StreamMemory:
        memory = LatestMemory(size, self.rng)
        memory.every = self.parameters.every
        return memory
