"""Cross-entropy with a penalty on moving what matters to what was learned: what EWC, PI and RW share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from strategies.learning import offline_losses
from strategies.learning.importance import Measure, Tensors, pieces
from strategies.learning.method import Method
from strategies.learning.protocol import BaseRecipe
from strategies.learning.search import Search
from strategies.learning.strategy import Strategy

PENALTY = Search(10.0, 10_000.0, "ten times below 100 (PLOP) and above 1000 (SDR)", log=True)
"""Where the penalty's weight is tuned."""


class Regularised(Method):
    """Cross-entropy + lambda sum_i Omega_i (theta_i - theta_hat_i)^2 over the parameters from before the step.

    Omega is the importance after that step and theta_hat what the parameters were then; there is no factor 1/2. The
    measure reads the gradient of the cross-entropy alone, the penalty's is added after that.
    """

    measure_class: ClassVar[type[Measure]]
    measured_as: ClassVar[str]
    """The measure of the base training (`BaseMeasures`) that this one goes on from."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.measure = self.measure_class()
        self.outputs: list[int] = []
        self.anchor: Tensors = {}
        self.omega: Tensors = {}

    @classmethod
    def recipe(cls, parameters: Any) -> BaseRecipe:
        """Ask for a base model whose training measured importance."""
        return BaseRecipe(importance=True)

    def begin_from(self, importance: Mapping[str, Mapping[str, Tensors]]) -> None:
        """Take over what the base training measured."""
        for kind in self.measure.tensors.keys() & importance[self.measured_as].keys():
            self.measure.tensors[kind] = dict(importance[self.measured_as][kind])

    def grow(self, strategy: Strategy, outputs: int) -> None:
        """Hold the parameters where they are, by their importance, then append the new step's outputs."""
        network = strategy.network
        self.outputs = self.outputs or [network.outputs]
        self.omega = self.measure.importance()
        before = pieces(network, self.outputs)
        self.anchor = {name: before[name].value.clone() for name in self.omega}
        super().grow(strategy, outputs)
        self.outputs.append(outputs)
        self.measure.start(pieces(network, self.outputs))

    def loss(self, strategy: Strategy) -> Tensor:
        """Return the cross-entropy: the mean over all pixels."""
        return offline_losses.cross_entropy(strategy.mb_output, strategy.mb_y)

    def after_backward(self, strategy: Strategy, *args: Any, **kwargs: Any) -> None:
        """Have the measure read the gradient, then add the penalty's."""
        parts = pieces(strategy.network, self.outputs)
        self.measure.follow(parts)
        for name, omega in self.omega.items():
            if (gradient := parts[name].gradient) is not None:
                away = parts[name].value - self.anchor[name]
                gradient.addcmul_(omega, away, value=2 * self.parameters.penalty_weight)

    def after_training_epoch(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """End the measure's step after its last epoch, before the weights of a better one may take the place."""
        if strategy.epochs_done + 1 == strategy.epochs:
            self.measure.finish(pieces(strategy.network, self.outputs))

    def state_dict(self) -> dict[str, Any]:
        """Return what the measure knows; `grow` makes the rest of it and of the network."""
        return {"outputs": self.outputs, "measure": self.measure.tensors, "updates": self.measure.updates}

    def load_state_dict(self, strategy: Strategy, state: dict[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        self.outputs, self.measure.updates = state["outputs"], state["updates"]
        self.measure.tensors = {
            kind: {name: tensor.to(strategy.device) for name, tensor in of_kind.items()}
            for kind, of_kind in state["measure"].items()
        }
