"""Avalanche streams: what an item holds, who is in which stream, augmentation, and strategies not written here."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from avalanche.benchmarks.utils import AvalancheDataset
from avalanche.core import SupervisedPlugin
from avalanche.training import Naive
from avalanche.training.plugins import AGEMPlugin, EvaluationPlugin, EWCPlugin, ReplayPlugin
from torch import Tensor, nn
from toy import benchmark

from benchmarks.annotated import AnnotatedImages
from benchmarks.augmentation import Augmentation, View, normalised
from benchmarks.packing import Decoded, Reader
from benchmarks.streams import SegmentationScenario, load_benchmark
from strategies.networks.build import build_network
from strategies.networks.settings import OF_IMAGENET

VOID = 255
NAME = "shapes-15-1-disjoint"


@cache
def shapes(name: str = NAME, **options: object) -> SegmentationScenario:
    return load_benchmark(name, **options)


def some(count: int, number: int = 12) -> list[int]:
    """Indices spread over 0..count-1."""
    return sorted(set(np.linspace(0, count - 1, number).astype(int).tolist()))


def labels_in(experience: object) -> set[int]:
    data = experience.dataset
    return {v for i in some(len(data)) for v in data[i][1].unique().tolist()}


# -------------------------------------------------------------------------------------------------------- items


@pytest.mark.parametrize("stream", ["train", "test"])
def test_item_is_image_label_map_and_step(stream: str) -> None:
    for t, experience in enumerate(shapes().streams[stream]):
        image, labels, step = experience.dataset[0]
        assert (image.dtype, image.shape) == (torch.float32, (3, 64, 64))
        assert (labels.dtype, labels.shape) == (torch.int64, (64, 64))
        assert type(step) is int
        assert step == t


def test_images_of_files_keep_their_own_size(tiny_voc: Path) -> None:
    data = load_benchmark("voc-15-1-disjoint", tiny_voc).train_stream[0].dataset
    sizes = {tuple(data[i][1].shape) for i in range(20)}
    assert len(sizes) > 3
    assert all(data[i][0].shape[1:] == data[i][1].shape for i in range(20))


def test_size_squeezes_every_image(tiny_voc: Path) -> None:
    benchmark = load_benchmark("voc-15-1-disjoint", tiny_voc, size=32)
    for experience in (*benchmark.train_stream, *benchmark.test_stream):
        image, labels, _ = experience.dataset[0]
        assert (image.shape, labels.shape) == ((3, 32, 32), (32, 32))


def test_a_photograph_is_read_in_rgb_order_and_normalised(tiny_voc: Path) -> None:
    from PIL import Image

    data = load_benchmark("voc-15-1-disjoint", tiny_voc, normalisation=OF_IMAGENET).train_stream[0].data
    photograph = Image.open(tiny_voc / "VOCdevkit" / "VOC2012" / "JPEGImages" / f"{data.ids[3]}.jpg")
    expected = (np.asarray(photograph, dtype=np.float64) / 255 - OF_IMAGENET.mean) / OF_IMAGENET.deviation
    assert np.allclose(data[3][0].permute(1, 2, 0).numpy(), expected, atol=1e-5)


def test_changing_an_item_does_not_change_the_data() -> None:
    data = shapes().train_stream[1].dataset
    image, labels, _ = data[0]
    image.fill_(7)
    labels.fill_(7)
    assert not (data[0][0] == 7).all()
    assert not (data[0][1] == 7).all()


# ------------------------------------------------------------------------------------------------------- labels


@pytest.mark.parametrize("name", [NAME, "shapes-15-5-overlapped"])
def test_training_labels_hold_the_steps_own_classes_alone(name: str) -> None:
    for experience in shapes(name).train_stream:
        own = set(experience.classes_in_this_experience)
        assert labels_in(experience) <= own | {0, VOID}
        assert all(set(experience.dataset[i][1].unique().tolist()) & own for i in some(len(experience.dataset)))


def test_classes_of_earlier_steps_are_background_while_training() -> None:
    """Step 1 of the overlapped setup has images with classes 1..15 and 17..20 too; they must not show."""
    scenario = shapes("shapes-15-1-overlapped")
    imageset, step = scenario.scenario.imageset, scenario.scenario.steps[1]
    for i in some(len(step.train)):
        full = imageset.read("train", int(step.train[i]))[1].astype(int)
        expected = np.where(np.isin(full, [16, VOID]), full, 0)
        assert np.array_equal(scenario.train_stream[1].dataset[i][1].numpy(), expected)


def test_test_labels_hold_every_class_known_by_then() -> None:
    for experience in shapes().test_stream:
        assert labels_in(experience) <= set(experience.classes_seen_so_far) | {0, VOID}
    last = shapes().test_stream[5].dataset
    assert {v for i in range(len(last)) for v in last[i][1].unique().tolist()} == {*range(21), VOID}


def test_test_set_of_a_step_is_the_scenarios() -> None:
    for experience, step in zip(shapes().test_stream, shapes().scenario.steps, strict=True):
        assert experience.data.ids == tuple(shapes().scenario.imageset.ids("test")[i] for i in step.test)


# -------------------------------------------------------------------------------------------------- experiences


def test_experiences_know_their_classes() -> None:
    for stream in ("train", "test", "valid"):
        for t, experience in enumerate(shapes().streams[stream]):
            assert experience.current_experience == t
            assert experience.classes_in_this_experience == (list(range(1, 16)) if t == 0 else [15 + t])
            assert experience.previous_classes == (list(range(1, 15 + t)) if t else [])
            assert experience.classes_seen_so_far == list(range(1, 16 + t))
            assert experience.future_classes == list(range(16 + t, 21))


def test_streams_have_one_experience_per_step() -> None:
    assert {"train", "valid", "test", "joint"} <= set(shapes().streams)
    assert {len(stream) for stream in shapes().streams.values()} == {6}
    assert [len(e.dataset) for e in shapes().valid_stream] == [0] * 6


def test_experiences_have_no_task_labels() -> None:
    """With them Avalanche switches to the task-balanced loader."""
    for experience in shapes().train_stream:
        assert not hasattr(experience, "task_labels")


def test_class_names_follow_the_order_of_learning() -> None:
    assert shapes().class_names == list(shapes().scenario.imageset.class_names)
    assert shapes().n_classes == 20


# -------------------------------------------------------------------------------------------------- valid stream


def all_ids(stream: object) -> set[str]:
    return {i for experience in stream for i in experience.data.ids}


@pytest.mark.parametrize("name", [NAME, "shapes-15-1-overlapped"])
def test_valid_images_are_taken_from_the_training_images_alone(name: str) -> None:
    whole, held = shapes(name), shapes(name, valid_fraction=0.2)
    train, valid, test = (all_ids(held.streams[s]) for s in ("train", "valid", "test"))
    assert not train & valid
    assert not test & (train | valid)
    assert train | valid == all_ids(whole.train_stream)
    assert len(valid) == 600
    assert [e.data.ids for e in held.test_stream] == [e.data.ids for e in whole.test_stream]


def test_valid_images_of_a_step_have_a_class_known_by_then() -> None:
    for experience in shapes(valid_fraction=0.2).valid_stream:
        known = set(experience.classes_seen_so_far)
        assert labels_in(experience) <= known | {0, VOID}
        assert all(set(experience.dataset[i][1].unique().tolist()) & known for i in some(len(experience.dataset)))


def test_valid_images_depend_on_the_valid_seed_alone() -> None:
    first = all_ids(load_benchmark(NAME, valid_fraction=0.2).valid_stream)
    assert first == all_ids(shapes(NAME, valid_fraction=0.2).valid_stream)
    assert first == all_ids(shapes("shapes-15-5-overlapped", valid_fraction=0.2).valid_stream)
    assert first != all_ids(shapes(NAME, valid_fraction=0.2, valid_seed=1).valid_stream)


# ------------------------------------------------------------------------------------------------ how they are read


class Noted(Reader):
    """Three images of 4 x 6 pixels, filled with 10, 20 and 30; writes down how each is asked for."""

    def __init__(self, kept: bool) -> None:
        self.kept = kept
        self.asked: list[tuple[str, int]] = []
        self.decoded = [
            (np.full((3, 4, 6), value, np.uint8), np.array([[0, 2, 5, VOID, 7, 5]] * 4, np.uint8))
            for value in (10, 20, 30)
        ]

    def read(self, index: int) -> Decoded:
        self.asked.append(("read", index))
        return self.decoded[index]

    def again(self, index: int) -> Decoded:
        self.asked.append(("again", index))
        return self.decoded[index]


def noted(kept: bool = True, **options: Any) -> tuple[AnnotatedImages, Noted]:
    """The images 2 and 0, annotated with class 5 as label 1 and class 2 as label 2; image 0 does not show class 2."""
    presence = np.zeros((3, 8), dtype=bool)
    presence[[0, 2, 2, 2], [5, 2, 5, 7]] = True
    reader = Noted(kept)
    data = AnnotatedImages(reader, np.array([2, 0]), ("a", "b", "c"), presence, 4, {5: 1, 2: 2}, **options)
    return data, reader


def test_images_are_those_at_their_places_in_the_list() -> None:
    data, _ = noted()
    assert len(data) == 2 and data.ids == ("c", "a") and data.step == 4
    image, labels, step = data[1]
    assert torch.equal(image, normalised(torch.full((3, 4, 6), 10, dtype=torch.uint8), None))
    assert labels.tolist() == [[0, 2, 1, VOID, 0, 1]] * 4 and step == 4
    assert [data.exemplar(i).classes for i in (0, 1)] == [{1, 2}, {1}]
    assert noted(others=VOID)[0][0][1][0].tolist() == [0, 2, 1, VOID, VOID, 1]


def test_memory_images_are_asked_for_as_images_that_are_read_again_and_the_streams_are_not() -> None:
    data, reader = noted()
    exemplar = data.exemplar(1)
    exemplar.load(None, np.random.default_rng(0))
    assert exemplar.bytes() == 3 * 4 * 6 + 4 * 6
    list(data.batches(2))
    _ = data[0]
    assert reader.asked == [("again", 0), ("again", 0), ("read", 2), ("read", 0), ("read", 2)]


def test_what_is_given_can_be_changed_without_a_change_of_what_is_kept() -> None:
    data, reader = noted()
    image, labels = data.annotated(0)
    assert image.dtype == labels.dtype == torch.uint8
    image.fill_(7)
    labels.fill_(7)
    assert (reader.decoded[2][0] == 30).all() and reader.decoded[2][1][0].tolist() == [0, 2, 5, VOID, 7, 5]


def test_a_view_is_what_is_seen_of_an_image_after_its_augmentation() -> None:
    data, _ = noted(view=View(2))
    assert data[0][0].shape == (3, 2, 2) and data[0][1].shape == (2, 2)
    images, labels, steps, indices = next(iter(data.batches(2, augmentation=Augmentation(crop=3))))
    assert images.shape == (2, 3, 2, 2) and labels.shape == (2, 2, 2)
    assert (steps.tolist(), indices.tolist()) == ([4, 4], [0, 1])


def test_images_that_do_not_lie_in_memory_are_decoded_by_a_worker_at_least(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    for kept, asked, used in ((True, 0, 0), (True, 2, 2), (True, 3, 2), (False, 0, 1), (False, 2, 2)):
        assert noted(kept)[0].batches(2, workers=asked).num_workers == used


def test_a_share_of_every_batch_is_each_nth_of_its_images() -> None:
    data, _ = noted()
    order = [0, 1, 1, 0, 1]
    shares = [[b[3].tolist() for b in data.batches(3, order, share=(r, 2))] for r in (0, 1)]
    assert shares == [[[0, 1], [0]], [[1], [1]]]
    assert [b[3].tolist() for b in data.batches(1, order, share=(1, 2))] == []


# -------------------------------------------------------------------------------------------------- augmentation


def marked(height: int = 30, width: int = 40, y: int = 11, x: int = 29) -> tuple[Tensor, Tensor]:
    """An image and labels that are zero except for one pixel, 255 in the image and 7 in the labels."""
    image, labels = torch.zeros(3, height, width, dtype=torch.uint8), torch.zeros(height, width, dtype=torch.uint8)
    image[:, y, x], labels[y, x] = 255, 7
    return image, labels


def rngs(count: int = 40) -> list[np.random.Generator]:
    return [np.random.default_rng([3, i]) for i in range(count)]


def test_flip_and_crop_keep_image_and_labels_aligned() -> None:
    augmentation, mirrored, kept = Augmentation(crop=24), 0, 0
    for rng in rngs():
        image, labels = augmentation(*marked(), rng)
        assert (image.shape, labels.shape) == ((3, 24, 24), (24, 24))
        assert torch.equal(image[0] == 255, labels == 7)
        kept += int((labels == 7).any())
    for rng in rngs():
        image, labels = Augmentation()(*marked(), rng)
        assert torch.equal(image[0] == 255, labels == 7)
        mirrored += int(labels[11, 10] == 7)
    assert 5 < mirrored < 35
    assert 5 < kept < 40


def test_scaling_keeps_image_and_labels_aligned() -> None:
    """The marker is a square: nearest and bilinear agree on where its inside is."""
    image, labels = marked()
    image[:, 8:20, 14:26], labels[8:20, 14:26] = 255, 7
    image[:, 11, 29], labels[11, 29] = 0, 0
    sizes = set()
    for rng in rngs():
        scaled, mapped = Augmentation(scale=(0.5, 2.0))(image, labels, rng)
        assert scaled.shape[1:] == mapped.shape
        sizes.add(tuple(mapped.shape))
        assert set(mapped.unique().tolist()) <= {0, 7}
        assert ((scaled[0] > 127) == (mapped == 7)).float().mean() > 0.93
        inside = (mapped == 7).nonzero().float()
        bright = (scaled[0] > 127).nonzero().float()
        assert torch.allclose(inside.mean(0), bright.mean(0), atol=1.0)
    assert len(sizes) > 20
    assert all(15 <= h <= 60 and 20 <= w <= 80 for h, w in sizes)


def test_crop_pads_labels_with_void_and_the_image_with_the_mean() -> None:
    image, labels = torch.zeros(3, 20, 50, dtype=torch.uint8), torch.full((20, 50), 7, dtype=torch.uint8)
    for rng in rngs(10):
        cropped, mapped = Augmentation(crop=32, outside=OF_IMAGENET.mean)(image, labels, rng)
        assert (cropped.shape, mapped.shape) == ((3, 32, 32), (32, 32))
        assert (mapped == VOID).sum() == 12 * 32
        assert (mapped == 7).sum() == 20 * 32
        assert (cropped[:, mapped == 7] == 0).all()
        assert normalised(cropped, OF_IMAGENET)[:, mapped == VOID].abs().max() < 0.02


def test_crop_reaches_every_place() -> None:
    """A crop that can never start at the last row or column loses the image's edge."""
    rows, columns = torch.arange(10, dtype=torch.uint8), torch.arange(12, dtype=torch.uint8)
    labels = rows[:, None] * 12 + columns
    corners = {
        int(Augmentation(crop=8, flip=False)(labels.expand(3, -1, -1), labels, rng)[1][0, 0]) for rng in rngs(400)
    }
    assert corners == {12 * r + c for r in range(3) for c in range(5)}


def test_no_augmentation_is_the_image_itself() -> None:
    image, labels = marked()
    same, mapped = Augmentation(flip=False)(image, labels, np.random.default_rng(0))
    assert torch.equal(same, image)
    assert torch.equal(mapped, labels)


AUGMENTATION = Augmentation(scale=(0.5, 2.0), crop=48)


def batches(seed: tuple[int, ...] = (1, 2), workers: int = 0, order: list[int] | None = None) -> list[list[Tensor]]:
    data = shapes().train_stream[4].data
    return list(data.batches(8, order or list(range(30, 0, -1)), AUGMENTATION, seed, workers))


def equal(one: list[list[Tensor]], other: list[list[Tensor]]) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a, b) for x, y in zip(one, other, strict=True) for a, b in zip(x, y, strict=True)
    )


def test_batches_are_the_same_for_a_key_and_differ_between_keys() -> None:
    assert equal(batches(), batches())
    assert not equal(batches(), batches(seed=(1, 3)))


def test_batches_are_independent_of_the_global_generators() -> None:
    first = batches()
    torch.manual_seed(99)
    state = torch.get_rng_state()
    assert equal(first, batches())
    assert torch.equal(torch.get_rng_state(), state)


def test_batches_are_the_same_for_any_number_of_workers() -> None:
    assert equal(batches(), batches(workers=2))


def test_batches_follow_the_order_and_carry_step_and_index() -> None:
    first = batches()
    assert [len(b[0]) for b in first] == [8, 8, 8, 6]
    assert torch.cat([b[3] for b in first]).tolist() == list(range(30, 0, -1))
    assert set(torch.cat([b[2] for b in first]).tolist()) == {4}
    images, labels = first[0][:2]
    assert (images.dtype, labels.dtype) == (torch.float32, torch.int64)
    assert (images.shape, labels.shape) == ((8, 3, 48, 48), (8, 48, 48))


def test_an_image_is_augmented_anew_at_each_place() -> None:
    images = torch.cat([b[0] for b in batches(order=[3] * 6)])
    assert len({image.numpy().tobytes() for image in images}) == 6


def test_an_exemplar_keeps_the_annotation_it_arrived_with() -> None:
    data = shapes().train_stream[2].data
    exemplar = data.exemplar(5)
    image, labels = exemplar.load(None, np.random.default_rng(0))
    assert (exemplar.image_id, exemplar.step, exemplar.classes) == (data.ids[5], 2, frozenset({17}))
    assert torch.equal(image, data[5][0])
    assert torch.equal(labels, data[5][1])


def test_an_exemplars_classes_are_those_of_its_whole_annotation() -> None:
    data = shapes().train_stream[0].data
    for i in some(len(data), 40):
        assert data.exemplar(i).classes == set(data[i][1].unique().tolist()) - {0, VOID}


# ------------------------------------------------------------------------- strategies that this project did not write


class Evaluated(SupervisedPlugin):
    """What an evaluation went over."""

    def __init__(self) -> None:
        super().__init__()
        self.images = 0
        self.labels: set[int] = set()

    def after_eval_forward(self, strategy: object, **_: object) -> None:
        assert strategy.mb_output.shape == (len(strategy.mb_x), 7, 16, 16)
        self.images += len(strategy.mb_x)
        self.labels |= set(strategy.mb_y.unique().tolist())


@pytest.mark.filterwarnings("ignore:No loggers specified")
@pytest.mark.parametrize(
    "plugin",
    [
        pytest.param(lambda: None, id="Naive"),
        pytest.param(lambda: ReplayPlugin(mem_size=10), id="Replay"),
        pytest.param(lambda: EWCPlugin(ewc_lambda=1.0), id="EWC"),
        pytest.param(lambda: AGEMPlugin(patterns_per_experience=8, sample_size=4), id="A-GEM"),
    ],
)
def test_avalanches_own_strategies_train_and_evaluate(plugin: object) -> None:
    torch.manual_seed(0)
    chosen, seen = plugin(), Evaluated()
    network = build_network("small", 6)
    strategy = Naive(
        model=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9),
        criterion=nn.CrossEntropyLoss(ignore_index=VOID),
        train_mb_size=8,
        train_epochs=1,
        eval_mb_size=3,
        plugins=[seen, *([chosen] if chosen else [])],
        evaluator=EvaluationPlugin(),
    )
    before = {name: value.clone() for name, value in network.named_parameters()}
    for t in (1, 2):
        strategy.train(benchmark().train_stream[t])
        assert torch.isfinite(strategy.loss)
    assert any(not torch.equal(before[name], value) for name, value in network.named_parameters())
    strategy.eval(benchmark().test_stream[1])
    assert seen.images == len(benchmark().test_stream[1].dataset)
    assert seen.labels == {*range(5), VOID}


def test_a_stream_can_be_sliced_and_its_data_concatenated() -> None:
    stream = shapes().train_stream[1:3]
    assert [e.current_experience for e in stream] == [1, 2]
    union = stream[0].dataset.concat(stream[1].dataset)
    assert isinstance(union, AvalancheDataset)
    assert len(union) == sum(len(e.dataset) for e in stream)
    assert {union[0][2], union[len(union) - 1][2]} == {1, 2}
