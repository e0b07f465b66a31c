"""torch's generators go on from where they were."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from strategies.learning.randomness import generator_states, set_generator_states


def test_the_cpus_generator_goes_on_from_its_state() -> None:
    cpu = torch.device("cpu")
    states = generator_states(cpu)
    drawn = torch.rand(4)
    set_generator_states(states, cpu)
    assert set(states) == {"cpu"}
    assert torch.equal(torch.rand(4), drawn)


def test_a_gpus_own_generator_is_kept_beside_the_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu, set_to = torch.device("cuda", 1), dict[str, Tensor]()
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: torch.full((3,), device.index))
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: set_to.update({str(device): state}))
    states = generator_states(gpu)
    drawn = torch.rand(4)
    set_generator_states(states, gpu)
    assert set(states) == {"cpu", "cuda"}
    assert {device: state.tolist() for device, state in set_to.items()} == {"cuda:1": [1, 1, 1]}
    assert torch.equal(torch.rand(4), drawn)
