"""RW, Riemannian walk: cross-entropy, and a penalty of EWC's importance and a path's together."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass

from strategies.learning.importance import RiemannianWalk
from strategies.learning.regularised import PENALTY, Regularised
from strategies.networks.settings import STRICT


@dataclass(frozen=True, config=STRICT)
class RwParameters:
    """Hyper-parameters of rw."""

    penalty_weight: Annotated[float, Field(ge=0), PENALTY] = 100.0
    """lambda of the penalty, which has no factor 1/2: in the field's code MiB and PLOP 100, SDR 1000."""


class Rw(Regularised):
    """The importance is EWC's, and what each parameter's way has lowered the loss by over its length in that metric.

    It is measured in the base training too (METHODS, rw).
    """

    citation: ClassVar[str] = "Chaudhry et al., Riemannian Walk for Incremental Learning, ECCV 2018"
    Parameters = RwParameters
    protocols: ClassVar[tuple[str, ...]] = ("offline",)
    resumable: ClassVar[bool] = True
    measure_class = RiemannianWalk
    measured_as = "rw"
    parameters: RwParameters
