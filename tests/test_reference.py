"""The reference functions give the numbers worked out by hand in reference.py."""

from collections import defaultdict
from fractions import Fraction
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from reference import (
    HAND_CASES,
    CBESReference,
    composite_loss,
    confidence,
    confusion,
    cosine_logits,
    cross_entropy,
    ema,
    iou,
    mib_cross_entropy,
    mib_distillation,
    mib_init,
    miou,
    relabel,
    sampling_probabilities,
    softmax,
)

SEVEN_DECIMALS = 1e-7  # the hand-worked numbers are rounded


def arguments(name: str) -> dict[str, Any]:
    """A hand case without what it should give."""
    return {key: value for key, value in HAND_CASES[name].items() if not key.startswith("expected")}


def expected(name: str) -> Any:
    return HAND_CASES[name]["expected"]


def named(prefix: str) -> list[str]:
    return [name for name in HAND_CASES if name.startswith(prefix)]


def test_softmax_of_logarithms_gives_back_the_proportions() -> None:
    weights = np.array([[4.0, 1.0], [2.0, 17.0], [4.0, 1.0], [10.0, 1.0]]).reshape(1, 4, 1, 2)
    np.testing.assert_allclose(softmax(np.log(weights)), weights / 20, rtol=1e-14)
    np.testing.assert_allclose(softmax(np.log(weights) + 1000.0), weights / 20, rtol=1e-11)


def test_cosine_logits_depend_on_directions_alone() -> None:
    case = arguments("cosine_logits")
    np.testing.assert_allclose(cosine_logits(**case), expected("cosine_logits"), atol=1e-12)
    scaled = cosine_logits(case["features"] * 7.0, case["weights"] * 0.1, case["tau"])
    np.testing.assert_allclose(scaled, expected("cosine_logits"), atol=1e-12)


def test_confidence_is_the_mean_over_annotated_pixels_of_the_batch() -> None:
    case = arguments("confidence")
    assert confidence(**case, c=1) == pytest.approx(expected("confidence")[1], abs=1e-12)
    assert confidence(**case, c=2) is None


def test_confidence_has_no_background() -> None:
    with pytest.raises(ValueError, match="not a foreground class"):
        confidence(**arguments("confidence"), c=0)


def test_moving_average_keeps_the_value_of_an_absent_class() -> None:
    case = arguments("ema")
    assert ema(**case) == pytest.approx(expected("ema"), abs=1e-12)
    assert ema(**case | {"E_mb": None}) == HAND_CASES["ema"]["expected_absent"]


@pytest.mark.parametrize("available", expected("sampling_probabilities"))
def test_sampling_probabilities_are_renormalised_over_available_classes(available: tuple[int, ...]) -> None:
    got = sampling_probabilities(**arguments("sampling_probabilities"), available=set(available))
    assert got == pytest.approx(expected("sampling_probabilities")[available], abs=1e-12)


@pytest.mark.parametrize("name", named("relabel"))
def test_relabel(name: str) -> None:
    np.testing.assert_array_equal(relabel(**arguments(name)), expected(name))


@pytest.mark.parametrize("name", named("composite_loss"))
def test_composite_loss(name: str) -> None:
    assert composite_loss(**arguments(name)) == pytest.approx(expected(name), abs=SEVEN_DECIMALS)


def test_composite_loss_ignores_what_is_predicted_on_void() -> None:
    case = arguments("composite_loss")
    changed = case["logits"].copy()
    changed[0, :, 1, 1] = [0.0, 50.0, -50.0, 3.0]
    assert composite_loss(**case | {"logits": changed}) == composite_loss(**case)


def test_cross_entropy() -> None:
    got = cross_entropy(**arguments("cross_entropy"))
    assert got == pytest.approx(expected("cross_entropy"), abs=SEVEN_DECIMALS)


def test_mib_cross_entropy() -> None:
    got = mib_cross_entropy(**arguments("mib_cross_entropy"))
    assert got == pytest.approx(expected("mib_cross_entropy"), abs=SEVEN_DECIMALS)


def test_mib_cross_entropy_is_the_composite_loss_without_pseudo_labels_and_gamma_one() -> None:
    case = arguments("mib_cross_entropy")
    assert mib_cross_entropy(**case) == pytest.approx(composite_loss(**case, delta=1.0, gamma=1.0), rel=1e-12)


def test_mib_distillation() -> None:
    got = mib_distillation(**arguments("mib_distillation"))
    assert got == pytest.approx(expected("mib_distillation"), abs=SEVEN_DECIMALS)


def test_mib_initialisation() -> None:
    for got, wanted in zip(mib_init(**arguments("mib_init")), expected("mib_init"), strict=True):
        np.testing.assert_allclose(got, wanted, atol=SEVEN_DECIMALS)


def test_mib_initialisation_shares_the_background_and_leaves_old_classes_alone() -> None:
    case = arguments("mib_init")
    feature = np.array([0.3, -0.7])
    old = softmax((case["weight"] @ feature + case["bias"]).reshape(1, -1, 1, 1)).ravel()
    weight, bias = mib_init(**case)
    new = softmax((weight @ feature + bias).reshape(1, -1, 1, 1)).ravel()
    np.testing.assert_allclose(new, [old[0] / 4, old[1], old[0] / 4, old[0] / 4, old[0] / 4], rtol=1e-12)


@pytest.mark.parametrize("name", named("miou"))
def test_miou(name: str) -> None:
    matrix = confusion(**arguments(name))
    np.testing.assert_array_equal(matrix, HAND_CASES[name]["expected_confusion"])
    assert iou(matrix) == pytest.approx(HAND_CASES[name]["expected_iou"])
    assert miou(matrix) == pytest.approx(expected(name))


@pytest.mark.parametrize("name", named("cbes"))
def test_cbes(name: str) -> None:
    case = HAND_CASES[name]
    outcomes = case["state"].outcomes("x", frozenset(case["classes"]))
    assert outcomes == case["expected"]
    assert sum(outcomes.values()) == 1


def test_cbes_with_one_class_is_reservoir_sampling() -> None:
    memory: dict[frozenset[str], Fraction] = {frozenset(): Fraction(1)}
    for seen, name in enumerate("abcde", start=1):
        after: dict[frozenset[str], Fraction] = defaultdict(Fraction)
        for kept, reached in memory.items():
            state = CBESReference(2, 1, {1: seen}, {old: frozenset({1}) for old in kept})
            for outcome, p in state.outcomes(name, frozenset({1})).items():
                after[outcome] += reached * p
        memory = dict(after)
    assert memory == {frozenset(pair): Fraction(1, 10) for pair in combinations("abcde", 2)}


@pytest.mark.parametrize("function", [cross_entropy, mib_cross_entropy, composite_loss])
def test_a_loss_on_nothing_but_void_is_an_error(function: Any) -> None:
    case = arguments("composite_loss")
    case["labels"] = np.full_like(case["labels"], 255)
    names = function.__code__.co_varnames[: function.__code__.co_argcount]
    with pytest.raises(ValueError, match="every pixel is void"):
        function(**{name: case[name] for name in names})


def test_a_label_of_another_step_is_an_error() -> None:
    case = arguments("relabel")
    with pytest.raises(ValueError, match="not a class of its step"):
        relabel(**case | {"tau": np.array([0, 0])})


def test_new_classes_must_be_the_last_channels() -> None:
    with pytest.raises(ValueError, match="new classes must be the channels 2"):
        mib_distillation(**arguments("mib_distillation") | {"new_classes": [1]})
