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

        L = -(1/N) Σ_i log p_i(y_i) + λ Σ_j Ω_j (θ_j - θ̂_j)²
        s ← s + g (θ_then - θ_now) / (F (θ_now - θ_then)² / 2 + 1e-8) every 10 updates;  F as in `ewc`
        S ← (S + relu(s)) / 2 at a step's end;  Ω = scaled F + scaled S, each tensor by itself to [0, 1]

    θ̂ are the parameters before the step, λ `penalty_weight`. It is measured in the base training too.
    """

    citation: ClassVar[str] = "Chaudhry et al., Riemannian Walk for Incremental Learning, ECCV 2018"
    Parameters = RwParameters
    protocols: ClassVar[tuple[str, ...]] = ("offline",)
    resumable: ClassVar[bool] = True
    measure_class = RiemannianWalk
    measured_as = "rw"
    parameters: RwParameters
