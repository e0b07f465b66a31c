"""What the Avalanche templates of both protocols share: a network that grows, a method's loss and scores, its costs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from avalanche.core import SupervisedPlugin
from avalanche.training.plugins import EvaluationPlugin
from torch import Tensor, nn

from strategies.learning.cost import StepCost, peak_ram_bytes
from strategies.learning.devices import Devices
from strategies.learning.evaluation import best_classes, largest_of, new_evaluator
from strategies.learning.faults import PredictionError
from strategies.learning.guard import LossGuard
from strategies.learning.method import Method
from strategies.learning.minibatches import MiniBatches
from strategies.learning.randomness import Seeds, generator_states, set_generator_states
from strategies.networks.network import SegmentationNetwork, evaluation_mode, trained_parameters


class SegmentationTemplate(MiniBatches):
    """Trains a method on the increments of a stream and evaluates it.

    Subclasses say how a step is trained.
    """

    model: SegmentationNetwork
    loss: Tensor

    def __init__(
        self,
        *,
        network: SegmentationNetwork,
        method: Method,
        protocol: Any,
        seeds: Seeds,
        augmentation: Any = None,
        eval_batch_size: int = 1,
        workers: int = 0,
        void_is_negative: bool = False,
        fused: bool = False,
        device: str | torch.device = "cpu",
        plugins: Sequence[SupervisedPlugin] = (),
        evaluator: EvaluationPlugin | None = None,
    ) -> None:
        self.method = method
        self.protocol = method.protocol_of(protocol)
        self.void_is_negative = void_is_negative
        self.fused = fused
        self.cost = StepCost()
        self.devices = Devices()
        self._guard = LossGuard(network)
        self._output: Any = None
        super().__init__(
            seeds=seeds,
            augmentation=augmentation,
            workers=workers,
            model=network,
            optimizer=torch.optim.SGD(network.parameters()),  # made anew before each step
            train_mb_size=protocol.batch_size,
            eval_mb_size=eval_batch_size,
            device=device,
            plugins=[method, *plugins],
            evaluator=evaluator or new_evaluator(),
        )

    @property
    def network(self) -> SegmentationNetwork:
        """The network that is trained."""
        return self.model

    def begin(self, base: Any) -> None:
        """Offer the base step's images to the method, once, in random order."""
        order = np.random.default_rng([self.seeds.memory, 1]).permutation(len(base.data)).tolist()
        exemplars = [self.watched(base.data.exemplar(i)) for i in order]
        self._arrive(0, order)
        classes = len(base.classes_in_this_experience)
        self._step_of_output = torch.tensor([-1] + [0] * classes, device=self.device)
        self.network.to(self.device)
        with torch.no_grad():
            self.method.fill(self, exemplars, classes)

    def _arrive(self, step: int, indices: Iterable[int]) -> None:
        """Images of a step come by."""

    def gradient(self, loss: Tensor) -> list[Tensor]:
        """Return the gradient of a loss by the parameters that are trained, counted as a backward pass.

        It is 0 for a parameter that the loss does not depend on.
        """
        self.cost.backward_passes += 1
        trained = list(trained_parameters(self.network).values())
        return list(torch.autograd.grad(loss, trained, materialize_grads=True))

    def model_adaptation(self, model: nn.Module | None = None) -> nn.Module:
        """Grow the network before a training step; never while evaluating."""
        new = 1 + self.known_classes - self.network.outputs
        if self.is_training and new > 0:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.seeds.initialisation + self.experience.data.step)
                self.method.grow(self, new)
            grown = torch.full((new,), self.experience.data.step, device=self.device)
            self._step_of_output = torch.cat([self._step_of_output, grown])
        return self.network.to(self.device)

    @property
    def mb_output(self) -> Any:
        """The network's logits in training; in evaluation the method's scores, made when they are first asked for."""
        if self._output is None and self.mbatch and not self.is_training:
            self._output = self._scores()
        return self._output

    @mb_output.setter
    def mb_output(self, output: Any) -> None:
        self._output = output

    def forward(self) -> Any:
        """Return the network's logits in training; evaluation asks for `largest`, or `mb_output`."""
        return self.network(self.mb_x) if self.is_training else None

    def largest(self) -> Tensor:
        """Return int64 (B, H, W): of the mini-batch under evaluation the class of each pixel's largest score."""
        if type(self.method).predict is Method.predict:
            return largest_of(self.network, self.mb_x, self._scores)
        return best_classes(self._scores())

    def _scores(self) -> Tensor:
        """Return the method's scores (B, C, H, W) of the mini-batch; raise `PredictionError` where they are none.

        A pixel whose largest score is NaN or minus infinity has no prediction; a maximum's index would be one.
        """
        scores = self.method.predict(self)
        expected = (len(self.mb_x), self.network.outputs, *self.mb_x.shape[-2:])
        if scores.shape != expected:
            raise self._refused(f"scores of shape {tuple(scores.shape)}, not {expected}")
        if not scores.sum().isfinite():  # a glance, on a CPU a tenth of the time that a look at each pixel takes
            decided = scores.amax(1) > -math.inf
            if lost := decided.numel() - int(decided.sum()):
                raise self._refused(f"NaN, or minus infinity alone, at {lost:,} of {decided.numel():,} pixels")
        return scores

    def _refused(self, scores: str) -> PredictionError:
        kind, step = type(self.method), f"step {self.experience.data.step}: " if self.experience else ""
        return PredictionError(f"{step}{kind.__module__}.{kind.__qualname__}.predict gives {scores}")

    def criterion(self) -> Tensor:
        """Return the method's loss; evaluation has none."""
        return self.method.loss(self) if self.is_training else self._make_empty_loss()

    def backward(self) -> None:
        """Count and make a backward pass."""
        self.cost.backward_passes += 1
        super().backward()

    def predicted(self, images: Tensor) -> Tensor:
        """Return the labels uint8 (B, H, W) that the method predicts for images float32 (B, 3, H, W)."""
        self.mbatch = [images.to(self.device)]
        with torch.no_grad(), evaluation_mode(self.network):
            labels = self.largest()
        self.mbatch = []
        return labels.to("cpu", torch.uint8)

    def measured(self) -> StepCost:
        """Return the last step's cost with what is held now."""
        self.cost.memory_images = self.method.kept()
        self.cost.memory_bytes = self.method.memory_bytes()
        self.cost.peak_ram_bytes = peak_ram_bytes()
        return self.cost

    def state_dict(self) -> dict[str, Any]:
        """Return what the next step goes on from, of the kinds that `Method.state_dict` names."""
        return {
            "outputs": self.network.outputs,
            "network": self.network.state_dict(),
            "step_of_output": self._step_of_output,
            "replay_rng": self._replay_rng.bit_generator.state,
            "generators": generator_states(self.device),
            "method": self.method.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` returned in a template built alike, in place of `begin`."""
        added = state["step_of_output"][self.network.outputs :]
        for new in added.unique_consecutive(return_counts=True)[1].tolist():
            self.network.grow(new)
        self.network.load_state_dict(state["network"])
        self._step_of_output = state["step_of_output"].to(self.device)
        self._replay_rng.bit_generator.state = state["replay_rng"]
        self.method.load_state_dict(self, state["method"])
        set_generator_states(state["generators"], self.device)


def listed(experiences: Any) -> list[Any]:
    """Return experiences, one or several, as a list."""
    return list(experiences) if isinstance(experiences, Iterable) else [experiences]
