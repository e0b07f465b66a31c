"""joint, the upper reference: offline training on all steps' images with all their labels."""

from __future__ import annotations

from typing import ClassVar

from pydantic.dataclasses import dataclass

from strategies.learning.method import Method
from strategies.networks.settings import STRICT


@dataclass(frozen=True, config=STRICT)
class JointParameters:
    """When joint is trained and evaluated."""

    every_step: bool = False
    """Whether a model is trained at every step, on the union so far, or at the last step alone."""


class Joint(Method):
    """Trained by the base protocol on the `joint` stream instead of the increments: see `bench.train.joint`.

        L = -(1/N) Σ_i log p_i(y_i)

    over the images of all steps with all of their labels.
    """

    citation: ClassVar[str] = "reference"
    Parameters = JointParameters
    resumable: ClassVar[bool] = True
    parameters: JointParameters
    protocols: ClassVar[tuple[str, ...]] = ("joint",)
