"""EWC: cross-entropy, and a penalty on moving what the Fisher information holds for important."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass

from strategies.learning.importance import Fisher
from strategies.learning.regularised import PENALTY, Regularised
from strategies.networks.settings import STRICT


@dataclass(frozen=True, config=STRICT)
class EwcParameters:
    """Hyper-parameters of ewc."""

    penalty_weight: Annotated[float, Field(ge=0), PENALTY] = 500.0
    """lambda of the penalty, which has no factor 1/2: in the field's code MiB 500, PLOP 100, SDR 1000."""


class Ewc(Regularised):
    """The importance is a running mean of the squared gradients over the updates of all steps.

        L = -(1/N) Σ_i log p_i(y_i) + λ Σ_j Ω_j (θ_j - θ̂_j)²
        F ← 0.9 g² + 0.1 F at every update, 1 at first;  Ω = (F - min F) / (max F - min F + 1e-8), of each tensor

    θ̂ are the parameters before the step, λ `penalty_weight`. It is measured in the base training too.
    """

    citation: ClassVar[str] = "Kirkpatrick et al., Overcoming Catastrophic Forgetting in Neural Networks, PNAS 2017"
    Parameters = EwcParameters
    protocols: ClassVar[tuple[str, ...]] = ("offline",)
    resumable: ClassVar[bool] = True
    measure_class = Fisher
    measured_as = "rw"
    parameters: EwcParameters
