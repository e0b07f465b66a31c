"""Per-pixel classifiers that grow: linear, with an auxiliary one in the background's place, and cosine (Eq. 8)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from strategies.networks.settings import Part


class Head(nn.Module, ABC):
    """A per-pixel classifier that grows.

    Of its logits (B, C, h, w) of features (B, D, h, w) the first is the background's and the next are those of the
    classes in the order of learning; what a head gives beyond its `outputs` comes after them.
    """

    scores_scale: ClassVar[bool] = True
    """Whether scores of logits that are scaled bilinearly are the scores scaled."""

    @property
    @abstractmethod
    def outputs(self) -> int:
        """Background and classes known so far."""

    @abstractmethod
    def grow(self, outputs: int) -> None:
        """Append outputs with the layer's default initialisation."""

    def scores(self, logits: Tensor) -> Tensor:
        """Return scores (B, outputs, H, W) of logits (B, C, H, W); the largest is the prediction."""
        return logits

    def part_of(self, parameter: str) -> Part:
        """Return the part that a parameter belongs to, by its name in the head (`SegmentationNetwork.parts`)."""
        return "classifier"


class LinearHead(Head):
    """1x1 classifier with weight and bias; parameters `weight` (C, D) and `bias` (C,)."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        layer = nn.Linear(channels, outputs)
        self.weight, self.bias = layer.weight, layer.bias

    @property
    def outputs(self) -> int:
        """Background and classes known so far."""
        return len(self.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Return logits (B, C, h, w) of features (B, D, h, w)."""
        return _linear(features, self.weight, self.bias)

    def set(self, weight: Tensor, bias: Tensor) -> None:
        """Take over the numbers of all outputs."""
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)

    def grow(self, outputs: int) -> None:
        """Append outputs with the layer's default initialisation."""
        fresh = nn.Linear(self.weight.shape[1], outputs).to(self.weight)
        weight = torch.cat([self.weight.detach(), fresh.weight.detach()])
        self.set(weight, torch.cat([self.bias.detach(), fresh.bias.detach()]))

    def stepwise(self) -> StepwiseHead:
        """Return a head of the same numbers whose outputs of the last step are parameters of their own."""
        return StepwiseHead(self)


class StepwiseHead(Head):
    """A linear head whose outputs of the last step are parameters of their own, to be trained otherwise than the rest.

    It computes and is saved as a linear head: `weight` and `bias` are those of all outputs. Parameters `known_weight`,
    `known_bias`, `new_weight` and `new_bias`; before it has grown there are new outputs alone.
    """

    def __init__(self, head: LinearHead) -> None:
        super().__init__()
        self._divide(head.weight.detach(), head.bias.detach(), 0)

    def _divide(self, weight: Tensor, bias: Tensor, known: int) -> None:
        self.known_weight, self.new_weight = (nn.Parameter(part.clone()) for part in (weight[:known], weight[known:]))
        self.known_bias, self.new_bias = (nn.Parameter(part.clone()) for part in (bias[:known], bias[known:]))

    @property
    def outputs(self) -> int:
        """Background and classes known so far."""
        return len(self.known_bias) + len(self.new_bias)

    def part_of(self, parameter: str) -> Part:
        """Return `new` for the outputs of the last step."""
        return "new" if parameter.startswith("new_") else "classifier"

    @property
    def weight(self) -> Tensor:
        """All outputs' weights (C, D)."""
        return torch.cat([self.known_weight, self.new_weight])

    @property
    def bias(self) -> Tensor:
        """All outputs' biases (C,)."""
        return torch.cat([self.known_bias, self.new_bias])

    def forward(self, features: Tensor) -> Tensor:
        """Return logits (B, C, h, w) of features (B, D, h, w)."""
        return _linear(features, self.weight, self.bias)

    def set(self, weight: Tensor, bias: Tensor) -> None:
        """Take over the numbers of all outputs."""
        self._divide(weight, bias, len(self.known_weight))

    def grow(self, outputs: int) -> None:
        """Append outputs with the layer's default initialisation; those that were there are known ones now."""
        fresh, known = nn.Linear(self.new_weight.shape[1], outputs).to(self.new_weight), len(self.weight)
        weight = torch.cat([self.weight.detach(), fresh.weight.detach()])
        self._divide(weight, torch.cat([self.bias.detach(), fresh.bias.detach()]), known)

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        for name, joined in (("weight", self.weight), ("bias", self.bias)):
            destination[prefix + name] = joined if keep_vars else joined.detach()

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        known = len(self.known_weight)
        for name, own in (("weight", self.weight), ("bias", self.bias)):
            given = state_dict.get(prefix + name)
            if given is None:
                missing_keys.append(prefix + name)
            elif given.shape != own.shape:
                error_msgs.append(f"{prefix}{name}: {tuple(given.shape)}, not {tuple(own.shape)}")
            else:
                with torch.no_grad():
                    getattr(self, f"known_{name}").copy_(given[:known])
                    getattr(self, f"new_{name}").copy_(given[known:])


class AuxiliaryHead(LinearHead):
    """DKD's head: output 0 is an auxiliary classifier in the place of the background's, the others are the classes'.

    The auxiliary one sees detached features: no gradient goes from it into these. The prediction is the class of the
    largest sigmoid if that is above 1/2, else the background.
    """

    def forward(self, features: Tensor) -> Tensor:
        """Return logits (B, C, h, w) of features (B, D, h, w)."""
        return _with_auxiliary(features, self.weight, self.bias)

    def scores(self, logits: Tensor) -> Tensor:
        """Return the logits with 0, the logit of 1/2, as the background's score."""
        return _above_a_half(logits)

    def stepwise(self) -> StepwiseHead:
        """Return a head of the same numbers whose outputs of the last step are parameters of their own."""
        return StepwiseAuxiliaryHead(self)


class StepwiseAuxiliaryHead(StepwiseHead):
    """An auxiliary head whose outputs of the last step are parameters of their own."""

    def forward(self, features: Tensor) -> Tensor:
        """Return logits (B, C, h, w) of features (B, D, h, w)."""
        return _with_auxiliary(features, self.weight, self.bias)

    def scores(self, logits: Tensor) -> Tensor:
        """Return the logits with 0, the logit of 1/2, as the background's score."""
        return _above_a_half(logits)


def _linear(features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.conv2d(features, weight[:, :, None, None], bias)


def _with_auxiliary(features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    auxiliary = _linear(features.detach(), weight[:1], bias[:1])
    return torch.cat([auxiliary, _linear(features, weight[1:], bias[1:])], 1)


def _above_a_half(logits: Tensor) -> Tensor:
    """Put 0 in the place of output 0; sigmoids themselves would be equal where they are near 0 or 1."""
    return torch.cat([torch.zeros_like(logits[:, :1]), logits[:, 1:]], 1)


class CosineHead(Head):
    """Eq. 8: logit_c = tau cos(u_c, F), no bias; parameter `weight` (C, D)."""

    def __init__(self, channels: int, outputs: int, tau: float = 12.0) -> None:
        super().__init__()
        self.tau = tau
        self.weight = nn.Linear(channels, outputs, bias=False).weight

    @property
    def outputs(self) -> int:
        """Background and classes known so far."""
        return len(self.weight)

    def forward(self, features: Tensor) -> Tensor:
        """Return logits (B, C, h, w) of features (B, D, h, w)."""
        directions = F.normalize(self.weight, dim=1)[:, :, None, None]
        return self.tau * F.conv2d(F.normalize(features, dim=1), directions)

    def grow(self, outputs: int) -> None:
        """Append outputs with the layer's default initialisation."""
        fresh = nn.Linear(self.weight.shape[1], outputs, bias=False).to(self.weight)
        self.weight = nn.Parameter(torch.cat([self.weight.detach(), fresh.weight.detach()]))
