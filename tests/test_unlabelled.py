"""What the cross-entropy makes of pixels that an increment leaves unlabelled: nothing, or the background."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import reference
import torch
from test_sequential import sequential
from torch import Tensor, nn
from toy import FLOAT32, VOID, Iteration, Loads, Onlooker, make, run, told, train

from strategies import mir
from strategies.learning.losses import cross_entropy, image_losses, without_unlabelled
from strategies.learning.registry import method_class

CROSS_ENTROPY_ALONE = {"coriseg": {"distillation_weight": 0.0}, "ours": {"loss": "cross-entropy"}}
NAMES = ("er", "finetune", "agem", "mir", "coriseg", "ours")
READINGS = ("ignore", "background")
SETTINGS = ("memory.size=12",)


# ------------------------------------------------------------------------------------------------------- by hand


def test_label_0_of_an_increments_image_becomes_void_and_the_base_steps_stays_background() -> None:
    labels = torch.tensor([[[0, 1, VOID]], [[0, 4, VOID]], [[0, 0, 5]]])
    assert without_unlabelled(labels, torch.tensor([0, 1, 2])).tolist() == [
        [[0, 1, VOID]],
        [[VOID, 4, VOID]],
        [[VOID, VOID, 5]],
    ]
    assert labels[1, 0, 0] == 0  # the annotation itself is left alone


def hand_made() -> tuple[Tensor, Tensor]:
    """p = (1/2, 1/4, 1/4) at every pixel of an image of the base step and one of step 1."""
    logits = torch.tensor([0.5, 0.25, 0.25]).log().view(1, 3, 1, 1).expand(2, 3, 1, 3).clone().requires_grad_()
    return logits, torch.tensor([[[0, 1, VOID]], [[0, 0, 2]]])


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([0, 0], (3 * np.log(2) + 2 * np.log(4)) / 5),  # five pixels, three of them background
        ([0, 1], (np.log(2) + 2 * np.log(4)) / 3),  # the base step's background, and one pixel of each class
        ([1, 1], np.log(4)),
    ],
)
def test_the_mean_is_over_the_pixels_that_remain(steps: list[int], expected: float) -> None:
    logits, labels = hand_made()
    loss = cross_entropy(logits, without_unlabelled(labels, torch.tensor(steps)))
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    torch.autograd.backward(loss)
    assert logits.grad is not None
    touched = logits.grad.abs().amax(1)[:, 0] > 0
    assert touched.tolist() == [[steps[0] == 0, True, False], [steps[1] == 0, steps[1] == 0, True]]


def test_an_image_without_a_labelled_pixel_has_loss_0_and_no_gradient() -> None:
    logits, _ = hand_made()
    nothing = without_unlabelled(torch.zeros(2, 1, 3, dtype=torch.long), torch.tensor([1, 2]))
    loss = cross_entropy(logits, nothing)
    torch.autograd.backward(loss)
    assert loss.item() == 0
    assert logits.grad is not None and logits.grad.tolist() == torch.zeros(2, 3, 1, 3).tolist()
    assert image_losses(logits, nothing).tolist() == [0, 0]


# ---------------------------------------------------------------------------------------------- in every method


def parameters(name: str, reading: str) -> dict[str, Any]:
    return {"unlabelled": reading, **CROSS_ENTROPY_ALONE.get(name, {})}


@cache
def iterations(name: str, reading: str) -> list[Iteration]:
    return run(name, settings=SETTINGS, **parameters(name, reading)).iterations


every_reading = pytest.mark.parametrize("reading", READINGS)
every_name = pytest.mark.parametrize("name", NAMES)


def test_ignore_is_the_default_of_all_but_finetune() -> None:
    defaults = {name: method_class(name).Parameters().unlabelled for name in NAMES}
    assert defaults == dict.fromkeys(NAMES, "ignore") | {"finetune": "background"}


@every_reading
@every_name
def test_the_loss_is_the_references_on_what_the_reading_leaves(name: str, reading: str) -> None:
    for iteration in iterations(name, reading):
        labels = iteration.told if reading == "ignore" else iteration.planted
        assert iteration.loss == pytest.approx(reference.cross_entropy(iteration.logits, labels), rel=FLOAT32)


@every_reading
@every_name
def test_unlabelled_pixels_of_increments_alone_get_no_gradient_where_they_are_ignored(name: str, reading: str) -> None:
    base = 0
    for iteration in iterations(name, reading):
        zero, of_increment = iteration.planted == 0, iteration.tau[:, None, None] > 0
        pulled = iteration.logits_gradient.abs().amax(1).numpy() > 0
        assert (zero & of_increment).any()
        assert pulled[zero & of_increment].any() == (reading == "background")
        assert pulled[zero & ~of_increment].all()
        base += (zero & ~of_increment).sum()
    assert base > 0 or name in ("finetune", "agem")  # these two replay nothing


@every_reading
def test_agems_reference_is_the_gradient_by_the_same_reading(reading: str, monkeypatch: pytest.MonkeyPatch) -> None:
    template = make("agem", settings=SETTINGS, unlabelled=reading)
    loads, losses = Loads(), []
    gradient = template.gradient
    monkeypatch.setattr(template, "gradient", lambda loss: losses.append(loss.item()) or gradient(loss))
    logits: list[np.ndarray] = []

    def seen(module: nn.Module, images: tuple[Tensor], output: Tensor) -> None:
        logits.append(output.detach().double().numpy())

    template.network.register_forward_hook(seen)
    train(loads.watch(template), steps=[1])
    for loss, (_, (_, labels, steps, _)), output in zip(losses, loads.batches, logits[::2], strict=True):
        labels = told(labels, steps) if reading == "ignore" else labels.numpy()
        assert loss == pytest.approx(reference.cross_entropy(output, labels), rel=FLOAT32)


@every_reading
def test_mir_ranks_by_the_same_reading(reading: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the virtual step and the candidates' losses are given, against the annotations that they arrived with."""
    given: list[tuple[Tensor, Tensor]] = []
    interference = mir.interference

    def watched(strategy: Any, incoming: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        given.append((incoming, labels))
        return interference(strategy, incoming, images, labels)

    monkeypatch.setattr(mir, "interference", watched)
    onlooker, loads = Onlooker(), Loads()
    train(loads.watch(make("mir", [onlooker], settings=SETTINGS, unlabelled=reading)))
    for iteration, (_, candidates), (incoming, labels) in zip(onlooker.iterations, loads.batches, given, strict=True):
        came = len(iteration.incoming)
        expected = (iteration.planted[:came], candidates[1].numpy())
        if reading == "ignore":
            expected = (iteration.told[:came], told(*candidates[1:3]))
        np.testing.assert_array_equal(incoming, expected[0])
        np.testing.assert_array_equal(labels, expected[1])


@every_reading
def test_ours_with_all_its_parts_off_is_er_under_each_reading(reading: str) -> None:
    off = {"memory": "reservoir", "loss": "cross-entropy", "head": "linear", "sampling": "uniform"}
    ours = run("ours", settings=SETTINGS, unlabelled=reading, **off)
    assert [i.loss for i in ours.iterations] == [i.loss for i in iterations("er", reading)]


@every_name
def test_where_every_class_seen_is_annotated_label_0_stays_the_background(name: str) -> None:
    onlooker = Onlooker()
    template = make(name, [onlooker], settings=SETTINGS, **parameters(name, "ignore"))
    for t, experience in enumerate(sequential().train_stream):
        template.begin(experience) if t == 0 else template.train(experience, eval_streams=[])
    for iteration in onlooker.iterations:
        expected = reference.cross_entropy(iteration.logits, iteration.labels)
        assert iteration.loss == pytest.approx(expected, rel=FLOAT32)
        assert (iteration.labels[iteration.tau > 0] == 0).any()
