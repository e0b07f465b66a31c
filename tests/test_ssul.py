"""SSUL and SSUL-M: labels and losses against loops over pixels, what is trained, what is predicted, the exemplars."""

from __future__ import annotations

import copy
import itertools
import math
from collections import Counter
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from test_sequential import sequential
from torch import Tensor
from toy import GROUPS, Toy, benchmark, equal, full_label_map, make

from bench.train.state import exemplars_of, packed, unpacked
from benchmarks.augmentation import Augmentation
from benchmarks.names import ScenarioName
from benchmarks.scenarios import compute_scenario
from benchmarks.streams import SegmentationScenario, build_benchmark
from strategies.learning.exemplars import ChosenExemplars
from strategies.learning.losses import one_vs_rest_with_unknown
from strategies.networks.grouped_head import GroupedHead
from strategies.ssul import Ssul, sure_classes
from strategies.ssul_m import SsulM, shifted

UNKNOWN, VOID = 254, 255
OFFLINE = [
    "protocol=offline",
    "memory.size=0",
    "incremental.epochs=2",
    "incremental.batch_size=4",
    "incremental.lr=0.02",
]


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


# ------------------------------------------------------------------------------------------- losses and labels


def slow_loss(logits: Tensor, labels: Tensor) -> float:
    """The sum of all outputs' binary cross-entropies, a pixel at a time; the last output is the unknown class."""
    total, counted = 0.0, 0
    images, outputs, height, width = logits.shape
    for b, y, x in itertools.product(range(images), range(height), range(width)):
        label = int(labels[b, y, x])
        if label == VOID:
            continue
        counted += 1
        positive = outputs - 1 if label == UNKNOWN else label
        for k in range(outputs):
            s = sigmoid(float(logits[b, k, y, x]))
            total -= math.log(s if k == positive else 1 - s)
    return total / max(counted, 1)


def random_labels(shape: tuple[int, ...], among: list[int], seed: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).choice(among, shape)).long()


@pytest.mark.parametrize(
    ("shape", "classes", "among"),
    [
        ((2, 5, 7), 4, [0, 1, 3, 4, UNKNOWN, VOID]),
        ((1, 3, 4), 1, [0, 1, UNKNOWN]),
        ((1, 1, 1), 2, [2]),
        ((2, 3, 3), 3, [VOID]),
        ((1, 4, 3), 3, [UNKNOWN]),
    ],
)
def test_the_loss_is_that_of_a_loop_over_pixels(shape: tuple[int, ...], classes: int, among: list[int]) -> None:
    torch.manual_seed(len(among))
    logits = torch.randn(shape[0], classes + 2, *shape[1:], dtype=torch.float64)
    labels = random_labels(shape, among, classes)
    assert one_vs_rest_with_unknown(logits, labels).item() == pytest.approx(slow_loss(logits, labels), abs=1e-12)


@pytest.mark.parametrize("threshold", [0.0, 0.7, 1.0])
def test_a_pixel_is_surely_of_a_class_where_that_has_the_largest_sigmoid_and_enough(threshold: float) -> None:
    torch.manual_seed(4)
    logits = 2 * torch.randn(2, 5, 6, 7)  # the background, three classes, the unknown one
    found = sure_classes(logits, threshold)
    for b, y, x in itertools.product(range(2), range(6), range(7)):
        sigmoids = [sigmoid(float(z)) for z in logits[b, :, y, x]]
        best = max(range(5), key=lambda k: sigmoids[k])
        assert found[b, y, x] == (best if best in (1, 2, 3) and sigmoids[best] >= threshold else 0)
    assert bool(found.any()) == (threshold < 1)


def grouped_network() -> Any:
    return make(Ssul, settings=OFFLINE).network


def begun(method: Any = Ssul, of: SegmentationScenario | None = None, plugins: Any = (), **parameters: Any) -> Any:
    template = make(method, plugins, settings=OFFLINE, **parameters)
    template.begin((of or benchmark()).train_stream[0])
    return template


@pytest.mark.parametrize("kind", [Ssul, SsulM])
def test_where_steps_annotate_every_class_seen_the_annotation_stands(
    kind: type[Ssul], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In labels, and in what a memory takes images to show; with a threshold of 0 the model is sure of every pixel."""
    labels_of, choose = Ssul.labels, ChosenExemplars.choose
    met, chosen = [], []

    def labels(method: Ssul, strategy: Any) -> Tensor:
        met.append((labels_of(method, strategy), strategy.mb_y.clone()))
        return met[-1][0]

    def choosing(memory: ChosenExemplars, candidates: Any) -> None:
        chosen.append(candidates)
        choose(memory, candidates)

    monkeypatch.setattr(Ssul, "labels", labels)
    monkeypatch.setattr(ChosenExemplars, "choose", choosing)
    template = begun(kind, sequential(), threshold=0.0)
    for experience in sequential().train_stream[1:]:
        template.train(experience, eval_streams=[])
    assert met and all(torch.equal(found, told) for found, told in met)
    for exemplar, shown in chosen[-1].items() if kind is SsulM else ():
        told = exemplar.told_up_to(6).load(None, np.random.default_rng(0))[1]
        assert shown == set(told.unique().tolist()) - {0, VOID}


def test_pseudo_labels_stand_where_an_image_tells_no_class() -> None:
    """Only in the background's and the unknown class's place, and only classes of the previous model's."""

    class Look(Ssul):
        resumable = True

        def labels(self, strategy: Any) -> Tensor:
            found = super().labels(strategy)
            seen.append((strategy.mb_x, strategy.mb_y, found))
            return found

    seen: list[tuple[Tensor, Tensor, Tensor]] = []
    of = toy("spectral")
    template = begun(Look, of, threshold=0.55)
    old = copy.deepcopy(template.network).eval()
    template.train(of.train_stream[1], eval_streams=[])
    kinds = Counter[tuple[int, int]]()
    for images, labels, found in seen:
        with torch.no_grad():
            sigmoids = old(images).sigmoid()
        best, place = sigmoids.max(1)
        pseudo = (best >= 0.55) & (place > 0) & (place < 4) & ((labels == 0) | (labels == UNKNOWN))
        assert torch.equal(found, torch.where(pseudo, place, labels))
        kinds.update(zip(labels[pseudo].tolist(), found[pseudo].tolist(), strict=True))
    assert {label for label, _ in kinds} == {0, UNKNOWN} and {new for _, new in kinds} <= {1, 2, 3}


# ------------------------------------------------------------------------------------------------ the unknown class


def toy(saliency: Any, imageset: Any = None) -> SegmentationScenario:
    scenario = compute_scenario(ScenarioName("toy", "3+1+2", "overlapped"), imageset or Toy(), GROUPS)
    return build_benchmark(scenario, saliency=saliency)


def values(of: SegmentationScenario, step: int, **augmented: Any) -> set[int]:
    batches = of.train_stream[step].data.batches(8, augmentation=Augmentation(**augmented) if augmented else None)
    return {label for _, labels, *_ in batches for label in labels.unique().tolist()}


def test_without_saliency_all_of_the_background_is_unknown_and_so_is_what_is_added_around_it() -> None:
    assert values(toy("none"), 0) == {UNKNOWN, 1, 2, 3, VOID}
    assert values(toy("none"), 1, crop=24, fill=0, around=True) == {UNKNOWN, 4, VOID}
    assert values(toy(None), 1) == {0, 4, VOID}


class Everywhere:
    """Saliency maps of one value."""

    def __init__(self, salient: bool) -> None:
        self.salient = salient

    def __call__(self, index: int, size: Any) -> np.ndarray:
        return np.full(tuple(size), self.salient)


@pytest.mark.parametrize(("salient", "expected"), [(True, {UNKNOWN, 4, VOID}), (False, {0, 4, VOID})])
def test_where_all_is_salient_no_background_is_left_and_where_nothing_is_no_unknown(
    salient: bool, expected: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.streams.saliency_of", lambda *_: Everywhere(salient))
    assert values(toy("spectral"), 1) == expected
    padded = values(toy("spectral"), 1, crop=24, fill=0, around=True)
    assert padded == expected | {0}, "what is added around an image is not salient"


def test_what_is_salient_moves_as_the_labels_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Salient where the full label map has class 2: where step 1 annotates that, and unknown elsewhere."""

    class Twos:
        def __call__(self, index: int, size: Any) -> np.ndarray:
            return full_label_map(f"train-{index}") == 2

    monkeypatch.setattr("benchmarks.streams.saliency_of", lambda *_: Twos())
    of = toy("spectral")
    moved = Augmentation(scale=(0.6, 1.7), crop=13, flip=True)
    [truth] = of.train_stream[1].data.batches(99, augmentation=moved, seed=(5,))
    assert UNKNOWN not in truth[1] and (truth[1] == 4).any()
    base = of.train_stream[0].data
    [marked] = base.batches(99, augmentation=moved, seed=(5,))
    [twos] = base.told_up_to(4).batches(99, augmentation=moved, seed=(5,))
    assert torch.equal(marked[1] == UNKNOWN, twos[1] == 4) and (twos[1] == 4).any()


def test_an_exemplar_can_be_told_of_later_classes() -> None:
    data = benchmark().train_stream[0].data
    for exemplar in map(data.exemplar, range(len(data))):
        raw = full_label_map(exemplar.image_id)
        for last in (3, 4, 6):
            labels = exemplar.told_up_to(last).load(None, np.random.default_rng(0))[1].numpy()
            label_of = {c: 1 + i for i, c in enumerate(c for group in GROUPS for c in group)}
            known = {c: label for c, label in label_of.items() if label <= last}
            assert all(labels[p] == (VOID if raw[p] == VOID else known.get(int(raw[p]), 0)) for p in np.ndindex(16, 16))


# --------------------------------------------------------------------------------------------------------- the head


def test_scores_are_the_sigmoids_with_the_unknown_ones_added_to_the_background() -> None:
    torch.manual_seed(0)
    head = GroupedHead(6, 3)
    head.grow(2)
    logits = torch.randn(2, 6, 3, 5)
    assert head.outputs == 5 and head(torch.randn(1, 6, 2, 2)).shape == (1, 6, 2, 2)
    scores = head.scores(logits)
    for b, y, x in itertools.product(range(2), range(3), range(5)):
        s = [sigmoid(float(z)) for z in logits[b, :, y, x]]
        assert scores[b, :, y, x].tolist() == pytest.approx([s[0] + s[5], *s[1:5]], abs=1e-6)
    logits[:, -1] = -torch.inf
    assert torch.equal(head.scores(logits).argmax(1), logits[:, :5].argmax(1))


def test_new_outputs_begin_as_the_unknown_class_on_any_image() -> None:
    network = grouped_network()
    network.grow(2)
    network.head.start_as_unknown()
    torch.manual_seed(1)
    for mode in (True, False):
        with torch.no_grad():
            logits = network.train(mode)(torch.randn(2, 3, 16, 16))
        assert logits.shape[1] == 7
        for new in (4, 5):
            torch.testing.assert_close(logits[:, new], logits[:, 6], rtol=1e-5, atol=1e-6)


def test_the_new_and_the_unknown_head_are_trained_the_background_slowly_and_nothing_else() -> None:
    template = begun()
    base = copy.deepcopy(template.network.state_dict())
    rates: list[list[float]] = []
    template.end_epoch = lambda: rates.append([group["lr"] for group in template.optimizer.param_groups])
    template.train(benchmark().train_stream[1], eval_streams=[])
    first = copy.deepcopy(template.network.state_dict())
    template.train(benchmark().train_stream[2], eval_streams=[])
    second = template.network.state_dict()
    for before, after, kept in ((base, first, "steps.0"), (first, second, "steps.1")):
        moved = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
        layers = [
            f"head.{group}.{p}" for group in ("background", "unknown") for p in ("0.weight", "3.weight", "3.bias")
        ]
        assert moved == set(layers), kept
    slow, fast = (base[f"head.{g}.3.bias"] - first[f"head.{g}.3.bias"] for g in ("background", "unknown"))
    assert 0 < slow.abs().item() < 1e-2 * fast.abs().item()
    assert rates[0][0] == pytest.approx(1e-4 * rates[0][1])
    assert template.network.head.outputs == 7


# ---------------------------------------------------------------------------------------------------- the exemplars


class Image:
    """A stand-in of an exemplar."""

    def __init__(self, name: str) -> None:
        self.image_id = name


class Backwards:
    """A generator whose random orders all run backwards."""

    def permutation(self, of: Any) -> np.ndarray:
        return np.array(range(of) if isinstance(of, int) else of)[::-1]


def test_twenty_images_of_five_classes_are_chosen_as_worked_out_by_hand() -> None:
    """Image i shows class i // 4, the last of each class the next class too; from behind, 7 of them are taken so:
    class 4: 19, class 3: 18 is of class 4 alone, so 15, class 2: 11, class 1: 7, class 0: 3, class 4: 18, class 3: 14.
    """
    images = [Image(str(i)) for i in range(20)]
    shown = {image: frozenset({i // 4, i // 4 + (i % 4 == 3 and i < 19)}) for i, image in enumerate(images)}
    backwards: Any = Backwards()
    memory: Any = ChosenExemplars(7, backwards)
    memory.choose(shown)
    assert [e.image_id for e in memory.exemplars] == ["19", "15", "11", "7", "3", "18", "14"]


@pytest.mark.parametrize("size", [1, 7, 12, 20, 50])
def test_classes_are_balanced_while_there_are_candidates_and_the_choice_ends_without(size: int) -> None:
    images = [Image(str(i)) for i in range(24)]
    shown: Any = {image: frozenset({1 + i % 5} if i < 20 else ()) for i, image in enumerate(images)}
    chosen = []
    for _ in range(2):
        memory = ChosenExemplars(size, np.random.default_rng(3))
        memory.choose(shown)
        chosen.append([e.image_id for e in memory.exemplars])
    assert chosen[0] == chosen[1] and len(set(chosen[0])) == len(chosen[0]) == min(size, 20)
    counts = Counter(int(name) % 5 for name in chosen[0])
    assert max(counts.values()) - min(counts[c] for c in range(5)) <= 1


def test_half_of_every_batch_comes_from_memory_with_the_truth_of_all_classes_seen() -> None:
    class Look(SsulM):
        resumable = True

        def annotation(self, strategy: Any) -> Tensor:
            found = super().annotation(strategy)
            seen.append((strategy.mbatch, found, list(strategy._loaded)))
            return found

    for replayed in ("corrected", "shifted"):
        seen: list[Any] = []
        template = begun(Look, exemplars=6, replayed=replayed)
        assert template.method.kept() == 6 and {e.step for e in template.method.memory.exemplars} == {0}
        template.train(benchmark().train_stream[1], eval_streams=[])
        assert [int((batch[3] < 0).sum()) for batch, *_ in seen] == [2, 2, 1] * 2
        places = {tuple((batch[3] < 0).tolist()) for batch, *_ in seen}
        assert len(places) > 2, "at random places"
        for (_, _, _, indices), labels, names in seen:
            for index, annotation in zip(indices.tolist(), labels, strict=True):
                if index < 0:
                    raw = full_label_map(names[~index])
                    truth = np.zeros_like(raw, dtype=np.int64)
                    for label, c in enumerate((3, 1, 5, 2), start=1):
                        truth[raw == c] = label
                    if replayed == "shifted":
                        truth = np.where(truth == 0, UNKNOWN, truth - 1)
                    assert np.array_equal(annotation, np.where(raw == VOID, VOID, truth))


def test_labels_one_output_too_low() -> None:
    labels = torch.tensor([[[0, 1, 2, 5, UNKNOWN, VOID]]])
    assert shifted(labels).tolist() == [[[UNKNOWN, 0, 1, 4, UNKNOWN, VOID]]]


def test_exemplars_are_chosen_anew_after_each_step_among_the_steps_images_and_those_before() -> None:
    template = begun(SsulM, exemplars=8)
    before = {e.image_id for e in template.method.memory.exemplars}
    template.train(benchmark().train_stream[1], eval_streams=[])
    step = set(benchmark().train_stream[1].data.ids)
    kept = [e.image_id for e in template.method.memory.exemplars]
    assert len(set(kept)) == len(kept) == 8 and set(kept) <= before | step
    updates = template.cost.updates
    candidates = len(step | before)
    assert template.cost.images == 2 * 2 * len(step) + candidates and updates == 6


@pytest.mark.parametrize("kind", [Ssul, SsulM])
def test_a_method_goes_on_from_its_state_bit_for_bit(kind: Any) -> None:
    """Taken up after a step, and within the next one after an epoch, with the memory and the frozen parts."""
    of = toy("spectral")
    first = begun(kind, of)
    first.train(of.train_stream[1], eval_streams=[])
    after_step = copy.deepcopy(packed(first.state_dict()))
    epochs: list[Any] = []
    first.end_epoch = lambda: epochs.append(
        copy.deepcopy({**first.epoch_state(), "method": packed(first.method.state_dict())})
    )
    first.train(of.train_stream[2], eval_streams=[])
    for within in (False, True):
        again = make(kind, settings=OFFLINE)
        again.load_state_dict(unpacked(after_step, exemplars_of(of)))
        torch.manual_seed(99)
        if within:
            state = {**epochs[0], "method": unpacked(epochs[0]["method"], exemplars_of(of))}
            again.start_step = partial(again.load_epoch_state, state)
        again.train(of.train_stream[2], eval_streams=[])
        assert equal(again.network.state_dict(), first.network.state_dict())
        assert packed(again.method.state_dict()) == packed(first.method.state_dict())
        assert again.cost.images == first.cost.images
