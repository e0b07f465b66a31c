"""Settings of how networks are trained, readable without torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from strategies.networks.settings import STRICT, Called, HeadName

LEARNING_RATE = Called(("learning_rate", "step_size"))
BATCH_SIZE = Called(("bs", "minibatch_size"))
WEIGHT_DECAY = Called(("wd", "l2"))

PROTOCOLS = ("online", "joint")
"""How the steps of a run can be trained; a method names those that it is defined for."""


@dataclass(frozen=True, config=STRICT)
class OnlineProtocol:
    """How the incremental steps are trained (METHODS, Protocol)."""

    batch_size: Annotated[int, Field(ge=1, le=65536), BATCH_SIZE] = 4
    """Incoming images per update; as many are drawn from memory."""
    lr: Annotated[float, Field(gt=0), LEARNING_RATE] = 1e-3
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[float, Field(ge=0), WEIGHT_DECAY] = 1e-4
    batchnorm: Literal["train", "frozen"] = "train"
    """Whether BatchNorm normalises by the batch and updates its statistics during the increments."""


@dataclass(frozen=True, config=STRICT)
class BaseRecipe:
    """What a method asks of the base model; methods with equal recipes share it."""

    head: HeadName = "linear"
    loss: Literal["cross-entropy", "sigmoid-bce"] = "cross-entropy"
    tau: Annotated[float, Field(gt=0)] | None = None
    """Temperature of a cosine head."""
