"""The toy's streams written out: every image, every label and every class of every experience."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from toy import GROUPS, LABEL_OF, LEARNED, TEST, TRAIN, VOID, Toy

import benchmarks.streams
from benchmarks.augmentation import Augmentation, View, normalised
from benchmarks.decoding import MAX_MEGAPIXELS
from benchmarks.errors import DataError
from benchmarks.names import ScenarioName
from benchmarks.packing import DecodingReader
from benchmarks.scenarios import compute_scenario
from benchmarks.streams import SegmentationExperience, SegmentationScenario, build_benchmark, load_benchmark
from strategies.networks.settings import OF_IMAGENET

HELD = set(np.random.default_rng(3).permutation(len(TRAIN))[:5].tolist())
"""A fifth of the 25 training images."""
KNOWN = [{c for group in GROUPS[: t + 1] for c in group} for t in range(3)]


def toy(setup: Any = "overlapped", **options: Any) -> SegmentationScenario:
    scenario = compute_scenario(ScenarioName("toy", "3+1+2", setup), Toy(), GROUPS)
    return build_benchmark(scenario, **{"normalisation": OF_IMAGENET, **options})


def with_one_of(classes: set[int], images: dict[int, tuple[int, ...]]) -> list[int]:
    return [i for i, shown in images.items() if classes & set(shown)]


def item(split: Any, index: int, classes: set[int], others: int = 0, view: View | None = None) -> tuple[Tensor, Tensor]:
    """Image and labels of an image annotated with these classes."""
    image, raw = (torch.from_numpy(part) for part in Toy().read(split, index))
    image = image.permute(2, 0, 1).contiguous()
    if view:
        image, raw = view(image, raw)
    labels = torch.full(raw.shape, others)
    labels[raw == VOID], labels[raw == 0] = VOID, 0
    for c in classes:
        labels[raw == c] = LABEL_OF[c]
    return normalised(image, OF_IMAGENET), labels


def assert_holds(experience: SegmentationExperience, split: str, places: list[int], *annotated: Any) -> None:
    assert list(experience.data.ids) == [f"{split}-{i}" for i in places]
    assert len(experience.dataset) == len(places) > 0
    step = experience.current_experience
    for place, (image, labels, of_step) in zip(places, experience.dataset, strict=True):
        expected = item(split, place, *annotated)
        assert torch.equal(image, expected[0]) and torch.equal(labels, expected[1])
        assert of_step == step


@pytest.mark.parametrize("setup", ["overlapped", "sequential"])
@pytest.mark.parametrize(("future", "others"), [("background", 0), ("ignore", VOID)])
@pytest.mark.parametrize("tested", ["known", "all"])
def test_every_experience_holds_the_images_and_labels_that_its_step_has(
    setup: str, future: Any, others: int, tested: Any
) -> None:
    view = View(8)
    told = toy(setup, future_classes=future, tested=tested, view=view, valid_fraction=0.2, valid_seed=3)
    arrived: set[int] = set()
    held, test = ({i: TRAIN[i] for i in sorted(HELD)}, dict(enumerate(TEST)))
    for t, (known, own) in enumerate(zip(KNOWN, map(set, GROUPS), strict=True)):
        arriving = with_one_of(own, dict(enumerate(TRAIN)))
        if setup == "sequential":  # an image comes once; tests/test_division.py says when
            arriving = told.scenario.steps[t].train.tolist()
        arrived |= set(arriving) - HELD
        train = [i for i in arriving if i not in HELD]
        assert_holds(told.train_stream[t], "train", train, known if setup == "sequential" else own)
        assert_holds(told.streams["joint"][t], "train", sorted(arrived), known)
        seen = known if tested == "known" else {1, 2, 3, 4, 5, 6}
        assert_holds(told.valid_stream[t], "train", with_one_of(seen, held), known, others, view)
        assert_holds(told.test_stream[t], "test", with_one_of(seen, test), known, others, view)
        for name, split, every in (("valid", "train", set(held)), ("test", "test", set(test))):
            shown = {f"{split}-{i}" for i in every} - set(told.streams[name][t].data.ids)
            assert set(told.streams[f"{name}_rest"][t].data.ids) == shown


def test_every_experience_knows_its_classes_and_the_scenario_its_names() -> None:
    told = toy()
    assert told.scenario.groups == GROUPS
    assert (told.n_classes, told.class_names) == (6, ["background", "three", "one", "five", "two", "six", "four"])
    assert list(told.streams) == ["train", "valid", "valid_rest", "test", "test_rest", "joint"]
    for name, stream in told.streams.items():
        for t, experience in enumerate(stream):
            assert experience.origin_stream.name == name
            assert experience.classes_in_this_experience == LEARNED[t]
            assert experience.previous_classes == [c for group in LEARNED[:t] for c in group]
            assert experience.classes_seen_so_far == [c for group in LEARNED[: t + 1] for c in group]
            assert experience.future_classes == [c for group in LEARNED[t + 1 :] for c in group]
            assert experience.annotates_all_seen == (t > 0 and name != "train")
    assert [experience.annotates_all_seen for experience in toy("sequential").train_stream] == [False, True, True]


def test_images_are_held_back_by_the_seed_0_where_none_is_given() -> None:
    held = np.random.default_rng(0).permutation(len(TRAIN))[:5].tolist()
    assert set(toy(valid_fraction=0.2, tested="all").valid_stream[0].data.ids) == {f"train-{i}" for i in held}


@pytest.mark.parametrize("fraction", [-0.1, 1.0, 1.5, float("nan")])
def test_an_impossible_valid_fraction_is_refused(fraction: float) -> None:
    with pytest.raises(DataError, match=rf"^valid_fraction {fraction} is outside \[0, 1\)$"):
        toy(valid_fraction=fraction)


def test_by_default_no_image_is_held_back_and_later_classes_are_background() -> None:
    told = toy()
    assert [len(experience.data) for experience in told.valid_stream] == [0, 0, 0]
    assert_holds(told.test_stream[0], "test", with_one_of(KNOWN[0], dict(enumerate(TEST))), KNOWN[0])
    assert told.train_stream[0].data._pixels.kept  # in memory: 4 GiB are enough
    plain = toy(normalisation=None).train_stream[0]
    image = torch.from_numpy(Toy().read("train", with_one_of(KNOWN[0], dict(enumerate(TRAIN)))[0])[0])
    assert torch.equal(plain.data[0][0], image.permute(2, 0, 1) / 255)


@pytest.mark.parametrize(("void", "trained"), [("ignore", VOID), ("background", 0), ("negative", VOID)])
def test_void_of_training_images_alone_is_background_where_it_is_asked_for(void: Any, trained: int) -> None:
    told, usual = toy(void=void, valid_fraction=0.2), toy(valid_fraction=0.2)
    for name, stream in told.streams.items():
        for experience, other in zip(stream, usual.streams[name], strict=True):
            for (image, labels, _), (as_usual, known, _) in zip(experience.data, other.data, strict=True):
                assert (known == VOID).any() and torch.equal(image, as_usual)
                filled = known.masked_fill(known == VOID, trained if name in ("train", "joint") else VOID)
                assert torch.equal(labels, filled)


def test_void_that_is_background_is_so_in_a_memory_too_and_what_is_padded_stays_void() -> None:
    data = toy(void="background").train_stream[1].data
    exemplar, augmentation = data.exemplar(2), Augmentation(crop=20, flip=False)
    assert VOID not in data.annotated(2)[1]
    image, labels = exemplar.load(augmentation, np.random.default_rng(0))
    assert (labels == VOID).sum() == 20 * 20 - 16 * 16 and VOID not in labels[:16, :16]
    [batch] = data.batches(1, [2], augmentation)
    assert torch.equal(batch[1][0], labels) and torch.equal(batch[0][0], image)


def test_images_are_squeezed_to_a_size_and_decoded_at_each_reading_where_they_exceed_the_budget() -> None:
    heard: list[Any] = []
    small = toy(size=9, progress=lambda *of: heard.append(of))
    assert small.train_stream[0].data[0][0].shape == (3, 9, 9)
    assert heard  # of the decoding
    assert isinstance(toy(ram_budget=0.0).train_stream[0].data._pixels, DecodingReader)


def test_an_exemplar_is_augmented_by_the_generator_that_it_is_given() -> None:
    data = toy().train_stream[1].data
    exemplar, augmentation = data.exemplar(2), Augmentation((0.5, 2.0), 12, True)
    image, labels = exemplar.load(augmentation, np.random.default_rng(5))
    assert (exemplar.image_id, exemplar.step, exemplar.index) == (data.ids[2], 1, 2)
    expected = data.sample(2, augmentation, np.random.default_rng(5))
    assert torch.equal(image, normalised(expected[0], OF_IMAGENET)) and torch.equal(labels, expected[1].long())
    assert image.shape == (3, 12, 12) and labels.dtype == torch.int64


def test_batches_come_in_the_lists_order_unaugmented_and_each_place_draws_by_the_seed_and_itself() -> None:
    data = toy().train_stream[1].data
    plain = list(data.batches(4))
    assert [batch[3].tolist() for batch in plain] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert torch.equal(plain[2][0][1], data[9][0]) and torch.equal(plain[2][1][1], data[9][1])
    augmentation = Augmentation((0.5, 2.0), 12, True)
    for options, seed in (({}, [0]), ({"seed": (7, 2)}, [7, 2])):
        batches = list(data.batches(4, [3, 1, 3, 0, 2], augmentation, **options))
        image, labels = data.sample(2, augmentation, np.random.default_rng([*seed, 4]))
        assert torch.equal(batches[1][0][0], normalised(image, OF_IMAGENET)) and torch.equal(
            batches[1][1][0], labels.long()
        )
        assert not torch.equal(batches[0][0][0], batches[0][0][2])  # the same image at another place


def test_a_benchmark_by_name_is_that_of_the_scenario_with_every_option_handed_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[Any] = []

    def computed(*args: Any, **options: Any) -> str:
        asked.append((args, options))
        return "the scenario"

    monkeypatch.setattr(benchmarks.streams, "load_scenario", computed)
    monkeypatch.setattr(benchmarks.streams, "build_benchmark", computed)
    own = {
        "future_classes": "ignore",
        "tested": "all",
        "valid_fraction": 0.5,
        "valid_seed": 4,
        "ram_budget": 5.0,
        "jpeg_draft": True,
    }
    own |= {"void": "background", "saliency": "spectral", "size": 9, "view": View(8), "normalisation": OF_IMAGENET}
    load_benchmark("a name", Path("root"), train_list="a list", shared_ids="allow", max_megapixels=6.0, **own)
    load_benchmark("a name")
    usual = {"future_classes": "background", "tested": "known", "valid_fraction": 0.0, "valid_seed": 0}
    usual |= {
        "void": "ignore",
        "saliency": None,
        "size": None,
        "view": None,
        "normalisation": None,
        "ram_budget": 4.0 * 2**30,
        "jpeg_draft": False,
    }
    assert asked == [
        (("a name", Path("root"), "a list", "allow"), {"max_megapixels": 6.0}),
        (("the scenario",), own),
        (("a name", None, None, "refuse"), {"max_megapixels": MAX_MEGAPIXELS}),
        (("the scenario",), usual),
    ]
