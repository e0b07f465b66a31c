"""ILT: LwF's loss, and distillation of the backbone's last feature map."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from strategies.learning import offline_losses
from strategies.learning.strategy import Strategy
from strategies.lwf import Lwf, LwfParameters
from strategies.networks.network import SegmentationNetwork
from strategies.networks.settings import STRICT


@dataclass(frozen=True, config=STRICT)
class IltParameters(LwfParameters):
    """Hyper-parameters of ilt."""

    feature_weight: Annotated[float, Field(ge=0)] = 100.0
    """Weight of the features' distillation; 100 in MiB's code."""


class Ilt(Lwf):
    """LwF's loss + weight x the mean squared difference of the last map before the pyramid, after its activation."""

    citation: ClassVar[str] = (
        "Michieli and Zanuttigh, Incremental Learning Techniques for Semantic Segmentation, ICCVW 2019"
    )
    Parameters = IltParameters
    resumable: ClassVar[bool] = True
    parameters: IltParameters

    def before_training_exp(self, strategy: Strategy, *args: Any, **kwargs: Any) -> None:
        """Have both networks leave their last maps."""
        self.last_map, self.old_last_map = LastMap(strategy.network), LastMap(self.old)

    def after_training_exp(self, strategy: Strategy, *args: Any, **kwargs: Any) -> None:
        """Leave the network as it was."""
        self.last_map.stop()

    def loss(self, strategy: Strategy) -> Tensor:
        """Return cross-entropy + weight x distillation + weight x the features' distillation."""
        loss = super().loss(strategy)  # the old model passes in it
        features = offline_losses.feature_distillation(self.last_map.taken(), self.old_last_map.taken())
        return loss + self.parameters.feature_weight * features


class LastMap:
    """The output (B, D, h, w) of the last stage of a network's backbone in the latest pass."""

    def __init__(self, network: SegmentationNetwork) -> None:
        self._map: Tensor | None = None
        backbone: Any = network.backbone
        stage = backbone.get_submodule(backbone.stages[-1].name)
        self.stop = stage.register_forward_hook(self._keep).remove

    def _keep(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        self._map = output

    def taken(self) -> Tensor:
        """Return the map in float32, and refer to it no longer."""
        taken, self._map = self._map, None
        assert taken is not None
        return taken.float()
