"""SSUL's per-pixel classifier: layers of their own for the background, for the unknown class and for each step."""

from __future__ import annotations

import copy
from typing import ClassVar

import torch
from torch import Tensor, nn

from strategies.networks.heads import Head
from strategies.networks.settings import Part


class GroupedHead(Head):
    """Groups of outputs, each a 3 x 3 convolution, BatchNorm, ReLU and a 1 x 1 convolution with bias (OFFLINE, 1.1).

    Logits (B, outputs + 1, h, w) of features (B, D, h, w): the background, the classes step by step, the unknown class.
    """

    scores_scale: ClassVar[bool] = False

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        self.channels = channels
        self.unknown = _group(channels, 1)
        self.background = _group(channels, 1)
        self.steps = nn.ModuleList([_group(channels, outputs - 1)])

    @property
    def outputs(self) -> int:
        """Background and classes known so far; the unknown class is not counted."""
        return 1 + sum(_classifier(group).out_channels for group in self.steps)

    def forward(self, features: Tensor) -> Tensor:
        """Return logits (B, outputs + 1, h, w) of features (B, D, h, w)."""
        return torch.cat([group(features) for group in (self.background, *self.steps, self.unknown)], 1)

    def scores(self, logits: Tensor) -> Tensor:
        """Return the sigmoids (B, outputs, H, W) of logits (B, outputs + 1, H, W), the unknown's added to the
        background's.
        """
        sigmoids = logits.sigmoid()
        background = sigmoids[:, :1] + sigmoids[:, -1:]
        return torch.cat([background, sigmoids[:, 1:-1]], 1)

    def grow(self, outputs: int) -> None:
        """Append a group of outputs with the layers' default initialisation."""
        self.steps.append(_group(self.channels, outputs).to(_classifier(self.unknown).weight))

    def start_as_unknown(self) -> None:
        """Copy all of the unknown class's layers, BatchNorm's statistics too, to each output of the last step."""
        last = _classifier(self.steps[-1])
        fresh = copy.deepcopy(self.unknown)
        fresh[-1] = last
        state, outputs = _classifier(self.unknown).state_dict(), last.out_channels
        last.load_state_dict({name: tensor.repeat_interleave(outputs, 0) for name, tensor in state.items()})
        self.steps[-1] = fresh

    def part_of(self, parameter: str) -> Part:
        """Return `new` for the last step's outputs and the unknown class, `background` for that."""
        if parameter.startswith(("unknown.", f"steps.{len(self.steps) - 1}.")):
            return "new"
        return "background" if parameter.startswith("background.") else "classifier"


def _group(channels: int, outputs: int) -> nn.Sequential:
    """Return the layers of so many outputs."""
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
        nn.Conv2d(channels, outputs, 1),
    )


def _classifier(group: nn.Module) -> nn.Conv2d:
    last = group.get_submodule("3")
    assert isinstance(last, nn.Conv2d)
    return last
