"""EWF, endpoints weight fusion: after each step the previous model and the new one are averaged, weight by weight."""

from __future__ import annotations

import dataclasses
import math
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from strategies.learning.method import Distilling
from strategies.learning.pseudo_labels import ThresholdRule
from strategies.learning.strategy import Strategy
from strategies.mib import KD_WEIGHT, Mib, MibParameters
from strategies.networks.heads import LinearHead, StepwiseHead
from strategies.networks.settings import STRICT, Later
from strategies.plop import LOGITS_POD, POD, Plop, PlopParameters


@dataclass(frozen=True, config=STRICT)
class EwfParameters(PlopParameters, MibParameters):
    """Hyper-parameters of ewf, and those of the methods whose steps it fuses."""

    distillation_weight: Annotated[float, Field(ge=0), dataclasses.replace(KD_WEIGHT, when=("on", "mib"))] = (
        MibParameters.distillation_weight
    )
    """Of `mib`."""
    on: Literal["mib", "plop"] = "mib"
    """The method whose steps are fused."""
    a: Annotated[float, Field(ge=0, le=1)] | None = None
    """The new model's share, from 0 (the previous model stays) to 1 (nothing is fused); null for the published
    sqrt(n / (n + O)), n new classes and O outputs from before the step, the background counted."""
    old_classifiers: Literal["frozen", "trained"] = "frozen"
    """Outputs from before the step, the background's included, during it; `frozen` in the published code."""
    thresholds: Annotated[ThresholdRule, Later()] = PlopParameters.thresholds
    """Of `plop`, as the next two are."""
    pod_factor: Annotated[float, Field(ge=0), Later(), dataclasses.replace(POD, when=("on", "plop"))] = (
        PlopParameters.pod_factor
    )
    logits_factor: Annotated[float, Field(ge=0), Later(), dataclasses.replace(LOGITS_POD, when=("on", "plop"))] = (
        PlopParameters.logits_factor
    )


class Ewf(Distilling):
    """The steps of MiB or PLOP, and after each one (1 - a) theta_{t-1} + a theta_t for what was there before it.

        θ_t ← (1-a) θ_{t-1} + a θ_t,  a = sqrt(n / (n + O)) for n new outputs beside O old ones

    That is all weights, biases and BatchNorm statistics; the fused network is the next step's previous model. The
    background's bias, lowered by log(n + 1) in MiB's start and then frozen, comes to b - a log(n + 1).
    """

    citation: ClassVar[str] = (
        "Xiao et al., Endpoints Weight Fusion for Class Incremental Semantic Segmentation, CVPR 2023"
    )
    Parameters: ClassVar[type[Any]] = EwfParameters
    protocols: ClassVar[tuple[str, ...]] = ("offline",)
    resumable: ClassVar[bool] = True
    parameters: EwfParameters

    def __new__(cls, parameters: EwfParameters, *args: Any) -> Ewf:
        """Return one that makes the steps of the method it is on."""
        kinds: dict[str, type[Ewf]] = {"mib": EwfOnMib, "plop": EwfOnPlop}
        return object.__new__(kinds[parameters.on])

    def grow(self, strategy: Strategy, outputs: int) -> None:
        """Grow as the method does; outputs to be frozen are parameters of their own."""
        network = strategy.network
        if self.parameters.old_classifiers == "frozen" and isinstance(network.head, LinearHead):
            network.head = network.head.stepwise()
        super().grow(strategy, outputs)

    def before_training_exp(self, strategy: Strategy, *args: Any, **kwargs: Any) -> None:
        """Freeze the outputs that were there."""
        head = strategy.network.head
        if self.parameters.old_classifiers == "frozen" and isinstance(head, StepwiseHead):
            head.known_weight.requires_grad_(False)
            head.known_bias.requires_grad_(False)
        super().before_training_exp(strategy, *args, **kwargs)

    def after_training_exp(self, strategy: Strategy, *args: Any, **kwargs: Any) -> None:
        """Fuse the previous network and the new one."""
        network, given = strategy.network, self.parameters.a
        share = math.sqrt(1 - self.old.outputs / network.outputs) if given is None else given
        network.load_state_dict(fused(self.old.state_dict(), network.state_dict(), share))
        super().after_training_exp(strategy, *args, **kwargs)


class EwfOnMib(Ewf, Mib):
    """MiB's steps, fused."""

    Parameters = EwfParameters
    protocols = ("offline",)
    resumable = True
    parameters: EwfParameters


class EwfOnPlop(Ewf, Plop):
    """PLOP's steps, fused."""

    Parameters = EwfParameters
    protocols = ("offline",)
    resumable = True
    parameters: EwfParameters


def fused(old: dict[str, Tensor], new: dict[str, Tensor], share: float) -> dict[str, Tensor]:
    """Return (1 - share) old + share new of the states of a network and of one that has grown from it.

    The rows of new outputs stay, and so do counts.
    """
    joined = {name: tensor.clone() for name, tensor in new.items()}
    for name, before in old.items():
        if before.is_floating_point():
            there = joined[name][: len(before)] if before.dim() else joined[name]
            there.copy_(torch.lerp(before, there, share))
    return joined
