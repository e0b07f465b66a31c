"""A network's features on the way to its head, for methods that distil them."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from strategies.networks.network import SegmentationNetwork


class LastFeatures:
    """The features that a network's head got in its last forward pass, from here to `detach`."""

    def __init__(self, network: SegmentationNetwork) -> None:
        self._features: list[Tensor] = []
        features, head = self._features, network.head

        def see(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            if module is head:  # a copy of the network brings its hooks along
                features[:] = inputs[:1]

        self._hook = head.register_forward_pre_hook(see)

    def __call__(self) -> Tensor:
        """Return float32 (B, D, h, w), from which gradients go on; raise LookupError where no pass has come by."""
        if not self._features:
            raise LookupError("no features yet")
        return self._features[0]

    def detach(self) -> None:
        """Leave the network and let go of the features."""
        self._hook.remove()
        self._features.clear()
