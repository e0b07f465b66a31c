"""A network's feature maps on the way to the last one, for methods that distil them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from strategies.networks.backbone import Backbone
from strategies.networks.network import SegmentationNetwork, evaluation_mode

ACTIVATIONS = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.SELU, nn.CELU),
    *(nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish),
)
"""Those that stages end in."""


class StageMaps:
    """The maps of a network's stages in its last forward pass, by name, from here to `detach` or a block's end.

        with StageMaps(network) as maps:
            network(images)
            last = maps[maps.names[-1]]

    They are float32 (B, channels, H / stride, W / stride), as the stage's module returns them: for the built-in
    networks behind the activation. Those of a stage that `activations` has (`last_activations`) are what that module
    was given: the map before the activation. A copy of the network has stages of its own, which take another
    `StageMaps`.
    """

    def __init__(
        self,
        network: SegmentationNetwork,
        names: Iterable[str] | None = None,
        activations: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Raise LookupError for a name that is no stage of the network; by default all are looked at."""
        backbone = network.backbone
        stages = _stages(backbone)
        self.names = stages if names is None else tuple(names)
        if unknown := [name for name in self.names if name not in stages]:
            raise LookupError(f"{', '.join(unknown)}: the network's stages are {', '.join(stages) or 'none'}")
        self._maps: dict[str, Tensor] = {}
        self._hooks: list[torch.utils.hooks.RemovableHandle] = []
        self._in_place: list[Any] = []
        for name in self.names:
            if name in activations:
                self._watch_activation(backbone.get_submodule(activations[name]), name)
            else:
                module = backbone.get_submodule(name)
                self._hooks.append(module.register_forward_hook(self._watch(module, name)))

    def _watch(self, watched: nn.Module, name: str) -> Callable[..., None]:
        def see(module: nn.Module, inputs: Any, output: Tensor) -> None:
            if module is watched:  # a copy of the network brings its hooks along
                self._maps[name] = output

        return see

    def _watch_activation(self, watched: Any, name: str) -> None:
        def see(module: nn.Module, inputs: Any) -> None:
            if module is watched:
                (self._maps[name],) = inputs

        self._hooks.append(watched.register_forward_pre_hook(see))
        if getattr(watched, "inplace", False):  # it would write over the map
            watched.inplace = False
            self._in_place.append(watched)

    def __getitem__(self, name: str) -> Tensor:
        """Return a stage's map; raise LookupError where no pass has come by it."""
        if name not in self._maps:
            raise LookupError(f"{name}: no map of it yet")
        found = self._maps[name]
        return found.float() if found.dtype in (torch.bfloat16, torch.float16) else found

    def detach(self) -> None:
        """Leave the network as it was and let go of the maps."""
        for hook in self._hooks:
            hook.remove()
        for module in self._in_place:
            module.inplace = True
        self._maps.clear()

    def __enter__(self) -> StageMaps:
        return self

    def __exit__(self, *_: object) -> None:
        self.detach()


def last_activations(network: SegmentationNetwork) -> dict[str, str]:
    """Return by stage the name of its last activation, a module below the backbone, where it ends in one.

    That is what an evaluation of one image finds: a module of `ACTIVATIONS` whose last output in the pass is the
    stage's map itself. A stage that ends in a convolution, a norm, a sum, or in an activation that is no module has
    none.
    """
    backbone = network.backbone
    if not isinstance(backbone, Backbone):
        return {}
    stages = _stages(backbone)
    activations = [name for name, module in backbone.named_modules() if isinstance(module, ACTIVATIONS)]
    seen: dict[str, Tensor] = {}

    def watch(name: str) -> torch.utils.hooks.RemovableHandle:
        def see(module: nn.Module, inputs: Any, output: Tensor) -> None:
            seen[name] = output

        return backbone.get_submodule(name).register_forward_hook(see)

    hooks = [watch(name) for name in {*stages, *activations}]
    like, side = next(backbone.parameters()), backbone.usual_side
    try:
        with torch.no_grad(), evaluation_mode(backbone):
            backbone(like.new_zeros(1, 3, side, side))
    finally:
        for hook in hooks:
            hook.remove()
    ends = {id(seen[name]): name for name in activations if name in seen}
    return {stage: ends[id(seen[stage])] for stage in stages if id(seen[stage]) in ends}


def _stages(backbone: nn.Module) -> tuple[str, ...]:
    return tuple(stage.name for stage in backbone.stages) if isinstance(backbone, Backbone) else ()
