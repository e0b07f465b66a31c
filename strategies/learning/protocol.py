"""Settings of how networks are trained, readable without torch."""

from __future__ import annotations

import math
from dataclasses import field
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from benchmarks.labels import SaliencySource
from strategies.learning.search import Search
from strategies.networks.settings import STRICT, Called, HeadName, Later, Part

LEARNING_RATE = Called(("learning_rate", "step_size"))
BATCH_SIZE = Called(("bs", "minibatch_size"))
WEIGHT_DECAY = Called(("wd", "l2"))
TUNED_RATE = Search(1e-4, 1e-1, "ten times below and above 0.001 (Sec. 4.2) and 0.01 (docs/small-preset.md)", log=True)

PROTOCOLS = ("online", "offline", "joint")
"""How the steps of a run can be trained; a method names those that it is defined for."""
ProtocolName = Literal["online", "offline"]
"""Those that the setting `protocol` chooses from: `joint` trains on all steps at once, whichever is chosen."""


@dataclass(frozen=True, config=STRICT)
class OnlineProtocol:
    """How the incremental steps are trained (METHODS, Protocol)."""

    batch_size: Annotated[int, Field(ge=1, le=65536), BATCH_SIZE] = 4
    """Incoming images per update; as many are drawn from memory."""
    lr: Annotated[float, Field(gt=0), LEARNING_RATE, TUNED_RATE] = 1e-3
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[float, Field(ge=0), WEIGHT_DECAY] = 1e-4
    batchnorm: Literal["train", "frozen"] = "train"
    """Whether BatchNorm normalises by the batch and updates its statistics during the increments."""
    devices: Annotated[int, Field(ge=1, le=64), Later()] = 1
    """GPUs, or processes on the CPU, that share each batch with what is drawn from memory (docs/devices.md)."""


@dataclass(frozen=True, config=STRICT)
class EpochProtocol:
    """How a network is trained over epochs: the base step, and offline each increment."""

    epochs: Annotated[int, Field(ge=1, le=100_000), Called(("num_epochs", "max_epochs"))]
    batch_size: Annotated[int, Field(ge=1, le=65536), BATCH_SIZE]
    """Images per update, on all devices together."""
    optimizer: Annotated[Literal["sgd", "adamw"], Called(("optim", "optimiser"))]
    lr: Annotated[float, Field(gt=0), LEARNING_RATE, TUNED_RATE]
    momentum: Annotated[float, Field(ge=0, lt=1)]
    weight_decay: Annotated[float, Field(ge=0), WEIGHT_DECAY]
    warmup_steps: Annotated[int, Field(ge=0), Called(("warmup",))]
    poly_power: Annotated[float, Field(ge=0)]
    """The learning rate of update i of U is lr (1 - i / U)^poly_power, times the warm-up."""
    min_updates: Annotated[int, Field(ge=0, le=100_000_000)] = 0  # as in runs older than the setting
    """Epochs are added until there are at least so many updates; 0 adds none."""
    nesterov: bool = False
    """Of sgd's momentum."""
    lr_factors: dict[Part, Annotated[float, Field(ge=0)]] = field(default_factory=dict)
    """By part of the network, what its learning rate is multiplied by; 0 freezes it."""
    weight_decays: dict[Part, Annotated[float, Field(ge=0)]] = field(default_factory=dict)
    """By part of the network, in the place of `weight_decay`."""
    warmup_share: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Of all updates, rounded down: a warm-up of so many in the place of `warmup_steps`, linear from `warmup_from`."""
    warmup_from: Annotated[float, Field(ge=0, le=1)] = 0.001
    """The factor of the first update of a `warmup_share`."""
    warmup_poly: Literal["from_start", "after"] = "from_start"
    """Whether the poly decay goes on during the warm-up, or begins after it."""
    min_lr: Annotated[float, Field(ge=0)] = 0.0
    """No part's learning rate falls below it."""
    accumulate: Annotated[int, Field(ge=1, le=65536)] = 1
    """Each batch is passed in so many parts whose gradients add up to its own; BatchNorm sees the parts."""
    batchnorm: Literal["train", "statistics", "frozen"] = "train"
    """`statistics`: BatchNorm's are frozen and its affine parameters trained; `frozen`: both are."""
    dropout: bool = True
    drop_last: bool = False
    """Whether an epoch leaves its last, incomplete batch out."""
    weights: Literal["last", "best"] = "last"
    """Those after the last epoch, or after the one with the best mIoU on held-out training images."""

    @property
    def tells_new(self) -> bool:
        """Whether a step's new outputs are trained otherwise than those that were there."""
        return any(each.get("new") != each.get("classifier") for each in (self.lr_factors, self.weight_decays))

    def updates_an_epoch(self, images: int) -> int:
        """Return the number of batches of an epoch over so many images; one where they make no whole one."""
        whole, rest = divmod(images, self.batch_size)
        return whole if whole and (self.drop_last or not rest) else whole + 1

    def epochs_over(self, images: int) -> int:
        """Return the number of epochs over so many images: over few more than `epochs`."""
        return max(self.epochs, math.ceil(self.min_updates / self.updates_an_epoch(images)))

    def updates_over(self, images: int) -> int:
        """Return the number of updates of a training on so many images."""
        return self.epochs_over(images) * self.updates_an_epoch(images)


@dataclass(frozen=True, config=STRICT)
class OfflineProtocol(EpochProtocol):
    """How the incremental steps are trained offline: each over epochs, with an optimiser and a schedule of its own."""


@dataclass(frozen=True, config=STRICT)
class BaseRecipe:
    """What a method asks of the base model; methods with equal recipes share it."""

    head: HeadName = "linear"
    loss: Literal["cross-entropy", "sigmoid-bce", "sigmoid-bce-unknown", "classes-bce"] = "cross-entropy"
    tau: Annotated[float, Field(gt=0)] | None = None
    """Temperature of a cosine head."""
    importance: bool = False
    """Whether its training measures how much each parameter matters (`strategies.learning.importance.BaseMeasures`)."""
    saliency: SaliencySource | None = None
    """What tells pixels of an unknown class apart in training images; there is none where it is not set."""
    positive_weight: Annotated[float, Field(gt=0)] | None = None
    """How often a pixel counts for its own class in `classes-bce`; once where it is not set."""
