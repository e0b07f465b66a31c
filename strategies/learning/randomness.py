"""The seeds of a run, and torch's own generators, from which dropout and initialisation draw."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Seeds:
    """One seed per kind of randomness, so that a change of one leaves the others' draws alone."""

    initialisation: int
    order: int
    augmentation: int
    memory: int


def generator_states(device: torch.device) -> dict[str, Tensor]:
    """Return the states, uint8, of the CPU's generator and of the device's, where it is a GPU."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def set_generator_states(states: dict[str, Tensor], device: torch.device) -> None:
    """Go on drawing from where `generator_states` was called."""
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"], device)
