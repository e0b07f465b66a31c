"""The importance of parameters by EWC, PI and RW against slow derivations, and the penalty made of it."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor, nn
from toy import benchmark, equal, make
from usual import usual

from strategies.ewc import Ewc
from strategies.finetune import Finetune
from strategies.learning.importance import (
    Fisher,
    Measure,
    PathIntegral,
    RiemannianWalk,
    pieces,
    scaled,
)
from strategies.learning.regularised import Regularised
from strategies.networks.heads import LinearHead, StepwiseHead
from strategies.networks.network import SegmentationNetwork
from strategies.pi import Pi
from strategies.rw import Rw

SETTINGS = [
    "protocol=offline",
    "incremental.epochs=9",
    "incremental.batch_size=4",
    "incremental.lr=0.02",
    "memory.size=0",
]
EXACT = {"rtol": 1e-12, "atol": 1e-14}
CURVATURE, RATE = 0.7, 0.05


def tiny() -> SegmentationNetwork:
    torch.manual_seed(2)
    return SegmentationNetwork(nn.Conv2d(1, 2, 1).double(), LinearHead(2, 3).double())


def quadratic(network: SegmentationNetwork) -> Tensor:
    """The loss 0.35 sum theta^2, its gradients left behind."""
    network.zero_grad()
    loss = sum((CURVATURE / 2 * (p**2).sum() for p in network.parameters()), torch.zeros(()))
    torch.autograd.backward(loss)
    return loss.detach()


def descend(measure: Measure, network: SegmentationNetwork, updates: int, rate: float = RATE) -> list[float]:
    """Plain gradient descent, followed from its start to its end; returns the losses at the calls."""
    measure.start(pieces(network, [3]))
    losses = []
    for _ in range(updates):
        losses.append(float(quadratic(network)))
        measure.follow(pieces(network, [3]))
        with torch.no_grad():
            for p in network.parameters():
                assert p.grad is not None
                p -= rate * p.grad
    measure.finish(pieces(network, [3]))
    return losses


def test_ewcs_f_on_a_quadratic_loss_is_a_geometric_sum() -> None:
    network, k = tiny(), 7
    start = {name: piece.value.clone() for name, piece in pieces(network, [3]).items()}
    fisher = Fisher()
    descend(fisher, network, k)
    r = (1 - RATE * CURVATURE) ** 2  # by which an update shrinks the gradient's square
    for name, theta in start.items():
        expected = 0.1**k + 0.9 * (CURVATURE * theta) ** 2 * (r**k - 0.1**k) / (r - 0.1)
        torch.testing.assert_close(fisher.tensors["fisher"][name], expected, **EXACT)


def test_pis_integral_is_what_the_loss_has_fallen_by() -> None:
    measure = PathIntegral()
    losses = descend(measure, tiny(), 500, rate=0.002)
    fallen = sum(float(w.sum()) for w in measure.tensors["decrease"].values())
    assert abs(fallen / (losses[0] - losses[-1]) - 1) < 0.01


@pytest.mark.parametrize(("measure_class", "most"), [(Fisher, 1.0), (PathIntegral, 1.0), (RiemannianWalk, 2.0)])
def test_importance_is_scaled_and_none_where_nothing_moved(measure_class: type[Measure], most: float) -> None:
    network, measure = tiny(), measure_class()
    with torch.no_grad():
        network.head.weight[1] = 0.0  # there the quadratic loss has no gradient
    descend(measure, network, 40)
    importance = measure.importance()
    for omega in importance.values():
        assert omega.min() >= 0 and omega.max() <= most + 1e-12
    assert importance["head.weight.0"][1].abs().max() == 0
    assert importance["head.weight.0"].max() > 0.5


def test_scaling_is_between_the_least_and_the_most_of_a_tensor() -> None:
    assert scaled(torch.tensor([3.0, 1.0, 2.0])).tolist() == pytest.approx([1.0, 0.0, 0.5])
    assert scaled(torch.full((4,), 7.0)).tolist() == [0.0] * 4


def test_a_steps_outputs_are_a_piece_of_their_own_whatever_the_head_keeps_them_in() -> None:
    network = tiny()
    network.grow(2)
    network.grow(1)
    stepwise = copy.deepcopy(network)
    torch.manual_seed(7)
    network.grow(4)
    stepwise.head = StepwiseHead(stepwise.head)
    torch.manual_seed(7)
    stepwise.grow(4)
    for each in (network, stepwise):
        each.head(torch.ones(1, 2, 1, 1, dtype=torch.float64)).square().sum().backward()
    one, other = (pieces(each, [3, 2, 1, 4]) for each in (network, stepwise))
    rows = ("0", "3", "5", "6")
    expected = {"backbone.weight", "backbone.bias", *(f"head.{name}.{r}" for name in ("weight", "bias") for r in rows)}
    assert one.keys() == other.keys() == expected
    for name in expected:
        assert torch.equal(one[name].value, other[name].value)
        if name.startswith("head"):
            assert torch.equal(one[name].gradient, other[name].gradient)
    assert torch.equal(one["head.weight.3"].value, network.head.weight[3:5])
    other["head.weight.3"].gradient.zero_()
    assert stepwise.head.known_weight.grad[3:5].abs().max() == 0 < stepwise.head.known_weight.grad[:3].abs().max()


# ------------------------------------------------------------------------------------------ in the template


class Record(SupervisedPlugin):
    """What the measure is given at each update, and the gradients that the update is made with."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: dict[int, list[tuple[dict[str, Tensor], dict[str, Tensor]]]] = {1: [], 2: []}
        self.gradients: dict[int, list[dict[str, Tensor]]] = {1: [], 2: []}
        self.ends: dict[int, dict[str, Tensor]] = {}
        self.starts: dict[int, dict[str, Tensor]] = {}

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        parts = pieces(strategy.network, strategy.method.outputs)
        step = strategy.experience.data.step
        self.starts[step] = {name: piece.value.clone() for name, piece in parts.items()}
        if step == 1:
            follow = strategy.method.measure.follow

            def followed(parts: Any) -> None:
                given = [{n: getattr(p, kind).clone() for n, p in parts.items()} for kind in ("value", "gradient")]
                self.calls[strategy.experience.data.step].append((given[0], given[1]))
                follow(parts)

            strategy.method.measure.follow = followed

    def after_backward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        parts = pieces(strategy.network, strategy.method.outputs)
        step = strategy.experience.data.step
        self.gradients[step].append({name: p.gradient.clone() for name, p in parts.items()})

    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        parts = pieces(strategy.network, strategy.method.outputs)
        self.ends[strategy.experience.data.step] = {name: piece.value.clone() for name, piece in parts.items()}


def followed(kind: type[Regularised], **parameters: Any) -> tuple[Any, Record]:
    record = Record()
    template = make(kind, [record], settings=SETTINGS, **parameters)
    template.begin(benchmark().train_stream[0])
    for t in (1, 2):
        template.train(benchmark().train_stream[t], eval_streams=[])
    return template, record


def slow(kind: type[Regularised], record: Record, name: str, steps: int) -> np.ndarray:
    """The importance of a piece after so many increments, element by element in float64."""
    elements = record.ends[steps][name].numel()
    fisher, score = [1.0] * elements, [0.0] * elements
    for step in range(1, steps + 1):
        if name not in record.starts[step]:
            continue
        start = record.starts[step][name].double().flatten().tolist()
        end = record.ends[step][name].double().flatten().tolist()
        for e in range(elements):
            before = then = start[e]
            w = s = 0.0
            for i, (values, gradients) in enumerate(record.calls[step]):
                theta, g = float(values[name].flatten()[e]), float(gradients[name].flatten()[e])
                fisher[e] = 0.9 * g * g + 0.1 * fisher[e]
                w += g * (before - theta)
                before = theta
                if i in (10, 20):
                    s += g * (then - theta) / (0.5 * fisher[e] * (theta - then) ** 2 + 1e-8)
                    then = theta
            if kind is Pi:
                score[e] += max(0.0, w / ((end[e] - start[e]) ** 2 + 1e-20))
            else:
                score[e] = (max(0.0, s) + score[e]) / 2

    def between(x: list[float]) -> np.ndarray:
        return (np.array(x) - min(x)) / (max(x) - min(x) + 1e-8)

    omega = {Ewc: lambda: between(fisher), Pi: lambda: between(score)}.get(kind)
    found = omega() if omega else between(fisher) + between(score)
    return np.asarray(found.reshape(record.ends[steps][name].shape))


@pytest.mark.parametrize("kind", usual([Ewc, Pi, Rw], Rw))
def test_importance_after_two_steps_and_the_penalty_in_the_second_are_those_of_a_slow_derivation(
    kind: type[Regularised],
) -> None:
    template, record = followed(kind, penalty_weight=3.0)
    assert [len(record.calls[t]) for t in (1, 2)] == [27, 27]
    found = template.method.measure.importance()
    named = ("backbone.near.1.weight", "head.weight.0", "head.bias.4", "head.weight.5")
    for name in named:
        expected = slow(kind, record, name, 2)
        np.testing.assert_allclose(found[name].numpy(), expected, rtol=2e-3, atol=2e-4, err_msg=name)
    for name in ("backbone.near.1.weight", "head.weight.0", "head.weight.5"):
        omega = slow(kind, record, name, 1) if name in record.ends[1] else None
        for (values, data), used in zip(record.calls[2], record.gradients[2], strict=True):
            penalty = used[name].double() - data[name].double()
            if omega is None:  # of this step's outputs
                assert penalty.abs().max() == 0
                continue
            away = values[name].double() - record.ends[1][name].double()
            torch.testing.assert_close(penalty, 6 * torch.tensor(omega) * away, rtol=5e-3, atol=1e-6)
    moved = record.gradients[2][-1]["head.weight.0"] - record.calls[2][-1][1]["head.weight.0"]
    assert moved.abs().max() > 0
    for (_, data), used in zip(record.calls[1], record.gradients[1], strict=True):
        assert all(torch.equal(data[name], used[name]) for name in data)  # nothing was measured before


def weights(kind: Any, **parameters: Any) -> dict[str, Tensor]:
    template = make(kind, settings=[s for s in SETTINGS if "epochs" not in s] + ["incremental.epochs=2"], **parameters)
    template.begin(benchmark().train_stream[0])
    for t in (1, 2):
        template.train(benchmark().train_stream[t], eval_streams=[])
    state: dict[str, Tensor] = template.network.state_dict()
    return state


def test_without_a_penalty_they_are_finetune() -> None:
    finetune = weights(Finetune)
    for kind in (Ewc, Pi, Rw):
        assert equal(weights(kind, penalty_weight=0.0), finetune)
    assert not equal(weights(Ewc), finetune)


def test_importance_is_of_the_whole_way_whichever_weights_go_on() -> None:
    """The measures follow every update; those of the best epoch alone would be of no training."""
    scores, ends = [], []
    for best in (0, 8):
        template = make(Pi, settings=SETTINGS)
        template.begin(benchmark().train_stream[0])
        template.end_epoch = lambda template=template, best=best: template.keep_if_best(
            float(template.epochs_done == best)
        )
        template.train(benchmark().train_stream[1], eval_streams=[])
        scores.append(template.method.measure.tensors["score"])
        ends.append(template.network.state_dict())
    assert equal(*scores) and not equal(*ends) and max(score.max() for score in scores[0].values()) > 0
