"""The offline losses against loops over pixels in float64, and what they are at their limits."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor

from strategies.learning import offline_losses as losses
from strategies.learning.losses import own_classes
from strategies.mib import share_background
from strategies.networks.heads import LinearHead

VOID = 255
EXACT = {"rtol": 1e-10, "atol": 1e-10}
SHAPES = ((2, 5, 7), (1, 4, 4), (1, 1, 1))
"""Odd sides, one image, one pixel."""
OUTPUTS = (2, 3, 21)


class Batch:
    """Random logits of K outputs, O of them old, and labels of a step that annotates the new ones."""

    def __init__(self, outputs: int, shape: tuple[int, int, int], void: str = "some", seed: int = 0) -> None:
        rng = np.random.default_rng([outputs, *shape, seed])
        self.old = 1 + (outputs - 1) // 2 if outputs > 2 else 1
        images, height, width = shape
        self.logits = torch.tensor(rng.normal(0, 3, (images, outputs, height, width)))
        self.old_logits = torch.tensor(rng.normal(0, 3, (images, self.old, height, width)))
        labels = rng.choice([0, *range(self.old, outputs)], shape)
        if void != "none":
            labels[rng.random(shape) < {"some": 0.3, "all": 1.1}[void]] = VOID
        self.labels = torch.tensor(labels)

    @property
    def own(self) -> Tensor:
        """What step 1 annotates, the background and step 0's outputs being the old ones."""
        step_of_output = torch.tensor([-1] + [0] * (self.old - 1) + [1] * (self.logits.shape[1] - self.old))
        return own_classes(torch.ones(len(self.labels), dtype=torch.long), step_of_output)

    def pixels(self) -> Iterator[tuple[list[float], list[float], int]]:
        """The logits, the old model's and the label of each pixel."""
        images, height, width = self.labels.shape
        for b, i, j in product(range(images), range(height), range(width)):
            yield self.logits[b, :, i, j].tolist(), self.old_logits[b, :, i, j].tolist(), int(self.labels[b, i, j])

    def mean(self, of_pixel: Callable[[list[float], list[float], int], float]) -> float:
        """The mean over all pixels, void ones counted."""
        return math.fsum(of_pixel(*pixel) for pixel in self.pixels()) / self.labels.numel()


def softmax(z: Sequence[float]) -> list[float]:
    total = math.fsum(math.exp(x) for x in z)
    return [math.exp(x) / total for x in z]


def sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z))


def bce(z: float, q: float) -> float:
    return -q * math.log(sigmoid(z)) - (1 - q) * math.log(sigmoid(-z))


def ce_pixel(z: list[float], old: list[float], y: int) -> float:
    return 0.0 if y == VOID else -math.log(softmax(z)[y])


def bce_pixel(z: list[float], old: list[float], y: int) -> float:
    return 0.0 if y == VOID else sum(bce(x, float(k == y)) for k, x in enumerate(z))


def lwf_pixel(z: list[float], old: list[float], y: int) -> float:
    p, q = softmax(z[: len(old)]), softmax(old)
    return -sum(a * math.log(b) for a, b in zip(q, p, strict=True)) / len(old)


def lwf_mc_pixel(z: list[float], old: list[float], y: int) -> float:
    return sum(bce(x, sigmoid(o)) for x, o in zip(z, old, strict=False))


def uce_pixel(z: list[float], old: list[float], y: int) -> float:
    p = softmax(z)
    return 0.0 if y == VOID else -math.log(sum(p[: len(old)]) if y < len(old) else p[y])


def ukd_pixel(z: list[float], old: list[float], y: int) -> float:
    p, q = softmax(z), softmax(old)
    background = q[0] * math.log(p[0] + sum(p[len(old) :]))
    return -(background + sum(q[k] * math.log(p[k]) for k in range(1, len(old)))) / len(old)


TERMS: dict[str, tuple[Callable[[Batch], Tensor], Callable[[list[float], list[float], int], float]]] = {
    "cross-entropy": (lambda b: losses.cross_entropy(b.logits, b.labels), ce_pixel),
    "one against the rest": (lambda b: losses.one_vs_rest(b.logits, b.labels), bce_pixel),
    "lwf": (lambda b: losses.distillation(b.logits, b.old_logits), lwf_pixel),
    "lwf-mc": (lambda b: losses.sigmoid_distillation(b.logits, b.old_logits), lwf_mc_pixel),
    "unbiased cross-entropy": (
        lambda b: losses.unbiased_cross_entropy(b.logits.log_softmax(1), b.labels, b.own),
        uce_pixel,
    ),
    "unbiased distillation": (
        lambda b: losses.unbiased_distillation(b.logits.log_softmax(1), b.old_logits),
        ukd_pixel,
    ),
}
every_term = pytest.mark.parametrize("name", TERMS)


@every_term
@pytest.mark.parametrize("void", ["none", "some", "all"])
def test_each_term_is_that_of_a_loop_over_pixels(name: str, void: str) -> None:
    of_batch, of_pixel = TERMS[name]
    for outputs, shape in product(OUTPUTS, SHAPES):
        batch = Batch(outputs, shape, void)
        expected = torch.tensor(batch.mean(of_pixel), dtype=torch.float64)
        torch.testing.assert_close(of_batch(batch), expected, **EXACT)


@every_term
def test_void_pixels_reach_a_distillation_and_no_term_of_the_labels(name: str) -> None:
    """The logits' gradient where all is void: none of a loss on labels, some everywhere of a distillation."""
    batch = Batch(5, (2, 3, 4), "all")
    batch.logits.requires_grad_()
    (gradient,) = torch.autograd.grad(TERMS[name][0](batch), batch.logits)
    reached = gradient.abs().sum(1) > 0
    assert reached.all() if name in ("lwf", "lwf-mc", "unbiased distillation") else not reached.any()


@pytest.mark.parametrize("name", ["cross-entropy", "lwf", "unbiased cross-entropy", "unbiased distillation"])
def test_a_constant_added_to_all_logits_changes_nothing(name: str) -> None:
    batch, shifted = Batch(7, (2, 3, 5)), Batch(7, (2, 3, 5))
    shifted.logits, shifted.old_logits = shifted.logits + 3.7, shifted.old_logits - 1.2
    torch.testing.assert_close(TERMS[name][0](shifted), TERMS[name][0](batch), **EXACT)


def test_unbiased_distillation_of_a_model_that_grew_outputs_of_no_probability_is_its_entropy() -> None:
    batch = Batch(6, (2, 3, 5))
    grown = torch.cat([batch.old_logits, torch.full((2, 4, 3, 5), -1e9, dtype=torch.float64)], 1)
    log_q = batch.old_logits.log_softmax(1)
    entropy = -(log_q.exp() * log_q).sum(1).mean()
    found = losses.unbiased_distillation(grown.log_softmax(1), batch.old_logits)
    torch.testing.assert_close(found, entropy / batch.old, **EXACT)


def test_unbiased_cross_entropy_is_cross_entropy_where_the_background_alone_is_old() -> None:
    batch = Batch(2, (2, 5, 7))
    assert batch.old == 1
    unbiased = losses.unbiased_cross_entropy(batch.logits.log_softmax(1), batch.labels, batch.own)
    torch.testing.assert_close(unbiased, losses.cross_entropy(batch.logits, batch.labels), **EXACT)


def test_of_background_pixels_the_mass_of_all_old_outputs_counts_and_not_how_they_share_it() -> None:
    batch = Batch(7, (1, 2, 3), "none")
    batch.labels[:] = 0
    mass = batch.logits[:, : batch.old].logsumexp(1, keepdim=True)
    moved = batch.logits.clone()
    moved[:, : batch.old] = mass + torch.randn(1, batch.old, 2, 3, dtype=torch.float64).log_softmax(1)
    found = []
    for logits in (batch.logits, moved):
        logits.requires_grad_()
        loss = losses.unbiased_cross_entropy(logits.log_softmax(1), batch.labels, batch.own)
        (gradient,) = torch.autograd.grad(loss, logits)
        found.append((loss.detach(), gradient[:, batch.old :], gradient[:, : batch.old].sum(1)))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, **EXACT)


def test_lwf_has_no_gradient_where_both_models_are_one_and_ilt_is_zero() -> None:
    batch = Batch(7, (2, 3, 4))
    logits = torch.cat([batch.old_logits, batch.logits[:, batch.old :]], 1).requires_grad_()
    (gradient,) = torch.autograd.grad(losses.distillation(logits, batch.old_logits), logits)
    assert gradient.abs().max() < 1e-15
    assert losses.feature_distillation(batch.logits, batch.logits.clone()) == 0


def test_ilts_term_is_the_mean_square_over_all_elements() -> None:
    one, other = Batch(5, (2, 3, 4), seed=1).logits, Batch(5, (2, 3, 4), seed=2).logits
    pairs = zip(one.flatten().tolist(), other.flatten().tolist(), strict=True)
    expected = math.fsum((a - b) ** 2 for a, b in pairs) / one.numel()
    torch.testing.assert_close(losses.feature_distillation(one, other).item(), expected, **EXACT)


def test_mibs_start_divides_the_backgrounds_probability_and_leaves_the_others() -> None:
    features = torch.randn(2, 5, 3, 4, dtype=torch.float64)
    head = LinearHead(5, 4).double()
    before = head(features).softmax(1)
    head.grow(3)
    share_background(head, 3)
    after = head(features).softmax(1)
    torch.testing.assert_close(after[:, 0] + after[:, 4:].sum(1), before[:, 0], **EXACT)
    torch.testing.assert_close(after[:, 1:4], before[:, 1:], **EXACT)
    for new in range(4, 7):
        torch.testing.assert_close(after[:, new], before[:, 0] / 4, **EXACT)
