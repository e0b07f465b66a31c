"""MIR, maximally interfered retrieval: replay the memory images whose loss an update would raise most."""

from __future__ import annotations

import math
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor
from torch.func import functional_call

from strategies.learning.losses import cross_entropy, image_losses
from strategies.learning.memory import Exemplar, Reservoir, StreamMemory
from strategies.learning.method import CrossEntropy, CrossEntropyParameters, StreamReplay
from strategies.learning.search import Search
from strategies.learning.strategy import Strategy
from strategies.networks.network import SegmentationNetwork, batch_statistics, evaluation_mode, trained_parameters
from strategies.networks.settings import STRICT

LOGITS = {"cpu": 2**22, "cuda": 2**28}
"""Of the candidates that a pass takes at a time, by device: a few of a CPU's caches, 1 GiB of a GPU's memory."""


@dataclass(frozen=True, config=STRICT)
class MirParameters(CrossEntropyParameters):
    """Hyper-parameters of MIR."""

    candidates: Annotated[int, Field(ge=1), Search(10, 100, "up to a whole memory (Table 1)", whole=True)] = 50
    """Memory images, drawn at random, among which the most interfered are looked for (choice)."""
    current_step: Literal["include", "exclude"] = "include"
    """Whether the memory images that came in the step under way may be candidates; the published code leaves them
    out (choice: they may)."""


class Mir(CrossEntropy, StreamReplay):
    """Cross-entropy on the incoming images and the candidates whose mean pixel loss rises most under a
    virtual plain SGD step on the incoming ones [2]; reservoir memory.

        θ' = θ - lr ∇L(θ; incoming)
        rise(x) = l(x; θ') - l(x; θ),  l(x; θ) the mean of -log p_i(y_i) over an image's labelled pixels

    Of `candidates` memory images, drawn at random, as many as there are incoming ones join, those of the largest rise.
    The virtual step and the candidates' passes, in eval mode, move neither BatchNorm's statistics nor
    parameters nor the optimiser.
    """

    citation: ClassVar[str] = (
        "Aljundi et al., Online Continual Learning with Maximal Interfered Retrieval, NeurIPS 2019"
    )
    Parameters = MirParameters
    resumable: ClassVar[bool] = True
    parameters: MirParameters

    def make_memory(self, size: int) -> StreamMemory:
        """Return a reservoir."""
        return Reservoir(size, self.rng)

    def before_training_iteration(self, strategy: Strategy, *args: Any, **kwargs: Any) -> None:
        """Join the most interfered candidates to the incoming images."""
        drawn = self.draw_candidates(strategy.experience.data.step)
        if not drawn:
            return
        candidates = strategy.load(drawn)
        images, labels, steps, _ = candidates
        incoming = self.targets(strategy, strategy.mb_y, strategy.mb_step)
        rise = interference(strategy, incoming, images, self.targets(strategy, labels, steps))
        chosen = rise.topk(min(len(strategy.mb_x), len(drawn))).indices
        strategy.join([part[chosen] for part in candidates])

    def draw_candidates(self, step: int) -> list[Exemplar]:
        """Draw from the memory, or from what of it came before `step`."""
        among = self.memory.exemplars
        if self.parameters.current_step == "exclude":
            among = [e for e in among if e.step < step]
        return self.memory.draw(self.parameters.candidates, among)


def interference(strategy: Strategy, incoming: Tensor, images: Tensor, labels: Tensor) -> Tensor:
    """Return (B,), by how much each image's loss rises under the virtual step on the incoming batch.

    `incoming` are the labels of the incoming batch, `labels` those of `images`.
    """
    network = strategy.network
    with batch_statistics(network):
        gradient = strategy.gradient(cross_entropy(network(strategy.mb_x), incoming))
    with torch.no_grad(), evaluation_mode(network):
        trained, lr = trained_parameters(network), strategy.protocol.lr
        stepped = {name: p - lr * g for (name, p), g in zip(trained.items(), gradient, strict=True)}
        return passed(network, stepped, images, labels) - passed(network, {}, images, labels)


def passed(network: SegmentationNetwork, parameters: dict[str, Tensor], images: Tensor, labels: Tensor) -> Tensor:
    """Return the loss (B,) of each image by a network with other parameters, in eval mode, counted as one pass.

    So many images are taken at a time that their logits are at most `LOGITS`, a single one whatever it has.
    """
    each = network.outputs * labels[0].numel()
    count = math.ceil(len(images) / max(1, LOGITS[images.device.type] // each))
    with network.tally.one_pass():
        parts = zip(images.chunk(count), labels.chunk(count), strict=True)
        return torch.cat([image_losses(functional_call(network, parameters, some), truth) for some, truth in parts])
