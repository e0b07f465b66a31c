"""Settings of networks and what they say of their input, readable without torch."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal, NamedTuple

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)
"""For dataclasses of settings and hyper-parameters: an unknown name is an error."""

HeadName = Literal["linear", "cosine", "grouped", "auxiliary"]
Precision = Literal["fp32", "bf16"]
Part = Literal["backbone", "pyramid", "background", "classifier", "new"]
"""Parts of a network (`SegmentationNetwork.parts`): `new` are the outputs of an increment, `background` is that of a
head in which it has layers of its own."""
OF_INCREMENTS: frozenset[Part] = frozenset({"new", "background"})
"""Those that only increments tell apart: in a base step all outputs are `classifier`."""
NO_WEIGHTS = "none"
"""What `network.weights` says where a network starts from random weights."""


@dataclasses.dataclass(frozen=True)
class Called:
    """In the `Annotated` type of a setting: what else people call it. It is told to them and is no other name of it."""

    names: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Later:
    """In the `Annotated` type of a method's parameter, or of a setting: there were runs before it, as with its default.

    At its default it is in no run's hash.
    """


@dataclass(frozen=True, config=STRICT)
class NetworkSettings:
    """Settings that every network has; a plug-in's own derive from these, and what they add has defaults."""

    name: Annotated[str, Called(("model", "backbone", "architecture"))]
    """`small`, or `package:small` where several packages declare the name."""
    weights: Annotated[str, Called(("pretrained", "checkpoint"))]
    """What its backbone starts from: `none`, weights that it knows by name (`package:NAME`: of a package), a file."""


class Normalisation(NamedTuple):
    """What a network's input is: (colour - mean) / deviation of red, green and blue, each from 0 to 1."""

    mean: tuple[float, float, float]
    deviation: tuple[float, float, float]


OF_IMAGENET = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""The mean and deviation of ImageNet's colours, which most weights trained on it expect."""
