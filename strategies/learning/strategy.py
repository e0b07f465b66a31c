"""What a method sees of the template that trains it: in Avalanche's words, its strategy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import Tensor

from strategies.learning.devices import Devices
from strategies.learning.memory import Exemplar
from strategies.networks.network import SegmentationNetwork


class Strategy(Protocol):
    """The training of one network on a stream, as the hooks of a method meet it.

    B images of H x W pixels make a mini-batch, the incoming ones first; C are the network's outputs, the background
    first. `strategies.learning.template.OnlineTemplate` is one.
    """

    mb_output: Tensor
    """The network's logits float32 (B, C, H, W) of the mini-batch, in training."""

    @property
    def network(self) -> SegmentationNetwork:
        """The network that is trained."""

    @property
    def device(self) -> torch.device:
        """Where it computes."""

    @property
    def devices(self) -> Devices:
        """Those that share each batch; on each of several a method meets its part of it from `before_forward` on."""

    @property
    def experience(self) -> Any:
        """The Avalanche experience of the step, without its images."""

    @property
    def protocol(self) -> Any:
        """How the steps are trained; see `strategies.learning.protocol`."""

    @property
    def void_is_negative(self) -> bool:
        """Whether void pixels are a negative of every class and counted, for a method that says it takes them so."""

    @property
    def mb_x(self) -> Tensor:
        """The images of the mini-batch, float32 (B, 3, H, W)."""

    @property
    def mb_y(self) -> Tensor:
        """Their annotations, int64 (B, H, W): classes by the order of learning, 0 what is not annotated, 255 void."""

    @property
    def mb_step(self) -> Tensor:
        """The step (B,) each image of the mini-batch was annotated at."""

    @property
    def own(self) -> Tensor:
        """Bool (B, C): of which classes the annotation of each image of the mini-batch tells."""

    @property
    def is_memory(self) -> Tensor:
        """Bool (B,): which images of the mini-batch come from memory."""

    @property
    def known_classes(self) -> int:
        """|Y_t|, the background not counted."""

    def incoming(self) -> list[Exemplar]:
        """Return references to the incoming images of the mini-batch."""

    def load(self, exemplars: Sequence[Exemplar]) -> list[Tensor]:
        """Return exemplars, augmented anew, as a mini-batch."""

    def replace(self, memory: Sequence[Tensor], places: Tensor) -> None:
        """Put a mini-batch from memory at `places` (n,), best on the CPU, of the mini-batch."""

    def counted(self) -> AbstractContextManager[None]:
        """Count what a block takes beside the updates as a cost of the step, in the offline protocol."""

    def join(self, memory: Sequence[Tensor]) -> None:
        """Append a mini-batch from memory to the incoming images."""

    def inspected(self, exemplars: Sequence[Exemplar]) -> Iterator[tuple[list[Exemplar], Tensor, Tensor]]:
        """Yield exemplars with their images and annotations as they are, in order, a few of one size at a time."""

    def gradient(self, loss: Tensor) -> list[Tensor]:
        """Return the gradient of a loss by the parameters that are trained, counted as a backward pass."""
