"""LWF-MC against its definition: the targets read back from the gradients are the old model's and the label map's."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor
from toy import BATCHES, FLOAT32, LEARNED, VOID, Iteration, Run, equal, run

from strategies.learning.losses import binary_cross_entropy, one_vs_rest
from strategies.learning.protocol import BaseRecipe
from strategies.learning.registry import method_class
from strategies.lwf_mc import lwf_targets
from strategies.networks.build import build_network

both = pytest.mark.parametrize("name", ["lwf-mc", "icarl"])
"""icarl is trained as lwf-mc."""


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-x))


def targets_by_definition(old_logits: np.ndarray, labels: np.ndarray, outputs: int) -> np.ndarray:
    """Pixel by pixel; NaN at void, which has none."""
    images, known, height, width = old_logits.shape
    targets = np.full((images, outputs, height, width), np.nan)
    for i, y, x in np.ndindex(images, height, width):
        label = labels[i, y, x]
        if label == VOID:
            continue
        for c in range(outputs):
            if c == 0:
                targets[i, c, y, x] = sigmoid(old_logits[i, c, y, x]) if label == 0 else 0.0
            elif c < known:
                targets[i, c, y, x] = sigmoid(old_logits[i, c, y, x])
            else:
                targets[i, c, y, x] = float(label == c)
    return targets


def bce_by_definition(logits: np.ndarray, targets: np.ndarray) -> float:
    """Sum over outputs, mean over the pixels that have targets."""
    counted = ~np.isnan(targets[:, 0])
    z, t = (np.moveaxis(a, 1, -1)[counted] for a in (logits, targets))
    losses = -t * np.log(sigmoid(z)) - (1 - t) * np.log(1 - sigmoid(z))
    return float(losses.sum() / counted.sum())


# ------------------------------------------------------------------------------------------------------- by hand


def test_targets_by_hand() -> None:
    """Two old outputs with sigmoids 0.2 and 0.6, one new class; pixels: latent, old class, new class, void."""
    old = torch.tensor([0.2, 0.6]).logit().view(1, 2, 1, 1).expand(1, 2, 1, 4)
    targets = lwf_targets(old, torch.tensor([[[0, 1, 2, VOID]]]), 3)
    assert targets[0, 0, 0, :3].tolist() == pytest.approx([0.2, 0.0, 0.0])
    assert targets[0, 1, 0, :3].tolist() == pytest.approx([0.6, 0.6, 0.6])
    assert targets[0, 2, 0, :3].tolist() == [0.0, 0.0, 1.0]


def test_the_loss_by_hand_sums_over_outputs_and_takes_the_mean_over_pixels_that_are_not_void() -> None:
    """Logits 0: each output costs log 2 whatever its target; 3 outputs at every one of 2 of 3 pixels."""
    labels = torch.tensor([[[0, 1, VOID]]])
    loss = binary_cross_entropy(torch.zeros(1, 3, 1, 3), torch.rand(1, 3, 1, 3), labels)
    assert loss.item() == pytest.approx(3 * np.log(2))


@pytest.mark.parametrize("seed", range(4))
def test_targets_and_loss_equal_the_definition(seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits, old = 3 * rng.normal(size=(2, 6, 3, 4)), 3 * rng.normal(size=(2, 4, 3, 4))
    labels = rng.choice([0, 1, 3, 4, 5, VOID], (2, 3, 4))
    expected = targets_by_definition(old, labels, 6)
    targets = lwf_targets(torch.tensor(old), torch.tensor(labels), 6)
    known = ~np.isnan(expected)
    np.testing.assert_allclose(targets.numpy()[known], expected[known], rtol=1e-9, atol=1e-12)
    loss = binary_cross_entropy(torch.tensor(logits), targets, torch.tensor(labels))
    assert loss.item() == pytest.approx(bce_by_definition(logits, expected))


@pytest.mark.parametrize("seed", range(4))
def test_the_base_models_loss_equals_the_definition_with_the_label_map_alone(seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits, labels = 3 * rng.normal(size=(2, 4, 3, 4)), rng.choice([0, 1, 3, VOID], (2, 3, 4))
    targets = np.stack([np.where(labels == VOID, np.nan, labels == c) for c in range(4)], axis=1)
    loss = one_vs_rest(torch.tensor(logits), torch.tensor(labels))
    assert loss.item() == pytest.approx(bce_by_definition(logits, targets))


def test_a_batch_of_nothing_but_void_costs_nothing() -> None:
    logits = torch.randn(1, 3, 2, 2, requires_grad=True)
    labels = torch.full((1, 2, 2), VOID)
    loss = binary_cross_entropy(logits, lwf_targets(torch.randn(1, 2, 2, 2), labels, 3), labels)
    torch.autograd.backward(loss)
    assert loss.item() == 0
    assert logits.grad is not None and not logits.grad.any()


# -------------------------------------------------------------------------------------------------- on the stream


class OldModels(SupervisedPlugin):
    """Takes down the old model at every update."""

    def __init__(self) -> None:
        super().__init__()
        self.states: dict[int, list[dict[str, Tensor]]] = {1: [], 2: []}
        self.objects: set[bool] = set()

    def after_update(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        old = strategy.method.old
        assert old is not strategy.network
        assert not any(m.training for m in old.modules())
        assert not any(p.requires_grad or p.grad is not None for p in old.parameters())
        self.states[strategy.experience.data.step].append(copy.deepcopy(old.state_dict()))


@cache
def observed(name: str) -> tuple[Run, OldModels]:
    old = OldModels()
    return run(name, [old], settings=["incremental.lr=0.02", "memory.size=14"]), old


def old_logits(iteration: Iteration, before: dict[str, Tensor]) -> np.ndarray:
    """What the network of the previous step's end says, built anew from its weights."""
    old = build_network("small", sum(map(len, LEARNED[: iteration.step]))).double().eval()
    old.load_state_dict(before)
    with torch.no_grad():
        return old(iteration.images.double()).numpy()


def expected_targets(done: Run, iteration: Iteration) -> np.ndarray:
    old = old_logits(iteration, done.weights[iteration.step - 1])
    return targets_by_definition(old, iteration.planted, iteration.logits.shape[1])


@both
def test_the_loss_is_the_definitions(name: str) -> None:
    done, _ = observed(name)
    for iteration in done.iterations:
        expected = bce_by_definition(iteration.logits, expected_targets(done, iteration))
        assert iteration.loss == pytest.approx(expected, rel=FLOAT32)


@both
def test_the_targets_read_back_from_the_gradient_are_the_definitions(name: str) -> None:
    """d loss / d logit = (sigmoid - target) / number of pixels."""
    done, _ = observed(name)
    for iteration in done.iterations:
        gradient = iteration.logits_gradient.double().numpy()
        expected = expected_targets(done, iteration)
        void = np.isnan(expected)
        assert not gradient[void].any()
        targets = sigmoid(iteration.logits) - gradient * (iteration.planted != VOID).sum()
        np.testing.assert_allclose(targets[~void], expected[~void], atol=2e-4)


@both
def test_in_a_memory_image_of_an_earlier_step_new_classes_have_target_0_everywhere(name: str) -> None:
    done, _ = observed(name)
    seen = 0
    for iteration in done.iterations:
        known = 1 + sum(map(len, LEARNED[: iteration.step]))
        targets = (
            sigmoid(iteration.logits) - iteration.logits_gradient.double().numpy() * (iteration.planted != VOID).sum()
        )
        for i in np.flatnonzero(iteration.tau < iteration.step):
            here = iteration.planted[i] != VOID
            assert np.abs(targets[i, known:][:, here]).max() < 2e-4
            annotated = (iteration.planted[i] != 0) & here
            assert np.abs(targets[i, 0][annotated]).max() < 2e-4
            assert targets[i, 1:known][:, annotated].max() < 1 - 1e-6  # the old model's, not the label map's
            seen += 1
    assert seen >= 10


@both
def test_the_old_model_is_the_previous_steps_and_frozen(name: str) -> None:
    done, old = observed(name)
    for step in (1, 2):
        assert len(old.states[step]) == BATCHES[step - 1]
        assert all(equal(state, done.weights[step - 1]) for state in old.states[step])
    assert not equal(done.weights[0], done.weights[1])
    changed = done.weights[1]["head.weight"] - done.weights[2]["head.weight"][:5]
    assert changed.abs().max() > 0


class VoidNoise(SupervisedPlugin):
    """Adds to what the network, or the old model, says on void pixels."""

    def __init__(self, of_old: bool) -> None:
        super().__init__()
        self.of_old = of_old

    def noise(self, strategy: Any, like: Tensor) -> Tensor:
        noise = torch.randn(like.shape, generator=torch.Generator().manual_seed(0))
        return 30 * noise * (strategy.mb_y == VOID)[:, None]

    def after_forward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        if not self.of_old:
            strategy.mb_output = strategy.mb_output + self.noise(strategy, strategy.mb_output)

    def before_training_epoch(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        old = type(strategy.method).old_logits

        def noisy(images: Tensor) -> Tensor:
            logits: Tensor = old(strategy.method, images)
            return logits + self.noise(strategy, logits)

        if self.of_old:
            strategy.method.old_logits = noisy


@both
@pytest.mark.parametrize("of_old", [False, True])
def test_what_is_said_on_void_pixels_changes_nothing(name: str, of_old: bool) -> None:
    clean, _ = observed(name)
    noisy = run(name, [VoidNoise(of_old)], settings=["incremental.lr=0.02", "memory.size=14"])
    for key, value in clean.weights[-1].items():
        torch.testing.assert_close(noisy.weights[-1][key], value, rtol=1e-4, atol=1e-6)


@both
def test_the_base_model_has_a_linear_head_trained_by_binary_cross_entropy_for_both_alike(name: str) -> None:
    kind = method_class(name)
    assert kind.recipe(kind.Parameters()) == BaseRecipe(head="linear", loss="sigmoid-bce", tau=None)
