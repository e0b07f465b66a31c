"""What a continual-learning method is here: an Avalanche plugin with a loss, a base recipe, a citation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from avalanche.core import SupervisedPlugin
from torch import Tensor

from strategies.losses import cross_entropy
from strategies.memory import Exemplar, Memory
from strategies.protocol import BaseRecipe

if TYPE_CHECKING:
    from strategies.template import OnlineTemplate


class Method(SupervisedPlugin):
    """A method of the online stage. Subclasses give the loss; the template makes one update of it.

    A method is built from its hyper-parameters (`Parameters`, a dataclass), the memory's size in images
    and the generator that makes its random choices.
    """

    citation: ClassVar[str]
    Parameters: ClassVar[type[Any]]

    def __init__(self, parameters: Any, memory_size: int, rng: np.random.Generator) -> None:
        super().__init__()
        self.parameters = parameters

    @classmethod
    def recipe(cls, parameters: Any) -> BaseRecipe:
        """Return what the method asks of the base model."""
        return BaseRecipe()

    def fill(self, exemplars: list[Exemplar], known_classes: int) -> None:
        """Take the base step's images, offered once in random order before the first increment."""

    def grow(self, strategy: OnlineTemplate, outputs: int) -> None:
        """Append the new step's outputs to the network."""
        strategy.network.grow(outputs)

    def loss(self, strategy: OnlineTemplate) -> Tensor:
        """Return the loss of the mini-batch: by default cross-entropy with the labels as they are stored."""
        return cross_entropy(strategy.mb_output, strategy.mb_y)

    def kept(self) -> int:
        """Return the number of images in memory."""
        return 0


class Replay(Method):
    """A method that joins as many memory images to the incoming ones as there are of these.

    Incoming images are offered to the memory after the update.
    """

    def __init__(self, parameters: Any, memory_size: int, rng: np.random.Generator) -> None:
        super().__init__(parameters, memory_size, rng)
        self.rng = rng
        self.memory = self.make_memory(memory_size)

    def make_memory(self, size: int) -> Memory:
        """Return an empty memory of `size` images under the method's policy."""
        raise TypeError(f"{type(self).__name__} does not name a memory policy")

    def draw(self, count: int) -> list[Exemplar]:
        """Return the exemplars to join to `count` incoming images."""
        return self.memory.draw(count)

    def fill(self, exemplars: list[Exemplar], known_classes: int) -> None:
        """Offer the base step's images to the memory."""
        for exemplar in exemplars:
            self.memory.offer(exemplar, known_classes)

    def before_training_iteration(self, strategy: OnlineTemplate, *args: Any, **kwargs: Any) -> None:
        """Join memory images to the incoming ones."""
        strategy.join(self.draw(len(strategy.mb_x)))

    def after_training_iteration(self, strategy: OnlineTemplate, *args: Any, **kwargs: Any) -> None:
        """Offer the incoming images to the memory."""
        for exemplar in strategy.incoming():
            self.memory.offer(exemplar, strategy.known_classes)

    def kept(self) -> int:
        """Return the number of images in memory."""
        return len(self.memory)
