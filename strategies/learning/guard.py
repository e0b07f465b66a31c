"""The look at every update's loss that makes no GPU wait."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from strategies.learning.copies import ArrivingCopy
from strategies.learning.faults import NonFiniteLossError


class LossGuard:
    """Raises `NonFiniteLossError` for an update's loss, once the next update is under way or when it is told to."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self._last: _Update | None = None

    def follow(self, loss: Tensor, where: str, images: Callable[[], str]) -> None:
        """Look at the loss of the update before this one, and keep this one's (a tensor of one element).

        `where` and `images` tell the batch; `images` is called at a fault alone.
        """
        self.settle()
        self._last = _Update(ArrivingCopy(loss), where, images)

    def settle(self) -> None:
        """Look at the last update's loss."""
        last, self._last = self._last, None
        if last is not None and not math.isfinite(last.loss.value().item()):
            raise last.fault("")

    def finish(self) -> None:
        """Look at the last update's loss and at the weights and statistics that the updates have left."""
        last = self._last
        self.settle()
        if last is not None and not all(map(all_finite, self.network.state_dict().values())):
            raise last.fault(" and the weights after its update are not finite")


def all_finite(values: Tensor) -> bool:
    """Return whether no value of a tensor is infinite or no number: mostly its sum tells, in a tenth of the time."""
    return bool(values.sum().isfinite()) or bool(values.isfinite().all())


@dataclass(frozen=True)
class _Update:
    loss: ArrivingCopy
    where: str
    images: Callable[[], str]

    def fault(self, beside: str) -> NonFiniteLossError:
        return NonFiniteLossError(f"{self.where}: the loss is {self.loss.value().item()}{beside}; {self.images()}")


def listed(kind: str, ids: Sequence[str]) -> str:
    """Return `incoming images a, b` for a kind of images and their ids, or that there are none."""
    return f"{kind} images {', '.join(ids)}" if ids else f"no {kind} images"
