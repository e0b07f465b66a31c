"""PI, path integral: cross-entropy, and a penalty on moving what has lowered the loss on its way."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass

from strategies.learning.importance import PathIntegral
from strategies.learning.regularised import PENALTY, Regularised
from strategies.networks.settings import STRICT


@dataclass(frozen=True, config=STRICT)
class PiParameters:
    """Hyper-parameters of pi."""

    penalty_weight: Annotated[float, Field(ge=0), PENALTY] = 500.0
    """lambda of the penalty, which has no factor 1/2: in the field's code MiB 500, PLOP 100, SDR 1000."""


class Pi(Regularised):
    """The importance is what each parameter's way has lowered the loss by, over the square of the way's length.

        L = -(1/N) Σ_i log p_i(y_i) + λ Σ_j Ω_j (θ_j - θ̂_j)²
        w ← w + g (θ_before - θ_after) at every update, 0 at a step's start
        S ← S + relu(w / ((θ - θ_start)² + 1e-20)) at its end;  Ω = (S - min S) / (max S - min S + 1e-8), of each tensor

    θ̂ are the parameters before the step, λ `penalty_weight`. It is measured in the base training too.
    """

    citation: ClassVar[str] = "Zenke et al., Continual Learning Through Synaptic Intelligence, ICML 2017"
    Parameters = PiParameters
    protocols: ClassVar[tuple[str, ...]] = ("offline",)
    resumable: ClassVar[bool] = True
    measure_class = PathIntegral
    measured_as = "pi"
    parameters: PiParameters
