"""How much each parameter matters to what was learned: the measures of EWC, PI and RW.

The equations are those of the published code of the methods for segmentation (MiB's baselines).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from strategies.networks.network import SegmentationNetwork

Tensors = dict[str, Tensor]


class Piece(NamedTuple):
    """A parameter, or the rows of the head's that one step has added: what a measure is scaled over."""

    parameter: nn.Parameter
    rows: slice | None = None

    @property
    def value(self) -> Tensor:
        """A view of the numbers."""
        whole = self.parameter.detach()
        return whole if self.rows is None else whole[self.rows]

    @property
    def gradient(self) -> Tensor | None:
        """A view of their gradient; None where there is none."""
        whole = self.parameter.grad
        return whole if whole is None or self.rows is None else whole[self.rows]


def pieces(network: SegmentationNetwork, outputs: Sequence[int]) -> dict[str, Piece]:
    """Return the network's parameters by name, those of the head by step: `outputs` is how many each step has added.

    A piece's name stays when the network grows: a step's new outputs are new pieces.
    """
    found = {f"backbone.{name}": Piece(p) for name, p in network.backbone.named_parameters()}
    of_head: dict[str, list[nn.Parameter]] = {}
    for name, parameter in network.head.named_parameters():
        of_head.setdefault(name.removeprefix("known_").removeprefix("new_"), []).append(parameter)
    for name, parts in of_head.items():
        found.update(_rows(f"head.{name}", parts, outputs))
    return found


def _rows(name: str, parts: Sequence[nn.Parameter], outputs: Sequence[int]) -> dict[str, Piece]:
    """Return the rows of each step of a parameter that lies in one part or in two (`StepwiseHead`)."""
    if sum(map(len, parts)) != sum(outputs):  # it has no row for each output
        return {name if n == 0 else f"{name}.{n}": Piece(part) for n, part in enumerate(parts)}
    found, first = {}, 0
    for count in outputs:
        offset = 0
        for part in parts:
            if offset <= first < offset + len(part):
                found[f"{name}.{first}"] = Piece(part, slice(first - offset, first - offset + count))
            offset += len(part)
        first += count
    return found


def scaled(importance: Tensor) -> Tensor:
    """Return (x - min) / (max - min + 1e-8), of one tensor."""
    least, most = importance.aminmax()
    return (importance - least) / (most - least + 1e-8)


class Measure(ABC):
    """Follows a training, update by update; `tensors` is all that it knows, by what they are and by piece."""

    kinds: ClassVar[tuple[str, ...]]

    def __init__(self) -> None:
        self.updates = 0  # of the present step
        self.tensors: dict[str, Tensors] = {kind: {} for kind in self.kinds}

    @abstractmethod
    def start(self, parts: Mapping[str, Piece]) -> None:
        """A step begins: `parts` has new pieces, those that were there are unchanged."""

    @abstractmethod
    def follow(self, parts: Mapping[str, Piece]) -> None:
        """The gradients of a batch's loss are there, and the parameters have not been updated by them."""

    @abstractmethod
    def finish(self, parts: Mapping[str, Piece]) -> None:
        """A step ends."""

    @abstractmethod
    def importance(self) -> Tensors:
        """Return the importance of each piece, of its shape and scaled, after a step."""


def _gradients(parts: Mapping[str, Piece]) -> dict[str, tuple[Tensor, Tensor]]:
    """Return value and gradient of the pieces that have one."""
    return {name: (piece.value, g) for name, piece in parts.items() if (g := piece.gradient) is not None}


class Fisher(Measure):
    """EWC's: F <- 0.9 g^2 + 0.1 F at every update of every step, 1 for new parameters. Scaled it lies in [0, 1]."""

    kinds: ClassVar[tuple[str, ...]] = ("fisher",)

    def start(self, parts: Mapping[str, Piece]) -> None:
        """Begin new pieces at 1."""
        for name in parts.keys() - self.tensors["fisher"].keys():
            self.tensors["fisher"][name] = torch.ones_like(parts[name].value)

    def follow(self, parts: Mapping[str, Piece]) -> None:
        """Take in the square of a gradient."""
        for name, (_, g) in _gradients(parts).items():
            self.tensors["fisher"][name].mul_(0.1).addcmul_(g, g, value=0.9)

    def finish(self, parts: Mapping[str, Piece]) -> None:
        """F goes on in the next step as it is."""

    def importance(self) -> Tensors:
        """Return F, scaled."""
        return {name: scaled(f) for name, f in self.tensors["fisher"].items()}


class PathIntegral(Measure):
    """PI's: what a parameter's way lowered the loss by, over the square of the way's length. Scaled it lies in [0, 1].

    w sums g (theta_before - theta_after) over a step's updates, with theta at the last call and at this one and the
    gradient g of this call; at the step's end the score grows by relu(w / ((theta - theta_start)^2 + 1e-20)).
    """

    kinds = ("score", "decrease", "start", "last")

    def start(self, parts: Mapping[str, Piece]) -> None:
        """Begin the step's ways where the parameters are."""
        for name, piece in parts.items():
            self.tensors["score"].setdefault(name, torch.zeros_like(piece.value))
            self.tensors["decrease"][name] = torch.zeros_like(piece.value)
            self.tensors["start"][name], self.tensors["last"][name] = piece.value.clone(), piece.value.clone()

    def follow(self, parts: Mapping[str, Piece]) -> None:
        """Take in the way since the last call."""
        for name, (value, g) in _gradients(parts).items():
            last = self.tensors["last"][name]
            self.tensors["decrease"][name].addcmul_(g, last - value)
            last.copy_(value)

    def finish(self, parts: Mapping[str, Piece]) -> None:
        """Add the step's score."""
        for name, piece in parts.items():
            way = piece.value - self.tensors["start"][name]
            self.tensors["score"][name] += (self.tensors["decrease"][name] / (way**2 + 1e-20)).relu()

    def importance(self) -> Tensors:
        """Return the score, scaled."""
        return {name: scaled(score) for name, score in self.tensors["score"].items()}


class RiemannianWalk(Fisher):
    """RW's: EWC's F, and what a parameter lowered the loss by over the distance it went in F's metric.

    Every 10 updates the step's score grows by g (theta_then - theta_now) / (0.5 F (theta_now - theta_then)^2 + 1e-8);
    at the step's end its negative parts become 0, and the score is the mean of it and of the score before, 0 at first.
    The sum of both, scaled, lies in [0, 2].
    """

    kinds = ("fisher", "score", "step_score", "then")
    every = 10

    def start(self, parts: Mapping[str, Piece]) -> None:
        """Begin the step's ways where the parameters are."""
        super().start(parts)
        self.updates = 0
        for name, piece in parts.items():
            self.tensors["score"].setdefault(name, torch.zeros_like(piece.value))
            self.tensors["step_score"][name] = torch.zeros_like(piece.value)
            self.tensors["then"][name] = piece.value.clone()

    def follow(self, parts: Mapping[str, Piece]) -> None:
        """Take in the square of a gradient, and every 10 updates the way."""
        super().follow(parts)
        if self.updates > 0 and self.updates % self.every == 0:
            for name, (value, g) in _gradients(parts).items():
                then, fisher = self.tensors["then"][name], self.tensors["fisher"][name]
                way = value - then
                self.tensors["step_score"][name] -= g * way / (0.5 * fisher * way**2 + 1e-8)
                then.copy_(value)
        self.updates += 1

    def finish(self, parts: Mapping[str, Piece]) -> None:
        """Average the step's score with that before it."""
        for name in parts:
            self.tensors["score"][name] += self.tensors["step_score"][name].relu()
            self.tensors["score"][name] /= 2

    def importance(self) -> Tensors:
        """Return F and the score, each scaled, added."""
        return {name: f + scaled(self.tensors["score"][name]) for name, f in super().importance().items()}


class BaseMeasures:
    """What a base training measures for all methods that ask for it: PI's, and RW's, whose F is EWC's too."""

    kept: ClassVar[tuple[str, ...]] = ("fisher", "score")
    """The kinds that outlive a step."""

    def __init__(self, network: SegmentationNetwork) -> None:
        self.network = network
        self.measures: dict[str, Measure] = {"pi": PathIntegral(), "rw": RiemannianWalk()}
        for measure in self.measures.values():
            measure.start(self._pieces())

    def _pieces(self) -> dict[str, Piece]:
        return pieces(self.network, [self.network.outputs])

    def follow(self) -> None:
        """The gradients of a batch's loss are there, and the parameters have not been updated by them."""
        parts = self._pieces()
        for measure in self.measures.values():
            measure.follow(parts)

    def finish(self) -> None:
        """The training ends: the network is as its last update has left it."""
        for measure in self.measures.values():
            measure.finish(self._pieces())

    def found(self) -> dict[str, dict[str, Tensors]]:
        """Return what a finished training has found, by measure and by kind."""
        return {
            name: {kind: tensors for kind, tensors in measure.tensors.items() if kind in self.kept}
            for name, measure in self.measures.items()
        }

    def state_dict(self) -> dict[str, Any]:
        """Return what the next epoch goes on from."""
        return {name: {"updates": m.updates, "tensors": m.tensors} for name, m in self.measures.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        for name, measure in self.measures.items():
            measure.updates = state[name]["updates"]
            for kind, tensors in state[name]["tensors"].items():
                for piece, tensor in tensors.items():
                    measure.tensors[kind][piece].copy_(tensor)
