"""A network's features on the way to its head, and its logits at their size, for methods that distil them."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from strategies.networks.network import SegmentationNetwork


class LastFeatures:
    """The features that a network's head got in its last forward pass, from here to `detach`."""

    def __init__(self, network: SegmentationNetwork) -> None:
        self._last: list[Tensor] = []
        last, head = self._last, network.head

        def see(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
            if module is head:  # a copy of the network brings its hooks along
                last[:] = inputs[0], output

        self._hook = head.register_forward_hook(see)

    def __call__(self) -> Tensor:
        """Return float32 (B, D, h, w), from which gradients go on; raise LookupError where no pass has come by."""
        return self._seen()[0]

    def logits(self) -> Tensor:
        """Return what the head made of them, (B, C, h, w)."""
        return self._seen()[1]

    def _seen(self) -> list[Tensor]:
        if not self._last:
            raise LookupError("no features yet")
        return self._last

    def detach(self) -> None:
        """Leave the network and let go of the features."""
        self._hook.remove()
        self._last.clear()
