"""A-GEM against its closed form: what the update uses is the projection of one batch's gradient on another's."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import numpy as np
import pytest
import reference
import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor
from toy import BATCHES, FLOAT32, Loads, Onlooker, annotation, make, mean_nll, rerun, statistics, told, train

from strategies.agem import project

SHAPES = ((4, 3), (5,), (2, 2, 2))


def tensors(values: np.ndarray) -> list[Tensor]:
    """`values` as a gradient of three parameters, float32."""
    parts = np.split(values, np.cumsum([np.prod(s) for s in SHAPES])[:-1].astype(int))
    return [torch.tensor(p.reshape(s), dtype=torch.float32) for p, s in zip(parts, SHAPES, strict=True)]


def flat(gradient: list[Tensor]) -> np.ndarray:
    return np.concatenate([g.detach().double().numpy().ravel() for g in gradient])


def projected(g: np.ndarray, g_ref: np.ndarray) -> np.ndarray:
    """The closed form, on vectors."""
    product = float(np.dot(g, g_ref))
    return g - product / float(np.dot(g_ref, g_ref)) * g_ref if product < 0 else g


# ------------------------------------------------------------------------------------------------- the projection


def test_the_projection_by_hand() -> None:
    """g = (1, 2 | 3), g_ref = (-2, 0 | 0): g . g_ref = -2, g_ref . g_ref = 4, so g + 1/2 g_ref."""
    gradient = [torch.tensor([1.0, 2.0]), torch.tensor([3.0])]
    project(gradient, [torch.tensor([-2.0, 0.0]), torch.tensor([0.0])])
    assert [g.tolist() for g in gradient] == [[0.0, 2.0], [3.0]]


def test_the_projection_equals_the_closed_form_and_its_product_with_the_reference_is_not_negative() -> None:
    rng = np.random.default_rng(0)
    against = 0
    for _ in range(50):
        g, g_ref = rng.normal(size=(2, 25))
        gradient, given = tensors(g), tensors(g_ref)
        project(gradient, given)
        np.testing.assert_allclose(flat(gradient), projected(g, g_ref), rtol=1e-5, atol=1e-5)
        assert np.dot(flat(gradient), g_ref) > -1e-5
        np.testing.assert_array_equal(flat(given), flat(tensors(g_ref)))
        against += np.dot(g, g_ref) < 0
    assert 10 < against < 40


def test_a_gradient_with_a_positive_or_no_product_is_not_touched() -> None:
    for other in ([1.0, 0.5], [2.0, -1.0]):
        gradient = [torch.tensor([0.1]), torch.tensor([0.2])]
        before = copy.deepcopy(gradient)
        project(gradient, [torch.tensor(other[:1]), torch.tensor(other[1:])])
        assert all(torch.equal(a, b) for a, b in zip(gradient, before, strict=True))


def test_the_product_is_that_of_the_whole_gradient_not_of_one_parameter() -> None:
    """(1 | 3) . (-1 | 1) = 2 > 0 though the first part's is negative; (1 | 1) . (-3 | 1) = -2 < 0 turns both parts."""
    gradient = [torch.tensor([1.0]), torch.tensor([3.0])]
    project(gradient, [torch.tensor([-1.0]), torch.tensor([1.0])])
    assert [g.item() for g in gradient] == [1.0, 3.0]
    gradient = [torch.tensor([1.0]), torch.tensor([1.0])]
    project(gradient, [torch.tensor([-3.0]), torch.tensor([1.0])])
    assert [g.item() for g in gradient] == pytest.approx([0.4, 1.2])


@pytest.mark.parametrize("size", [0.0, -1e-30])
def test_a_reference_of_zero_or_next_to_it_is_harmless(size: float) -> None:
    """The square of 1e-30 is 0 in single precision: the projection must not divide by it."""
    gradient = [torch.tensor([1.0, 2.0])]
    project(gradient, [torch.tensor([size, 0.0])])
    assert gradient[0].tolist() in ([1.0, 2.0], [0.0, 2.0])


# --------------------------------------------------------------------------------------------------- on the stream


class Passes(SupervisedPlugin):
    """Repeats the two backward passes of each batch on copies of the network made before it."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[dict[str, Any]] = []

    def before_training_epoch(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        self.network = copy.deepcopy(strategy.network)

    def before_forward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        before = statistics({k: v.clone() for k, v in strategy.network.state_dict().items()})
        self.batches.append({"before": before, "network": rerun(self.network, train=True)})
        self.batches[-1]["single"] = copy.deepcopy(self.network).train()

    def after_backward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        got = [p.grad.clone() for p in strategy.network.parameters()]
        moved = statistics({k: v.clone() for k, v in strategy.network.state_dict().items()})
        self.batches[-1] |= {"gradient": flat(got), "moved": moved, "incoming": [p.clone() for p in strategy.mbatch]}

    def after_training_iteration(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        self.network = copy.deepcopy(strategy.network)


def gradient_of(network: torch.nn.Module, batch: list[Tensor]) -> np.ndarray:
    images, labels, steps, _ = batch
    network.zero_grad()
    torch.autograd.backward(mean_nll(network(images.double()), torch.from_numpy(told(labels, steps))))
    return flat([p.grad for p in network.parameters()])


@cache
def observed() -> tuple[Passes, Loads, Onlooker, Any]:
    """Two steps at a learning rate at which the two gradients come to disagree."""
    passes, loads, onlooker = Passes(), Loads(), Onlooker()
    template = make("agem", [passes, onlooker], settings=["incremental.lr=0.1", "memory.size=6"])
    train(loads.watch(template))
    return passes, loads, onlooker, template


def test_what_the_optimiser_gets_is_the_closed_form_of_two_independent_backward_passes() -> None:
    passes, loads, _, _ = observed()
    against = 0
    for seen, (_, memory) in zip(passes.batches, loads.batches, strict=True):
        g = gradient_of(copy.deepcopy(seen["network"]), seen["incoming"])
        g_ref = gradient_of(copy.deepcopy(seen["network"]), memory)
        expected = projected(g, g_ref)
        np.testing.assert_allclose(seen["gradient"], expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
        if np.dot(g, g_ref) < 0:
            against += 1
            assert abs(np.dot(seen["gradient"], g_ref)) < 1e-4 * np.linalg.norm(g) * np.linalg.norm(g_ref)
            assert np.linalg.norm(expected - g) > 1e-2 * np.linalg.norm(g)
    assert 0 < against < len(passes.batches)


def test_the_memory_batch_would_have_another_gradient_under_running_statistics_or_joined_to_the_incoming() -> None:
    """So that the test above tells these apart."""
    passes, loads, _, _ = observed()
    for seen, (_, memory) in zip(passes.batches, loads.batches, strict=True):
        network = seen["network"]
        g_ref = gradient_of(copy.deepcopy(network), memory)
        running = gradient_of(copy.deepcopy(network).eval(), memory)
        joined = [torch.cat([a, b]) for a, b in zip(seen["incoming"], memory, strict=True)]
        for other in (running, gradient_of(copy.deepcopy(network), joined)):
            assert np.linalg.norm(other - g_ref) > 0.05 * np.linalg.norm(g_ref)


def test_the_incoming_pass_moves_batchnorms_statistics_once_and_the_memory_pass_never() -> None:
    passes, _, _, _ = observed()
    for seen in passes.batches:
        once = seen["single"]
        untouched = statistics(once.state_dict())
        assert all(torch.equal(seen["before"][k], untouched[k]) for k in untouched)
        with torch.no_grad():
            once(seen["incoming"][0])
        moved = statistics(once.state_dict())
        for key, value in moved.items():
            torch.testing.assert_close(seen["moved"][key], value, rtol=1e-6, atol=1e-7)
            if "num_batches" in key:
                assert int(seen["moved"][key] - seen["before"][key]) == 1
    assert any(not torch.equal(seen["moved"][k], seen["before"][k]) for k in moved if "running" in k)


def test_the_incoming_loss_sees_the_incoming_images_alone_and_the_memory_batch_is_as_large() -> None:
    _, loads, onlooker, _ = observed()
    for iteration, (exemplars, memory) in zip(onlooker.iterations, loads.batches, strict=True):
        assert iteration.replayed == []
        assert len(iteration.incoming) == len(iteration.images) == len(exemplars) == len(memory[0])
        assert iteration.loss == pytest.approx(reference.cross_entropy(iteration.logits, iteration.told), FLOAT32)
        assert len({id(e) for e in exemplars}) == len(exemplars)


def test_the_memory_batch_carries_the_annotations_it_arrived_with() -> None:
    _, loads, _, _ = observed()
    assert {e.step for exemplars, _ in loads.batches for e in exemplars} >= {0, 1}
    for exemplars, memory in loads.batches:
        for exemplar, labels, step in zip(exemplars, memory[1], memory[2].tolist(), strict=True):
            assert step == exemplar.step
            np.testing.assert_array_equal(labels.numpy(), annotation(exemplar.image_id, step))


def test_a_batch_costs_two_forward_and_two_backward_passes() -> None:
    _, _, _, template = observed()
    cost = template.cost
    assert (cost.forward_passes, cost.backward_passes, cost.updates) == (2 * BATCHES[1], 2 * BATCHES[1], BATCHES[1])


def test_with_an_empty_memory_the_gradient_is_the_incoming_batchs() -> None:
    passes = Passes()
    template = make("agem", [passes])
    method: Any = template.method
    method.memory.offer = lambda *_: None
    train(template, steps=[1], fill=False)
    for seen in passes.batches:
        g = gradient_of(seen["network"], seen["incoming"])
        np.testing.assert_allclose(seen["gradient"], g, rtol=1e-3, atol=1e-4 * np.abs(g).max())
    assert template.cost.backward_passes == template.cost.forward_passes == BATCHES[0]


@pytest.mark.parametrize("mode", ["train", "frozen"])
def test_batchnorm_layers_work_as_before_after_the_memory_pass(mode: str) -> None:
    modes: list[set[tuple[bool, bool]]] = []

    class Look(SupervisedPlugin):
        def before_forward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
            layers = [m for m in strategy.network.modules() if isinstance(m, torch.nn.BatchNorm2d)]
            modes.append({(m.training, m.track_running_stats) for m in layers})

    train(make("agem", [Look()], settings=[f"incremental.batchnorm={mode}"]))
    assert modes == [{(mode == "train", True)}] * sum(BATCHES)
