"""Memories keep what their rule says, with the probabilities of the exact enumeration in reference.py."""

from __future__ import annotations

import copy
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from reference import HAND_CASES, CBESReference
from scipy.stats import chi2

from benchmarks.annotated import AnnotatedImages
from benchmarks.packing import Reader
from strategies.learning.memory import POLICIES, ClassBalanced, ConfidenceMemory, HerdingMemory, Memory, Reservoir

TRIALS = 1500
UNLIKELY = 1e-4
"""Seeds are fixed, so a right rule either passes for good or is replaced once: a wrong one is at 1e-20."""

Outcomes = Mapping[frozenset[str], Fraction]


@dataclass(frozen=True)
class Fake:
    """An exemplar without an image."""

    image_id: str
    classes: frozenset[int] = frozenset({1})
    step: int = 0

    def load(self, augmentation: Any, rng: np.random.Generator) -> Any:
        raise AssertionError("a memory keeps references and looks at no image")


def names(memory: Memory) -> frozenset[str]:
    assert len({e.image_id for e in memory.exemplars}) == len(memory), "an image is twice in memory"
    return frozenset(e.image_id for e in memory.exemplars)


def misfit(expected: Outcomes, happened: Counter[frozenset[str]]) -> tuple[float, int]:
    """Chi-square statistic of what happened against the exact probabilities, and its degrees of freedom."""
    assert set(happened) <= set(expected), f"impossible: {set(happened) - set(expected)}"
    trials = sum(happened.values())
    expectation = {kept: float(p) * trials for kept, p in expected.items()}
    return sum((happened[k] - n) ** 2 / n for k, n in expectation.items()), len(expected) - 1


def assert_agrees(expected: Outcomes, happened: Counter[frozenset[str]]) -> None:
    statistic, freedom = misfit(expected, happened)
    assert freedom == 0 or chi2.sf(statistic, freedom) > UNLIKELY, {
        "".join(sorted(k)): (happened[k], float(p)) for k, p in expected.items()
    }


# ------------------------------------------------------------------------------------------------------- CBES


def offered(state: CBESReference, classes: frozenset[int], seed: int) -> frozenset[str]:
    """What a ClassBalanced memory in `state` holds after it was offered image x."""
    memory = ClassBalanced(state.memory_size, np.random.default_rng(seed))
    memory.exemplars = [Fake(name, of_one) for name, of_one in state.exemplars.items()]
    memory.seen = Counter(state.seen)
    memory.seen.subtract(classes)  # `state.seen` counts x already
    memory.offer(Fake("x", classes), state.n_classes)
    return names(memory)


def trials(state: CBESReference, classes: frozenset[int], seed: int = 0) -> Counter[frozenset[str]]:
    return Counter(offered(state, classes, TRIALS * seed + i) for i in range(TRIALS))


def random_state(seed: int) -> tuple[CBESReference, frozenset[int]]:
    """A full memory, two times in three, of images with one to three of up to four classes, and an image."""
    rng = np.random.default_rng([7, seed])
    n_classes = int(rng.integers(2, 5))
    size = int(rng.integers(2, 7))
    held = size if seed % 3 else size - 1

    def classes() -> frozenset[int]:
        return frozenset((1 + rng.permutation(n_classes)[: rng.integers(1, 4)]).tolist())

    exemplars = {name: classes() for name in "abcdefg"[:held]}
    image = classes()
    seen = {
        c: sum(c in e for e in exemplars.values()) + (c in image) + int(rng.integers(0, 4))
        for c in range(1, n_classes + 1)
    }
    return CBESReference(size, n_classes, seen, exemplars), image


RANDOM_STATES = 48


def kind_of(state: CBESReference, image: frozenset[int]) -> str:
    if len(state.exemplars) < state.memory_size:
        return "free"
    if min(len(state.members(c)) for c in image) < state.memory_size / state.n_classes:
        return "balance, tie" if len(state.largest()) > 1 else "balance"
    return "reservoir, classes" if len(image) > 1 else "reservoir, class"


def test_random_states_reach_every_branch_of_the_algorithm() -> None:
    kinds = Counter(kind_of(*random_state(seed)) for seed in range(RANDOM_STATES))
    assert min(kinds[k] for k in ("free", "balance, tie", "balance", "reservoir, classes", "reservoir, class")) >= 3


@pytest.mark.parametrize("name", [name for name in HAND_CASES if name.startswith("cbes")])
def test_class_balanced_selection_by_hand(name: str) -> None:
    case = HAND_CASES[name]
    assert_agrees(case["expected"], trials(case["state"], frozenset(case["classes"])))


@pytest.mark.parametrize("seed", range(RANDOM_STATES))
def test_class_balanced_selection_agrees_with_the_enumeration(seed: int) -> None:
    state, image = random_state(seed)
    assert_agrees(state.outcomes("x", image), trials(state, image, seed))


STREAM = [{1}, {1, 2}, {1}, set(), {2}, {1}, {1, 2}, {2, 3}, {1}]
"""Classes of the images a, b, c ...; class 3 comes late, d is not annotated."""


def test_class_balanced_selection_counts_every_image_of_a_class_as_seen_kept_or_not() -> None:
    """The whole stream at once: the counts n_c that the memory keeps itself decide the probabilities."""
    exact: dict[frozenset[str], Fraction] = {frozenset(): Fraction(1)}
    images = {name: frozenset(classes) for name, classes in zip("abcdefghi", STREAM, strict=True)}
    seen: Counter[int] = Counter()
    for name, classes in images.items():
        seen.update(classes)
        after: dict[frozenset[str], Fraction] = defaultdict(Fraction)
        for kept, reached in exact.items():
            state = CBESReference(3, 2, seen, {old: images[old] for old in sorted(kept)})
            for outcome, p in state.outcomes(name, classes).items():
                after[outcome] += reached * p
        exact = dict(after)

    def filled(seed: int) -> frozenset[str]:
        memory = ClassBalanced(3, np.random.default_rng(seed))
        for name, classes in images.items():
            memory.offer(Fake(name, classes), 2)
        return names(memory)

    assert len(exact) > 10
    assert_agrees(exact, Counter(filled(seed) for seed in range(3000)))


def test_class_balanced_selection_ends_with_equal_shares_where_reservoir_sampling_keeps_the_streams() -> None:
    """90 images of class 1, then 10 of class 2, into 10 places."""
    stream = [Fake(f"a{i}", frozenset({1})) for i in range(90)] + [Fake(f"b{i}", frozenset({2})) for i in range(10)]

    def rare(policy: Callable[..., Memory], seed: int) -> int:
        memory = policy(10, np.random.default_rng(seed))
        for exemplar in stream:
            memory.offer(exemplar, 2)
        return len(memory.holding(2))

    assert {rare(ClassBalanced, seed) for seed in range(10)} == {5}
    assert 0.6 < np.mean([rare(Reservoir, seed) for seed in range(200)]) < 1.4


# -------------------------------------------------------------------------------------------------- reservoir


def test_reservoir_keeps_every_subset_of_the_stream_with_the_same_probability() -> None:
    def filled(seed: int) -> frozenset[str]:
        memory = Reservoir(2, np.random.default_rng(seed))
        for name in "abcde":
            memory.offer(Fake(name), 1)
        return names(memory)

    expected = {frozenset(pair): Fraction(1, 10) for pair in combinations("abcde", 2)}
    assert_agrees(expected, Counter(filled(seed) for seed in range(3000)))


def test_reservoir_keeps_each_image_with_probability_size_over_seen() -> None:
    kept: Counter[str] = Counter()
    for seed in range(1000):
        memory = Reservoir(5, np.random.default_rng(seed))
        for i in range(20):
            memory.offer(Fake(str(i)), 1)
        kept.update(names(memory))
    spread = np.sqrt(1000 * 0.25 * 0.75)
    assert sum(kept.values()) == 5000
    for i in range(20):
        assert abs(kept[str(i)] - 250) < 4 * spread, i


# ----------------------------------------------------------------------------------------------- every memory

every_policy = pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)


def full_memory(policy: type[Memory], held: int, seed: int = 0) -> Memory:
    memory = policy(8, np.random.default_rng(seed))
    for i in range(held):
        memory.offer(Fake(str(i)), 1)
    assert len(memory) == held
    return memory


@every_policy
def test_a_memory_of_size_0_keeps_and_draws_nothing_and_a_negative_size_is_an_error(policy: type[Memory]) -> None:
    memory = policy(0, np.random.default_rng(0))
    for i in range(30):
        memory.offer(Fake(str(i), frozenset({1 + i % 4})), 4)
    assert len(memory) == memory.bytes() == 0 and memory.draw(4) == []
    with pytest.raises(ValueError, match="memory size -1 is below 0"):
        policy(-1, np.random.default_rng(0))


@every_policy
def test_a_memory_never_holds_more_than_its_size(policy: type[Memory]) -> None:
    memory = policy(3, np.random.default_rng(0))
    for i in range(30):
        memory.offer(Fake(str(i), frozenset({1 + i % 4})), 4)
        assert len(memory) == min(i + 1, 3)


@every_policy
def test_draws_are_without_replacement(policy: type[Memory]) -> None:
    for seed in range(50):
        drawn = [e.image_id for e in full_memory(policy, 5, seed).draw(4)]
        assert len(set(drawn)) == 4


@every_policy
def test_draws_are_never_more_than_are_there(policy: type[Memory]) -> None:
    assert full_memory(policy, 0).draw(4) == []
    drawn = [e.image_id for e in full_memory(policy, 3).draw(4)]
    assert sorted(drawn) == ["0", "1", "2"]


@every_policy
def test_every_pair_is_drawn_equally_often(policy: type[Memory]) -> None:
    memory = full_memory(policy, 4)
    pairs = Counter(frozenset(e.image_id for e in memory.draw(2)) for _ in range(3000))
    assert_agrees({frozenset(p): Fraction(1, 6) for p in combinations("0123", 2)}, pairs)


@every_policy
def test_drawing_changes_nothing_in_memory(policy: type[Memory]) -> None:
    memory = full_memory(policy, 5)
    before = list(memory.exemplars)
    memory.draw(4)
    assert memory.exemplars == before


def test_holding_tells_the_places_of_a_classs_exemplars() -> None:
    memory = ClassBalanced(4, np.random.default_rng(0))
    memory.exemplars = [Fake("a", frozenset({1})), Fake("b", frozenset({2})), Fake("c", frozenset({1, 2}))]
    assert [memory.holding(c) for c in (1, 2, 3)] == [[0, 2], [1, 2], []]


# -------------------------------------------------------------------------------------------------- exemplars


@cache
def two_steps() -> tuple[AnnotatedImages, AnnotatedImages]:
    """One image with classes 4, 7 and 9, listed in step 0 with C_0 = {4, 7} and in step 1 with C_1 = {9}."""
    label_map = np.array([[4, 7, 9], [0, 255, 9]], dtype=np.uint8)
    presence = np.zeros((1, 10), dtype=bool)
    presence[0, [4, 7, 9]] = True

    class Pixels(Reader):
        kept = True

        def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
            return np.zeros((3, 2, 3), dtype=np.uint8), label_map

    def listed(step: int, positions: dict[int, int]) -> AnnotatedImages:
        return AnnotatedImages(Pixels(), np.array([0]), ["image"], presence, step, positions)

    return listed(0, {4: 1, 7: 2}), listed(1, {9: 3})


@every_policy
def test_an_exemplar_keeps_its_step_its_classes_and_its_annotation(policy: type[Memory]) -> None:
    memory = policy(2, np.random.default_rng(0))
    for data, known in zip(two_steps(), (2, 3), strict=True):
        memory.offer(data.exemplar(0), known)
    first, second = sorted(memory.draw(2), key=lambda e: e.step)
    assert (first.image_id, first.step, first.classes) == ("image", 0, {1, 2})
    assert (second.image_id, second.step, second.classes) == ("image", 1, {3})
    rng = np.random.default_rng(0)
    assert first.load(None, rng)[1].tolist() == [[1, 2, 0], [0, 255, 0]]
    assert second.load(None, rng)[1].tolist() == [[0, 0, 3], [0, 255, 3]]


# ------------------------------------------------------------------------------------------------ states

KINDS: tuple[type[Any], ...] = (Reservoir, ClassBalanced, ConfidenceMemory, HerdingMemory)


def offer_all(memory: Any, images: range) -> None:
    """Offer images with one or two of three classes, in the way that the memory asks for."""
    for i in images:
        rng = np.random.default_rng([5, i])
        held = (1 + rng.permutation(3)[: 1 + i % 2]).tolist()
        exemplar = Fake(str(i), frozenset(held))
        if isinstance(memory, ConfidenceMemory):
            memory.offer(exemplar, {c: float(rng.random()) for c in held})
        elif isinstance(memory, HerdingMemory):
            memory.offer(exemplar, {c: rng.normal(size=2) + c for c in held}, dict.fromkeys(held, 1 + i % 3))
        else:
            memory.offer(exemplar, 3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_memory_that_takes_over_a_state_goes_on_as_the_one_that_gave_it(kind: type[Any]) -> None:
    undisturbed, rng = kind(4, np.random.default_rng(1)), np.random.default_rng(0)
    offer_all(undisturbed, range(9))
    state = undisturbed.state_dict()
    kept, before = list(undisturbed.exemplars), copy.deepcopy(state)
    rng.bit_generator.state = undisturbed.rng.bit_generator.state  # its owner keeps it
    offer_all(undisturbed, range(9, 30))
    assert kept != undisturbed.exemplars
    np.testing.assert_equal(state, before)  # what is kept later changes no state given before

    again = kind(4, rng)
    again.load_state_dict(state)
    assert again.exemplars == kept
    offer_all(again, range(9, 30))
    assert again.exemplars == undisturbed.exemplars
    np.testing.assert_equal(again.state_dict(), undisturbed.state_dict())


def test_a_memory_knows_the_bytes_of_what_it_keeps() -> None:
    memory = Reservoir(2, np.random.default_rng(0))
    for data in two_steps():
        memory.offer(data.exemplar(0), 3)
    assert memory.bytes() == 2 * (3 * 2 * 3 + 2 * 3)  # images and annotations of 2 x 3 pixels
    herding = HerdingMemory(2, np.random.default_rng(0))
    herding.offer(two_steps()[0].exemplar(0), {1: np.zeros(8, np.float32)}, {1: 1})
    assert herding.bytes() == 24 + 2 * 8 * 4  # the image's feature and the sum of its class's


@pytest.mark.parametrize("kind", KINDS)
def test_a_memory_of_one_image_keeps_one_and_a_full_one_keeps_the_order_of_arrival(kind: type[Any]) -> None:
    single, full = kind(1, np.random.default_rng(0)), kind(4, np.random.default_rng(0))
    offer_all(single, range(5))
    offer_all(full, range(4))
    assert len(single) == 1
    assert [e.image_id for e in full.exemplars] == ["0", "1", "2", "3"]
