"""Which images a step gets: the dense rule by hand, and every definition over random presence matrices."""

from collections.abc import Sequence
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from little_set import VOID, LittleSet

from benchmarks.division import RULES, dense_disjoint, disjoint, overlapped
from benchmarks.division import tested_images as images_that_test
from benchmarks.names import ScenarioName
from benchmarks.scenarios import compute_scenario
from benchmarks.streams import build_benchmark

Groups = tuple[tuple[int, ...], ...]


def matrix_of(images: Sequence[set[int]], classes: int) -> np.ndarray:
    presence = np.zeros((len(images), classes + 1), dtype=bool)
    for i, shown in enumerate(images):
        presence[i, list(shown)] = True
    return presence


def listed(steps: list[np.ndarray]) -> list[list[int]]:
    return [step.tolist() for step in steps]


# ----------------------------------------------------------------------------------------------- the dense rule


def test_ten_images_divided_by_hand() -> None:
    """Classes 1, 2 | 3, 4 in 6, 3, 4 and 2 images; visited 0 1 2 3 5 8 (class 1), 4 7 (class 2), 6 (class 3).

    image  classes  scores 120 (1 - a/n) + sum n / n            step  a afterwards
    0      1 4      1: 120 + 8/6     4: 120 + 8/2  <-           1     a4 = 1
    1      1                                                    0     a1 = 1
    2      1 3      1: 100 + 10/6    3: 120 + 10/4 <-           1     a3 = 1
    3      1 2      1: 100 + 9/6     2: 120 + 9/3  <-           0     a1 = 2, a2 = 1
    5      1                                                    0     a1 = 3
    8      1 3 4    1: 60 + 12/6     3: 90 + 12/4  <- 4: 60 + 6 1     a3 = 2, a4 = 2
    4      2 3      2: 80 + 7/3 <-   3: 60 + 7/4                0     a2 = 2
    7      2                                                    0     a2 = 3
    6      3                                                    1     a3 = 3
    9      none: in no step
    """
    images = [{1, 4}, {1}, {1, 3}, {1, 2}, {2, 3}, {1}, {3}, {2}, {1, 3, 4}, set()]
    assert listed(dense_disjoint(matrix_of(images, 4), [(1, 2), (3, 4)])) == [[1, 3, 4, 5, 7], [0, 2, 6, 8]]


def test_ties_go_to_the_smaller_class() -> None:
    """Image 0 is visited first: classes 1 and 3, in two images each, both score 120 + 4/2."""
    images = [{1, 3}, {1}, {3}]
    assert listed(dense_disjoint(matrix_of(images, 3), [(3,), (1,)])) == [[2], [0, 1]]


def slow_rule(images: Sequence[set[int]], groups: Groups) -> list[list[int]]:
    """The rule of METHODS 'Scenarios', word for word, without an array."""
    step_of = {c: t for t, group in enumerate(groups) for c in group}
    images = [shown & set(step_of) for shown in images]
    n = {c: sum(c in shown for shown in images) for c in step_of}
    a = dict.fromkeys(step_of, 0)
    steps: list[list[int]] = [[] for _ in groups]
    for _, i in sorted((min(shown), i) for i, shown in enumerate(images) if shown):
        scores = {c: 120 * (1 - a[c] / n[c]) + sum(n[j] for j in sorted(images[i])) / n[c] for c in images[i]}
        best = min(scores, key=lambda c: (-scores[c], c))
        steps[step_of[best]].append(i)
        for c in images[i]:
            a[c] += step_of[c] == step_of[best]
    return [sorted(step) for step in steps]


# ---------------------------------------------------------------------------------------- random presence matrices


@st.composite
def cases(draw: st.DrawFn) -> tuple[np.ndarray, Groups]:
    """A presence matrix and steps that hold some or all of its classes, in any order."""
    classes = draw(st.integers(2, 9))
    density = draw(st.sampled_from([0.1, 0.3, 0.7]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    presence = rng.random((draw(st.integers(1, 40)), classes + 1)) < density
    presence[:, 0] = False
    order = (rng.permutation(classes) + 1)[: draw(st.integers(2, classes))]
    cuts = draw(st.sets(st.integers(1, len(order) - 1), min_size=1))
    return presence, tuple(tuple(part.tolist()) for part in np.split(order, sorted(cuts)))


def shown_in(presence: np.ndarray) -> list[set[int]]:
    return [set(np.flatnonzero(row).tolist()) for row in presence]


@given(cases())
def test_overlapped_disjoint_and_test_images_are_their_definitions(case: tuple[np.ndarray, Groups]) -> None:
    presence, groups = case
    images = list(enumerate(shown_in(presence)))
    for t, group in enumerate(groups):
        later = {c for other in groups[t + 1 :] for c in other}
        known = {c for other in groups[: t + 1] for c in other}
        assert overlapped(presence, groups)[t].tolist() == [i for i, shown in images if shown & set(group)]
        assert disjoint(presence, groups)[t].tolist() == [
            i for i, shown in images if shown & set(group) and not shown & later
        ]
        assert images_that_test(presence, groups)[t].tolist() == [i for i, shown in images if shown & known]


@given(cases(), st.sampled_from(sorted(RULES)))
def test_disjoint_steps_share_no_image_and_show_a_class_of_their_own(
    case: tuple[np.ndarray, Groups], rule: str
) -> None:
    presence, groups = case
    steps = RULES[rule](presence, groups)
    together = np.concatenate(steps)
    assert len(np.unique(together)) == len(together)
    for group, step in zip(groups, steps, strict=True):
        assert presence[step][:, list(group)].any(axis=1).all()
        assert (np.diff(step) > 0).all()


@given(cases())
def test_dense_rule_gives_every_image_with_a_class_to_one_step(case: tuple[np.ndarray, Groups]) -> None:
    presence, groups = case
    given_away = np.concatenate(dense_disjoint(presence, groups))
    classes = [c for group in groups for c in group]
    assert sorted(given_away.tolist()) == np.flatnonzero(presence[:, classes].any(axis=1)).tolist()


@given(cases())
def test_dense_rule_is_the_slow_one_over_all_steps_in_one_go(case: tuple[np.ndarray, Groups]) -> None:
    presence, groups = case
    assert listed(dense_disjoint(presence, groups)) == slow_rule(shown_in(presence), groups)


@pytest.mark.parametrize("order", [range(1, 151), np.random.default_rng(1).permutation(150) + 1], ids=["ids", "random"])
def test_steps_of_100_50_are_those_of_100_10_with_the_increments_joined(order: Sequence[int]) -> None:
    presence = np.random.default_rng(0).random((400, 151)) < 0.05
    presence[:, 0] = False
    classes = tuple(map(int, order))
    two, six = ((classes[:100], *(classes[a : a + size] for a in range(100, 150, size))) for size in (50, 10))
    base, *increments = slow_rule(shown_in(presence), six)
    expected = [base, sorted(image for step in increments for image in step)]
    assert listed(dense_disjoint(presence, two)) == expected != slow_rule(shown_in(presence), two)


# ----------------------------------------------------------------------------------------------- annotations


@pytest.mark.parametrize("setup", ["disjoint", "overlapped", "sequential"])
@settings(max_examples=25, deadline=None)
@given(case=cases())
def test_labels_tell_the_steps_classes_and_no_other(setup: str, case: tuple[np.ndarray, Groups]) -> None:
    """Every label map is rebuilt from its annotation: on the annotated classes the labels can be turned back."""
    presence, groups = case
    presence = np.concatenate([presence, np.eye(presence.shape[1], dtype=bool)[1:]])  # every class alone in an image
    imageset = LittleSet(presence, presence)
    benchmark = build_benchmark(compute_scenario(ScenarioName("little", "", setup), imageset, groups))
    class_of = [0, *(c for group in groups for c in group)]
    for t, experience in enumerate(benchmark.train_stream):
        told = {c for group in (groups[: t + 1] if setup == "sequential" else groups[t : t + 1]) for c in group}
        for i, image_id in enumerate(experience.data.ids):
            labels = experience.data.annotated(i)[1].numpy()
            full = imageset.read("train", int(image_id.removeprefix("train-")))[1]
            back = np.array([class_of[label] if label != VOID else VOID for label in labels.ravel()])
            expected = np.where(np.isin(full, [*told, VOID]), full, 0)
            assert back.tolist() == expected.ravel().tolist()
            assert experience.data.exemplar(i).classes == set(labels.ravel().tolist()) - {0, VOID}


@cache
def sequential_and_disjoint() -> tuple[list[list[str]], list[list[str]]]:
    presence = np.random.default_rng(1).random((60, 7)) < 0.3
    groups = ((3, 1), (2, 5), (6,))
    name = {setup: ScenarioName("little", "", setup) for setup in ("sequential", "disjoint")}
    first, second = (
        [[str(i) for i in step.train] for step in compute_scenario(n, LittleSet(presence, presence), groups).steps]
        for n in name.values()
    )
    return first, second


def test_sequential_has_the_images_of_disjoint() -> None:
    sequential, disjoint_ = sequential_and_disjoint()
    assert sequential == disjoint_


def test_split_hash_tells_sequential_from_disjoint() -> None:
    presence = np.ones((3, 3), dtype=bool)
    presence[0, 2] = False
    both = (
        compute_scenario(ScenarioName("little", "", setup), LittleSet(presence, presence), ((1,), (2,)))
        for setup in ("sequential", "disjoint")
    )
    assert len({scenario.split_hash for scenario in both}) == 2
