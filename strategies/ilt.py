"""ILT: LwF's loss, and distillation of the backbone's last feature map."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from strategies.learning import offline_losses
from strategies.learning.search import Search
from strategies.learning.strategy import Strategy
from strategies.lwf import Lwf, LwfParameters
from strategies.networks.settings import STRICT
from strategies.networks.stage_maps import StageMaps


@dataclass(frozen=True, config=STRICT)
class IltParameters(LwfParameters):
    """Hyper-parameters of ilt."""

    feature_weight: Annotated[
        float, Field(ge=0), Search(10.0, 1000.0, "ten times below and above 100 (MiB)", log=True)
    ] = 100.0
    """Weight of the features' distillation; 100 in MiB's code."""


class Ilt(Lwf):
    """LwF's loss + weight x the mean squared difference of the last map before the pyramid, after its activation.

        L = L_LwF + (μ/E) Σ_e (F_e - F̂_e)²

    over the map's E elements e; F̂ is the previous model's map, μ `feature_weight`.
    """

    citation: ClassVar[str] = (
        "Michieli and Zanuttigh, Incremental Learning Techniques for Semantic Segmentation, ICCVW 2019"
    )
    Parameters = IltParameters
    resumable: ClassVar[bool] = True
    parameters: IltParameters

    def before_training_exp(self, strategy: Strategy, *args: Any, **kwargs: Any) -> None:
        """Have both networks leave their last maps."""
        backbone: Any = strategy.network.backbone
        self.last = backbone.stages[-1].name
        self.maps, self.old_maps = StageMaps(strategy.network, [self.last]), StageMaps(self.old, [self.last])

    def after_training_exp(self, strategy: Strategy, *args: Any, **kwargs: Any) -> None:
        """Leave the network as it was."""
        self.maps.detach()

    def loss(self, strategy: Strategy) -> Tensor:
        """Return cross-entropy + weight x distillation + weight x the features' distillation."""
        loss = super().loss(strategy)  # the old model passes in it
        features = offline_losses.feature_distillation(self.maps[self.last], self.old_maps[self.last])
        return loss + self.parameters.feature_weight * features
