"""A network's feature maps on the way to the last one, for methods that distil them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from strategies.networks.backbone import Backbone
from strategies.networks.network import SegmentationNetwork


class StageMaps:
    """The maps of a network's stages in its last forward pass, by name, from here to `detach` or a block's end.

        with StageMaps(network) as maps:
            network(images)
            last = maps[maps.names[-1]]

    They are float32 (B, channels, H / stride, W / stride), as the stage's module returns them: for the built-in
    networks behind the activation. A copy of the network has stages of its own, which take another `StageMaps`.
    """

    def __init__(self, network: SegmentationNetwork, names: Iterable[str] | None = None) -> None:
        """Raise LookupError for a name that is no stage of the network; by default all are looked at."""
        backbone = network.backbone
        stages = tuple(stage.name for stage in backbone.stages) if isinstance(backbone, Backbone) else ()
        self.names = stages if names is None else tuple(names)
        if unknown := [name for name in self.names if name not in stages]:
            raise LookupError(f"{', '.join(unknown)}: the network's stages are {', '.join(stages) or 'none'}")
        self._maps: dict[str, Tensor] = {}
        modules = {name: backbone.get_submodule(name) for name in self.names}
        self._hooks = [module.register_forward_hook(self._watch(module, name)) for name, module in modules.items()]

    def _watch(self, watched: nn.Module, name: str) -> Callable[..., None]:
        def see(module: nn.Module, inputs: Any, output: Tensor) -> None:
            if module is watched:  # a copy of the network brings its hooks along
                self._maps[name] = output

        return see

    def __getitem__(self, name: str) -> Tensor:
        """Return a stage's map; raise LookupError where no pass has come by it."""
        if name not in self._maps:
            raise LookupError(f"{name}: no map of it yet")
        found = self._maps[name]
        return found.float() if found.dtype in (torch.bfloat16, torch.float16) else found

    def detach(self) -> None:
        """Leave the network and let go of the maps."""
        for hook in self._hooks:
            hook.remove()
        self._maps.clear()

    def __enter__(self) -> StageMaps:
        return self

    def __exit__(self, *_: object) -> None:
        self.detach()
