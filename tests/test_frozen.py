"""Networks with parameters that are frozen, and with some that no loss depends on: both count as gradient 0."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from avalanche.core import SupervisedPlugin
from test_agem import projected
from test_mir import LR, candidates_of, exhaustive, known
from test_sequential import ONLINE
from torch import Tensor, nn
from toy import Loads, make, mean_nll, rerun, train

from strategies.learning.template import OnlineTemplate
from strategies.mir import interference


def freeze(network: nn.Module) -> None:
    for name, parameter in network.named_parameters():
        parameter.requires_grad = "stem.0" not in name


def add_unused(network: nn.Module) -> None:
    network.unused = nn.Parameter(torch.ones(5))


CHANGES: dict[str, Callable[[nn.Module], None]] = {"frozen": freeze, "unused": add_unused}
every_change = pytest.mark.parametrize("change", CHANGES)


def changed(name: str, change: str, plugins: tuple[Any, ...] = (), **options: Any) -> OnlineTemplate:
    template = make(name, plugins, settings=[f"incremental.lr={LR}", "memory.size=12"], **options)
    CHANGES[change](template.network)
    return template


@every_change
@pytest.mark.parametrize("name", ONLINE)
def test_every_method_trains_what_can_be_trained_and_nothing_else(name: str, change: str) -> None:
    template = changed(name, change)
    before = {key: p.detach().clone() for key, p in template.network.named_parameters()}
    train(template, steps=[1])
    for key, parameter in template.network.named_parameters():
        still = "stem.0" in key if change == "frozen" else key == "unused"
        assert torch.equal(parameter[: len(before[key])], before[key]) == still, key


@pytest.mark.parametrize("name", ["agem", "mir"])
def test_a_parameter_that_no_loss_depends_on_changes_no_number(name: str) -> None:
    with_unused, without = changed(name, "unused"), make(name, settings=[f"incremental.lr={LR}", "memory.size=12"])
    weights = [train(template).network.state_dict() for template in (with_unused, without)]
    for key, value in weights[1].items():
        torch.testing.assert_close(weights[0][key], value, rtol=1e-4, atol=1e-6)


def flat_gradient(network: nn.Module) -> np.ndarray:
    parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in network.parameters()]
    return np.concatenate([part.double().numpy().ravel() for part in parts])


class Projections(SupervisedPlugin):
    """What the optimiser gets, and a copy of the network from before the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[nn.Module, list[Tensor], np.ndarray]] = []

    def before_forward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        self.network = rerun(strategy.network, train=True)

    def after_backward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        incoming = [part.clone() for part in strategy.mbatch]
        self.seen.append((self.network, incoming, flat_gradient(strategy.network)))


@every_change
def test_agems_projection_is_that_of_the_gradient_that_is_left(change: str) -> None:
    projections, loads = Projections(), Loads()
    template = changed("agem", change, (projections,))
    train(loads.watch(template))

    def gradient(network: nn.Module, batch: list[Tensor]) -> np.ndarray:
        twin = copy.deepcopy(network)
        twin.zero_grad()
        images, labels = known(batch)
        torch.autograd.backward(mean_nll(twin(images.double()), labels))
        return flat_gradient(twin)

    against = 0
    for (network, incoming, got), (_, memory) in zip(projections.seen, loads.batches, strict=True):
        g, g_ref = gradient(network, incoming), gradient(network, memory)
        np.testing.assert_allclose(got, projected(g, g_ref), rtol=1e-3, atol=1e-4 * np.abs(g).max())
        against += np.dot(g, g_ref) < 0
    assert against > 0


@every_change
def test_mirs_virtual_step_moves_what_can_be_trained(change: str) -> None:
    template = changed("mir", change)
    template.network.grow(1)
    incoming, candidates = candidates_of(template, 1)
    template.mbatch = incoming
    rise = interference(template, incoming[1], *candidates[:2]).numpy()
    means, _ = exhaustive(template.network, incoming, candidates)
    np.testing.assert_allclose(rise, means, rtol=1e-6, atol=1e-9)
