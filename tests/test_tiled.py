"""Losses tile by tile are those of `losses` and `offline_losses`, values and gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from strategies.learning import losses, offline_losses, tiled
from strategies.learning.tiled import em_loss, unbiased_loss

VOID = 255
STEP_OF_OUTPUT = torch.tensor([-1, 0, 0, 0, 1, 2, 2])


def batch(shape: tuple[int, ...], among: list[int], steps: list[int], scale: float = 3.0, seed: int = 0) -> Any:
    """Logits of 7 outputs, an old model's of 5, labels and own classes."""
    torch.manual_seed(seed)
    logits = scale * torch.randn(shape[0], 7, *shape[1:], dtype=torch.float64)
    old = scale * torch.randn(shape[0], 5, *shape[1:], dtype=torch.float64)
    labels = torch.tensor(among)[torch.randint(len(among), shape)]
    return logits, old, labels, losses.own_classes(torch.tensor(steps), STEP_OF_OUTPUT)


CASES = {
    "all kinds": batch((3, 5, 7), [0, 0, 1, 5, VOID], [0, 1, 2]),
    "one image": batch((1, 4, 3), [0, 6], [2]),
    "one pixel": batch((1, 1, 1), [0], [2]),
    "all void": batch((2, 3, 3), [VOID], [2, 1]),
    "no latent": batch((2, 3, 5), [4, VOID], [1, 1]),
    "nothing but latent": batch((2, 5, 3), [0], [2, 0]),
    "far apart": batch((2, 5, 6), [0, 5, VOID], [2, 1], scale=300.0),
    "sure": batch((2, 6, 5), [0, 0, 6], [2, 2], scale=12.0, seed=3),
}
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def with_gradient(loss: Any, logits: Tensor) -> tuple[Tensor, Tensor]:
    leaf = logits.detach().clone(memory_format=torch.preserve_format).requires_grad_(True)
    value = loss(leaf)
    (gradient,) = torch.autograd.grad(1.5 * value, leaf)
    return value.detach(), gradient


def assert_same(found: Any, expected: Any, tolerance: float = 1e-12) -> None:
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)
        assert one.isfinite().all()


@every_case
@pytest.mark.parametrize("delta", [0.0, 0.3, 0.5, 0.8, 1.0])
def test_the_em_loss_and_its_confidences(case: Any, delta: float, monkeypatch: pytest.MonkeyPatch) -> None:
    logits, _, labels, own = case

    def whole(z: Tensor) -> Tensor:
        log_p = z.log_softmax(1)
        relabelled = losses.relabel(log_p, labels, own, delta)
        return losses.composite_loss(log_p, labels, relabelled, own, 0.7)

    monkeypatch.setattr(tiled, "_ELEMENTS", 70)  # tiles of 10 pixels
    for form in (torch.contiguous_format, torch.channels_last):
        z = logits.contiguous(memory_format=form)
        assert_same(with_gradient(lambda leaf: em_loss(leaf, labels, own, delta, 0.7).loss, z), with_gradient(whole, z))
    _, confidences, pixels = em_loss(logits, labels, own, delta, 0.7)
    means, counts = losses.class_confidences(logits.log_softmax(1), labels)
    assert torch.equal(pixels, counts)
    torch.testing.assert_close(confidences, means, rtol=1e-12, atol=1e-12, check_dtype=False)


@every_case
@pytest.mark.parametrize("over_all", [False, True])
def test_the_unbiased_losses(case: Any, over_all: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    logits, old, labels, own = case

    def whole(z: Tensor) -> Tensor:
        log_p = z.log_softmax(1)
        if over_all:
            distillation = offline_losses.unbiased_distillation(log_p, old)
            return offline_losses.unbiased_cross_entropy(log_p, labels, own) + 10 * distillation
        distillation = losses.unbiased_distillation(log_p, old, labels)
        return losses.unbiased_cross_entropy(log_p, labels, own) + 10 * distillation

    monkeypatch.setattr(tiled, "_ELEMENTS", 70)
    for form in (torch.contiguous_format, torch.channels_last):
        z = logits.contiguous(memory_format=form)
        found = with_gradient(lambda leaf: unbiased_loss(leaf, old, labels, own, 10.0, over_all), z)
        assert_same(found, with_gradient(whole, z))


def test_in_single_precision_they_are_as_near_to_the_truth_as_before() -> None:
    logits, old, labels, own = CASES["all kinds"]

    def whole(z: Tensor) -> Tensor:
        log_p = z.log_softmax(1)
        relabelled = losses.relabel(log_p, labels, own, 0.8)
        return losses.composite_loss(log_p, labels, relabelled, own, 0.5)

    truth = with_gradient(whole, logits)
    found = with_gradient(lambda z: em_loss(z, labels, own, 0.8, 0.5).loss, logits.float())
    assert_same([part.double() for part in found], truth, 1e-6)
    truth = with_gradient(lambda z: unbiased_loss(z, old, labels, own, 10.0), logits)
    found = with_gradient(lambda z: unbiased_loss(z, old.float(), labels, own, 10.0), logits.float())
    assert_same([part.double() for part in found], truth, 1e-6)


def test_a_gradient_is_given_once() -> None:
    logits, _, labels, own = CASES["all kinds"]
    leaf = logits.clone().requires_grad_(True)
    loss = em_loss(leaf, labels, own, 0.8, 0.5).loss
    torch.autograd.backward(loss, retain_graph=True)
    with pytest.raises(RuntimeError, match="given once"):
        torch.autograd.backward(loss)
