"""The losses of strategies/learning/losses.py give the numbers, and the gradients, of the slow reference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import reference
import torch
from reference import HAND_CASES
from torch import Tensor

from strategies.learning import losses

SEVEN_DECIMALS = 1e-7  # the hand-worked numbers are rounded
EXACT = 1e-12
DELTA, GAMMA = 0.3, 0.5

CLASSES_OF_STEP: tuple[list[list[int]], ...] = (
    [[1]],
    [[1, 2], [3]],
    [[1], [2], [3]],
    [[1, 2, 3], [4, 5], [6]],
    [[1, 4], [2], [3, 5]],
)
SEEDS = (0, 1, 2)


@dataclass
class Batch:
    """One batch as both sides take it."""

    logits: Tensor
    labels: Tensor
    tau: Tensor
    classes_of_step: list[list[int]]
    old_logits: Tensor

    @property
    def own(self) -> Tensor:
        return losses.own_classes(self.tau, step_of_output(self.classes_of_step))

    @property
    def arrays(self) -> dict[str, Any]:
        """The arguments of the reference."""
        return {
            "logits": self.logits.detach().double().numpy(),
            "labels": self.labels.numpy(),
            "tau": self.tau.numpy(),
            "classes_of_step": self.classes_of_step,
        }


def step_of_output(classes_of_step: list[list[int]]) -> Tensor:
    steps = torch.full((1 + sum(map(len, classes_of_step)),), -1)
    for step, classes in enumerate(classes_of_step):
        steps[classes] = step
    return steps


def random_batch(classes_of_step: list[list[int]], seed: int, scale: float = 2.0, side: int = 4) -> Batch:
    """Three images of mixed steps; about a sixth of the pixels void, half unlabelled."""
    rng = np.random.default_rng([seed, len(classes_of_step)])
    outputs = 1 + sum(map(len, classes_of_step))
    n_old = outputs - len(classes_of_step[-1])
    tau = rng.permutation(np.arange(3) % len(classes_of_step))
    labels = np.zeros((3, side, side), dtype=np.int64)
    for image, step in enumerate(tau):
        kind = rng.choice(["void", "latent", "own"], (side, side), p=[1 / 6, 1 / 2, 1 / 3])
        labels[image][kind == "void"] = 255
        labels[image][kind == "own"] = rng.choice(classes_of_step[step], (kind == "own").sum())
    return Batch(
        torch.from_numpy(rng.normal(0, scale, (3, outputs, side, side))),
        torch.from_numpy(labels),
        torch.from_numpy(tau),
        classes_of_step,
        torch.from_numpy(rng.normal(0, scale, (3, n_old, side, side))),
    )


def hand_batch(name: str) -> Batch:
    case = HAND_CASES[name]
    logits = torch.from_numpy(np.ascontiguousarray(case["logits"]))
    tau, steps = case.get("tau", np.zeros(len(logits), dtype=np.int64)), case.get("classes_of_step", [[]])
    return Batch(logits, torch.from_numpy(case["labels"]), torch.from_numpy(tau), steps, logits[:, :2])


# Each loss as a function of the logits, the others of its arguments taken from the batch.


def cross_entropy(logits: Tensor, batch: Batch) -> Tensor:
    return losses.cross_entropy(logits, batch.labels)


def composite_loss(logits: Tensor, batch: Batch, delta: float = DELTA, gamma: float = GAMMA) -> Tensor:
    log_p = logits.log_softmax(1)
    relabelled = losses.relabel(log_p, batch.labels, batch.own, delta)
    return losses.composite_loss(log_p, batch.labels, relabelled, batch.own, gamma)


def unbiased_cross_entropy(logits: Tensor, batch: Batch) -> Tensor:
    return losses.unbiased_cross_entropy(logits.log_softmax(1), batch.labels, batch.own)


def unbiased_distillation(logits: Tensor, batch: Batch) -> Tensor:
    return losses.unbiased_distillation(logits.log_softmax(1), batch.old_logits.to(logits), batch.labels)


def image_losses(logits: Tensor, batch: Batch) -> Tensor:
    return losses.image_losses(logits, batch.labels).sum()


def binary_cross_entropy(logits: Tensor, batch: Batch) -> Tensor:
    targets = torch.sigmoid(batch.logits.flip(1)).to(logits)
    return losses.binary_cross_entropy(logits, targets, batch.labels)


def one_vs_rest(logits: Tensor, batch: Batch) -> Tensor:
    return losses.one_vs_rest(logits, batch.labels)


def distillation(logits: Tensor, batch: Batch) -> Tensor:
    return losses.distillation(logits, batch.old_logits.to(logits), batch.labels)


Loss = Callable[[Tensor, Batch], Tensor]
MEANS: list[Loss] = [
    *(cross_entropy, composite_loss, unbiased_cross_entropy, unbiased_distillation),
    *(binary_cross_entropy, one_vs_rest, distillation),
]
"""The losses that are means over the batch's pixels."""
LOSSES: list[Loss] = [*MEANS, image_losses]


def value_and_gradient(loss: Loss, batch: Batch) -> tuple[Tensor, Tensor]:
    logits = batch.logits.clone().requires_grad_()
    value = loss(logits, batch)
    torch.autograd.backward(value)
    assert logits.grad is not None
    return value.detach(), logits.grad


every_loss = pytest.mark.parametrize("loss", LOSSES, ids=lambda f: f.__name__)
every_split = pytest.mark.parametrize("classes_of_step", CLASSES_OF_STEP, ids=str)
every_seed = pytest.mark.parametrize("seed", SEEDS)


# ---------------------------------------------------------------------------------------------- the numbers


def test_own_classes_are_those_of_the_images_step_and_never_the_background() -> None:
    own = losses.own_classes(torch.tensor([1, 0, 2]), torch.tensor([-1, 0, 0, 1, 2]))
    assert own.tolist() == [
        [False, False, False, True, False],
        [False, True, True, False, False],
        [False, False, False, False, True],
    ]


def test_an_annotation_of_all_classes_seen_tells_of_those_of_the_images_step_and_before() -> None:
    own = losses.own_classes(torch.tensor([1, 0, 2]), torch.tensor([-1, 0, 0, 1, 2]), all_seen=True)
    assert own.tolist() == [
        [False, True, True, True, False],
        [False, True, True, False, False],
        [False, True, True, True, True],
    ]


def test_pixel_count_leaves_void_out_and_is_at_least_one() -> None:
    assert losses.pixel_count(torch.tensor([[[0, 255], [3, 255]]])).item() == 2
    assert losses.pixel_count(torch.full((1, 2, 2), 255)).item() == 1


def test_cross_entropy_by_hand() -> None:
    batch = hand_batch("cross_entropy")
    expected = HAND_CASES["cross_entropy"]["expected"]
    assert cross_entropy(batch.logits, batch).item() == pytest.approx(expected, abs=SEVEN_DECIMALS)


@pytest.mark.parametrize("name", ["composite_loss", "composite_loss_no_pseudo"])
def test_composite_loss_by_hand(name: str) -> None:
    batch, case = hand_batch(name), HAND_CASES[name]
    value = composite_loss(batch.logits, batch, case["delta"], case["gamma"]).item()
    assert value == pytest.approx(case["expected"], abs=SEVEN_DECIMALS)


def test_unbiased_cross_entropy_by_hand() -> None:
    batch = hand_batch("mib_cross_entropy")
    value = unbiased_cross_entropy(batch.logits, batch).item()
    assert value == pytest.approx(HAND_CASES["mib_cross_entropy"]["expected"], abs=SEVEN_DECIMALS)


def test_unbiased_distillation_by_hand() -> None:
    case = HAND_CASES["mib_distillation"]
    log_p = torch.from_numpy(case["logits"]).log_softmax(1)
    old_logits, labels = torch.from_numpy(case["old_logits"]), torch.from_numpy(case["labels"])
    value = losses.unbiased_distillation(log_p, old_logits, labels).item()
    assert value == pytest.approx(case["expected"], abs=SEVEN_DECIMALS)


def as_training_labels(labels: np.ndarray, pseudo: np.ndarray) -> np.ndarray:
    """The reference's pseudo-labels laid over the labels, an unlabelled pixel without one being void."""
    return np.where(pseudo != reference.NO_LABEL, pseudo, np.where(labels == 0, 255, labels))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", ["relabel", "relabel_low_delta", "relabel_strict"])
def test_relabel_by_hand(name: str, dtype: torch.dtype) -> None:
    batch, case = hand_batch(name), HAND_CASES[name]
    relabelled = losses.relabel(batch.logits.to(dtype).log_softmax(1), batch.labels, batch.own, case["delta"])
    np.testing.assert_array_equal(relabelled.numpy(), as_training_labels(case["labels"], case["expected"]))


def test_class_confidences_by_hand() -> None:
    case = HAND_CASES["confidence"]
    log_p = torch.from_numpy(np.ascontiguousarray(case["logits"])).log_softmax(1)
    means, pixels = losses.class_confidences(log_p, torch.from_numpy(case["labels"]))
    assert means.tolist() == pytest.approx([0.0, 0.5, 0.0], abs=EXACT)
    assert pixels.tolist() == [0, 4, 0]


@every_seed
@every_split
def test_losses_equal_the_reference_on_random_batches(classes_of_step: list[list[int]], seed: int) -> None:
    batch = random_batch(classes_of_step, seed)
    arrays, old = batch.arrays, batch.old_logits.numpy()
    expected: dict[Loss, float] = {
        cross_entropy: reference.cross_entropy(arrays["logits"], arrays["labels"]),
        composite_loss: reference.composite_loss(**arrays, delta=DELTA, gamma=GAMMA),
        unbiased_cross_entropy: reference.mib_cross_entropy(**arrays),
        unbiased_distillation: reference.mib_distillation(
            arrays["logits"], old, range(old.shape[1], arrays["logits"].shape[1]), arrays["labels"]
        )
        if sorted(classes_of_step[-1]) == list(range(old.shape[1], arrays["logits"].shape[1]))
        else float("nan"),
    }
    for loss, value in expected.items():
        if not np.isnan(value):
            assert loss(batch.logits, batch).item() == pytest.approx(value, rel=EXACT), loss.__name__


@pytest.mark.parametrize("delta", [0.0, 0.2, 0.5, 0.8, 1.0])
@every_split
def test_relabel_equals_the_reference_on_random_batches(classes_of_step: list[list[int]], delta: float) -> None:
    for seed in SEEDS:
        batch = random_batch(classes_of_step, seed)
        pseudo = reference.relabel(**batch.arrays, delta=delta)
        relabelled = losses.relabel(batch.logits.log_softmax(1), batch.labels, batch.own, delta)
        np.testing.assert_array_equal(relabelled.numpy(), as_training_labels(batch.labels.numpy(), pseudo))


@every_seed
@every_split
def test_class_confidences_equal_the_reference_on_random_batches(classes_of_step: list[list[int]], seed: int) -> None:
    batch = random_batch(classes_of_step, seed)
    means, pixels = losses.class_confidences(batch.logits.log_softmax(1), batch.labels)
    assert len(means) == len(pixels) == batch.logits.shape[1]
    assert means[0].item() == pixels[0].item() == 0
    for c in range(1, len(means)):
        expected = reference.confidence(batch.arrays["logits"], batch.arrays["labels"], c)
        assert pixels[c].item() == (batch.labels == c).sum().item()
        assert means[c].item() == pytest.approx(0.0 if expected is None else expected, rel=EXACT)


@every_split
def test_latent_nll_is_the_logarithm_of_the_probability_of_what_a_latent_pixel_may_be(
    classes_of_step: list[list[int]],
) -> None:
    batch = random_batch(classes_of_step, seed=0)
    p, expected = reference.softmax(batch.arrays["logits"]), 0.0
    for i, y, x in np.argwhere(batch.labels.numpy() == 0):
        annotated = classes_of_step[int(batch.tau[i])]
        expected -= np.log(1 - sum(p[i, c, y, x] for c in annotated))
    value = losses.latent_nll(batch.logits.log_softmax(1), batch.labels, batch.own)
    assert value.item() == pytest.approx(expected, rel=1e-9)


def test_relabel_keeps_annotated_pixels_whatever_is_predicted_there() -> None:
    batch = random_batch([[1, 2], [3]], seed=1)
    confident_elsewhere = torch.zeros_like(batch.logits)
    confident_elsewhere[:, 0] = 50.0
    relabelled = losses.relabel(confident_elsewhere.log_softmax(1), batch.labels, batch.own, 0.5)
    assert torch.equal(relabelled, batch.labels)  # everything unlabelled becomes background: 0


@every_seed
def test_image_losses_are_each_images_own_cross_entropy(seed: int) -> None:
    batch = random_batch([[1, 2], [3]], seed)
    batch.labels[1] = 255
    batch.labels[1, 0, 0] = 2  # a single pixel that counts
    batch.labels[2] = 255
    values = losses.image_losses(batch.logits, batch.labels).tolist()
    arrays = batch.arrays
    expected = [reference.cross_entropy(arrays["logits"][i : i + 1], arrays["labels"][i : i + 1]) for i in range(2)]
    assert values == pytest.approx([*expected, 0.0], rel=EXACT)


def test_one_hot_is_one_at_each_pixels_label_and_nothing_at_void() -> None:
    targets = losses.one_hot(torch.tensor([[[0, 2], [255, 1]]]), 3, torch.float64)
    assert targets.dtype == torch.float64
    assert targets.tolist() == [[[[1, 0], [0, 0]], [[0, 0], [0, 1]], [[0, 1], [0, 0]]]]


def test_one_hot_is_made_where_the_labels_are() -> None:
    assert losses.one_hot(torch.zeros(1, 2, 2, dtype=torch.int64, device="meta"), 3, torch.float32).is_meta


@every_seed
def test_binary_cross_entropies_sum_over_outputs_and_average_over_pixels(seed: int) -> None:
    """On paper: -t log s - (1 - t) log(1 - s), s = 1 / (1 + exp(-z)), the background an output like others."""
    batch = random_batch([[1, 2], [3]], seed)
    z, labels = batch.logits.numpy(), batch.labels.numpy()
    soft, known = 1 / (1 + np.exp(-z[:, ::-1])), labels != 255
    hard = (labels[:, None] == np.arange(4)[:, None, None]).astype(float)
    for targets, loss in ((soft, binary_cross_entropy), (hard, one_vs_rest)):
        s = 1 / (1 + np.exp(-z))
        of_pixel = -(targets * np.log(s) + (1 - targets) * np.log(1 - s)).sum(1)
        assert loss(batch.logits, batch).item() == pytest.approx(of_pixel[known].mean(), rel=1e-10)


@every_seed
def test_distillation_compares_the_old_outputs_alone(seed: int) -> None:
    batch = random_batch([[1, 2], [3]], seed)
    q = reference.softmax(batch.old_logits.numpy())
    p = reference.softmax(np.ascontiguousarray(batch.arrays["logits"][:, :3]))
    expected = -(q * np.log(p)).sum(1)[batch.labels.numpy() != 255].mean()
    assert distillation(batch.logits, batch).item() == pytest.approx(expected, rel=1e-10)


# ------------------------------------------------------------------------------------------------- gradients


@every_loss
@pytest.mark.parametrize("classes_of_step", CLASSES_OF_STEP[1:3], ids=str)
def test_gradients_equal_finite_differences(loss: Loss, classes_of_step: list[list[int]]) -> None:
    batch = random_batch(classes_of_step, seed=0, side=2)
    assert torch.autograd.gradcheck(lambda z: loss(z, batch), (batch.logits.clone().requires_grad_(),))


def test_gradient_of_latent_nll_equals_finite_differences_in_every_log_probability() -> None:
    batch = random_batch([[1, 2], [3]], seed=0, side=2)
    log_p = batch.logits.log_softmax(1).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: losses.latent_nll(z, batch.labels, batch.own), (log_p,))


@every_seed
def test_gradient_of_the_composite_loss_pulls_latent_pixels_to_what_they_may_be(seed: int) -> None:
    """On paper: p - onehot(y) where there is a label, plus gamma (p - p restricted and renormalised) on R-bar."""
    batch = random_batch([[1, 2], [3]], seed)
    _, gradient = value_and_gradient(composite_loss, batch)
    p = reference.softmax(batch.arrays["logits"])
    pseudo = reference.relabel(**batch.arrays, delta=DELTA)
    labels = batch.labels.numpy()
    expected = np.zeros_like(p)
    for i, y, x in np.ndindex(labels.shape):
        here, label = p[i, :, y, x], labels[i, y, x]
        if label == 255:
            continue
        target = label if label else pseudo[i, y, x]
        if target != reference.NO_LABEL:
            expected[i, :, y, x] += here - np.eye(len(here))[target]
        if label == 0:
            allowed = np.array([c not in batch.classes_of_step[int(batch.tau[i])] for c in range(len(here))])
            expected[i, :, y, x] += GAMMA * (here - here * allowed / here[allowed].sum())
    np.testing.assert_allclose(gradient.numpy(), expected / (labels != 255).sum(), atol=EXACT)


def test_pseudo_labels_and_confidences_carry_no_gradient() -> None:
    batch = random_batch([[1, 2], [3]], seed=0)
    log_p = batch.logits.clone().requires_grad_().log_softmax(1)
    assert not losses.relabel(log_p, batch.labels, batch.own, DELTA).requires_grad
    assert not losses.class_confidences(log_p, batch.labels)[0].requires_grad


# ----------------------------------------------------------------------------------- huge logits, void, nothing


@every_loss
@pytest.mark.parametrize("fill", [None, 0, 255], ids=["mixed", "all background", "all void"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_losses_and_gradients_are_finite_for_huge_logits(loss: Loss, fill: int | None, dtype: torch.dtype) -> None:
    for seed in SEEDS:
        batch = random_batch([[1, 2], [3]], seed)
        batch.logits = 1e4 * batch.logits.sign().to(dtype)
        batch.old_logits = 1e4 * batch.old_logits.sign().to(dtype)
        if fill is not None:
            batch.labels[1] = fill
        value, gradient = value_and_gradient(loss, batch)
        assert value.isfinite()
        assert gradient.isfinite().all()
        assert gradient.any()


@pytest.mark.parametrize("loss", MEANS[:4], ids=lambda f: f.__name__)
def test_losses_of_huge_logits_equal_the_reference(loss: Loss) -> None:
    batch = random_batch([[1, 2], [3]], seed=0)
    batch.logits = 1e4 * batch.logits.sign()
    batch.old_logits = 1e4 * batch.old_logits.sign()
    arrays = batch.arrays
    expected = {
        cross_entropy: lambda: reference.cross_entropy(arrays["logits"], arrays["labels"]),
        composite_loss: lambda: reference.composite_loss(**arrays, delta=DELTA, gamma=GAMMA),
        unbiased_cross_entropy: lambda: reference.mib_cross_entropy(**arrays),
        unbiased_distillation: lambda: reference.mib_distillation(
            arrays["logits"], batch.old_logits.numpy(), [3], arrays["labels"]
        ),
    }[loss]()
    assert expected > 100
    assert loss(batch.logits, batch).item() == pytest.approx(expected, rel=1e-9)


@every_loss
@pytest.mark.parametrize("size", [1.0, 1e4])
def test_a_batch_of_nothing_but_void_gives_zero_and_a_gradient_of_zeros(loss: Loss, size: float) -> None:
    batch = random_batch([[1, 2], [3]], seed=0, scale=size)
    batch.labels[:] = 255
    value, gradient = value_and_gradient(loss, batch)
    assert value.item() == 0
    assert torch.equal(gradient, torch.zeros_like(gradient))


def test_confidences_of_nothing_but_void_or_background_are_finite() -> None:
    batch = random_batch([[1, 2], [3]], seed=0, scale=1e4)
    for fill in (0, 255):
        means, pixels = losses.class_confidences(batch.logits.log_softmax(1), torch.full_like(batch.labels, fill))
        assert means.tolist() == pixels.tolist() == [0, 0, 0, 0]


@every_loss
@every_seed
def test_what_is_predicted_on_void_pixels_changes_nothing(loss: Loss, seed: int) -> None:
    batch = random_batch([[1, 2], [3]], seed)
    void = (batch.labels == 255)[:, None].expand_as(batch.logits)
    value, gradient = value_and_gradient(loss, batch)
    batch.logits = torch.where(void, -1e4 * batch.logits, batch.logits)
    changed_value, changed_gradient = value_and_gradient(loss, batch)
    assert void.any()
    assert changed_value.item() == pytest.approx(value.item(), rel=EXACT)
    torch.testing.assert_close(changed_gradient, gradient, rtol=EXACT, atol=EXACT)
    assert not changed_gradient[void].any()
    assert changed_gradient[~void].any()


def test_void_pixels_count_in_no_confidence_and_stay_void() -> None:
    batch = random_batch([[1, 2], [3]], seed=2)
    void = batch.labels == 255
    changed = torch.where(void[:, None], -1e4 * batch.logits, batch.logits)
    before = losses.class_confidences(batch.logits.log_softmax(1), batch.labels)[0]
    torch.testing.assert_close(losses.class_confidences(changed.log_softmax(1), batch.labels)[0], before)
    relabelled = losses.relabel(changed.log_softmax(1), batch.labels, batch.own, 0.0)
    assert torch.equal(relabelled == 255, void)  # delta 0 labels every other pixel


@pytest.mark.parametrize("loss", MEANS, ids=lambda f: f.__name__)
def test_losses_are_means_over_the_pixels_of_the_batch_not_over_images(loss: Loss) -> None:
    """An image with one pixel left weighs as one pixel: 16 times less than a whole one."""
    batch = random_batch([[1, 2], [3]], seed=0)
    batch.labels = torch.where(batch.labels == 255, 0, batch.labels)
    batch.labels[1:].flatten(1)[:, 1:] = 255
    whole, _ = value_and_gradient(loss, batch)
    singles = []
    for i in range(3):
        alone = Batch(
            batch.logits[i : i + 1],
            batch.labels[i : i + 1],
            batch.tau[i : i + 1],
            batch.classes_of_step,
            batch.old_logits[i : i + 1],
        )
        singles.append(value_and_gradient(loss, alone)[0].item())
    assert whole.item() == pytest.approx((16 * singles[0] + singles[1] + singles[2]) / 18, rel=EXACT)
