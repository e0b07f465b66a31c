"""The losses of plop, ssul and dkd, tile by tile, are those of whole tensors, values and gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_tiled import CASES, assert_same, every_case, with_gradient
from torch import Tensor

from strategies.learning import losses, offline_losses, tiled
from strategies.learning.tiled_offline import labels_and_distillation, one_vs_rest, weighed_cross_entropy

VOID = 255


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiled, "_ELEMENTS", 70)  # of 10 pixels


def assert_equal(found: Any, expected: Any, logits: Tensor) -> None:
    """Of logits whose pixels lie one after another, and of those whose outputs do."""
    for form in (torch.contiguous_format, torch.channels_last):
        z = logits.contiguous(memory_format=form)
        assert_same(with_gradient(found, z), with_gradient(expected, z))


def dkd(z: Tensor, old: Tensor, labels: Tensor, weight: float, replayed: Tensor | None, **given: Any) -> Tensor:
    """As the paper has it, term by term."""
    known = old.shape[1]
    total = losses.classes_vs_rest(z[:, known:], labels, known, **given)
    total = total + losses.classes_vs_rest(z[:, :1], labels, 0, **given)
    if replayed is not None:
        total = total + losses.classes_vs_rest(z[:, 1:known], labels, 1, **given, images=replayed)
    return total / labels.numel() + weight * offline_losses.sigmoid_distillation(z[:, 1:], old[:, 1:])


@every_case
def test_the_weighed_cross_entropy(case: Any) -> None:
    logits, _, labels, _ = case
    weights = torch.linspace(0.0, 1.0, len(logits), dtype=torch.float64)
    for shares in (weights, 1 - weights / 2):
        assert_equal(
            lambda z, shares=shares: weighed_cross_entropy(z, labels, shares),
            lambda z, shares=shares: offline_losses.weighed_cross_entropy(z, labels, shares),
            logits,
        )


@every_case
def test_one_against_the_rest(case: Any) -> None:
    logits, _, labels, _ = case
    assert_equal(lambda z: one_vs_rest(z, labels), lambda z: losses.one_vs_rest(z, labels), logits)


@every_case
@pytest.mark.parametrize("void_is_negative", [False, True])
@pytest.mark.parametrize("of_memory", [None, [0], [0, 2]])
def test_labels_and_distillation(case: Any, void_is_negative: bool, of_memory: list[int] | None) -> None:
    logits, old, labels, _ = case
    labels = labels.clone()
    labels[0, 0] = 2  # an old class, of which a replayed image alone learns
    replayed = None if of_memory is None else torch.tensor([b in of_memory for b in range(len(labels))])
    given = {"positive_weight": 35.0, "void_is_negative": void_is_negative}
    assert_equal(
        lambda z: labels_and_distillation(z, old, labels, 5.0, **given, telling_old=replayed),
        lambda z: dkd(z, old, labels, 5.0, replayed, **given),
        logits,
    )


def test_in_single_precision_they_are_as_near_to_the_truth() -> None:
    logits, old, labels, _ = CASES["all kinds"]
    weights = torch.rand(len(logits), dtype=torch.float64)
    pairs = [
        (lambda z: weighed_cross_entropy(z, labels, weights), logits),
        (lambda z: one_vs_rest(z, labels), logits),
        (lambda z: labels_and_distillation(z, old.to(z), labels, 5.0), logits),
    ]
    for loss, z in pairs:
        found = with_gradient(loss, z.float())
        assert_same([part.double() for part in found], with_gradient(loss, z), 2e-6)
