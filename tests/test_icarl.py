"""iCaRL against its definition: herding, quotas, class means and prediction, each by loops of their own."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from avalanche.core import SupervisedPlugin
from toy import BATCHES, VOID, annotation, benchmark, make, rerun, train

from strategies.icarl import Icarl, IcarlParameters, class_sums, nearest_mean_scores
from strategies.learning.memory import ConfidenceMemory, Exemplar, HerdingMemory, balanced, herding_order

STRIDE = 4
SMALL = ["incremental.lr=0.02", "memory.size=7"]


@dataclass(frozen=True)
class Fake:
    image_id: str
    classes: frozenset[int]
    step: int = 0

    def bytes(self) -> int:
        return 0

    def load(self, augmentation: Any, rng: np.random.Generator) -> Any:
        raise AssertionError("a memory looks at no image")


# ------------------------------------------------------------------------------------------------------- herding


def greedy(features: list[list[float]], mean: list[float]) -> list[int]:
    """Rebuffi et al., Algorithm 4: p_k = argmin |mean - (phi(x) + sum of those taken) / k|."""
    order: list[int] = []
    while len(order) < len(features):
        distances = {}
        for i in range(len(features)):
            if i not in order:
                taken = [features[j] for j in [*order, i]]
                average = [sum(column) / len(taken) for column in zip(*taken, strict=True)]
                distances[i] = sum((a - m) ** 2 for a, m in zip(average, mean, strict=True))
        order.append(min(distances, key=lambda i: distances[i]))
    return order


def test_herding_by_hand() -> None:
    """Mean 0. First 0.5, the nearest. Then (0.5 + x) / 2: 0.75, -0.35, -1.25, so -1.2. Then (-0.7 + x) / 3: 0.1 or
    -1.23, so 1, though it is nearer to the mean than -1.2 is."""
    features = np.array([[1.0], [-1.2], [0.5], [-3.0]])
    assert herding_order(features, np.zeros(1)) == [2, 1, 0, 3]


@pytest.mark.parametrize("seed", range(20))
def test_herding_equals_the_greedy_definition(seed: int) -> None:
    rng = np.random.default_rng(seed)
    features, mean = rng.normal(size=(int(rng.integers(1, 9)), 3)), rng.normal(size=3)
    assert herding_order(features, mean) == greedy(features.tolist(), mean.tolist())


def test_herding_is_not_the_order_of_the_distances() -> None:
    """So that the tests above tell these apart."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(8, 3))
    assert herding_order(features, np.zeros(3)) != np.argsort((features**2).sum(1)).tolist()


# -------------------------------------------------------------------------------------------------------- quotas


def fakes(*classes: set[int]) -> list[Any]:
    return [Fake(chr(ord("a") + i), frozenset(held)) for i, held in enumerate(classes)]


def test_quotas_by_hand_count_an_image_for_every_class_annotated_in_it() -> None:
    """Class 1 takes a, which counts for 2 as well; of equals the smaller goes first, so 1 takes b; then 2 takes c, and
    a fourth place is class 1's again."""
    a, b, c, d, e = fakes({1, 2}, {1}, {2}, {2}, {1})
    assert balanced({1: [a, b, e], 2: [a, c, d]}, 3) == [a, b, c]
    assert set(balanced({1: [a, b, e], 2: [c, a, d]}, 4)) == {a, b, c, e}


def test_a_class_with_fewer_images_than_its_quota_leaves_its_places_to_the_others() -> None:
    a, b, c, d, e = fakes({1}, {1}, {1}, {1}, {2})
    assert set(balanced({1: [d, c, b, a], 2: [e]}, 4)) == {e, d, c, b}


@pytest.mark.parametrize("seed", range(60))
def test_each_class_gets_its_quota_where_it_has_as_many(seed: int) -> None:
    rng = np.random.default_rng(seed)
    kinds, size = int(rng.integers(1, 6)), int(rng.integers(1, 25))
    images: list[Any] = []
    for i in range(int(rng.integers(1, 40))):
        weights = 1.0 / np.arange(1, kinds + 1) ** 2
        held = rng.choice(kinds, int(rng.integers(1, min(kinds, 3) + 1)), replace=False, p=weights / weights.sum())
        images.append(Fake(str(i), frozenset((held + 1).tolist())))
    present = sorted({c for e in images for c in e.classes})
    rankings = {c: [images[i] for i in rng.permutation(len(images)) if c in images[i].classes] for c in present}
    kept = balanced(rankings, size)
    assert len(kept) == len(set(kept)) == min(size, len(images))
    for c, ranking in rankings.items():
        assert sum(c in e.classes for e in kept) >= min(size // len(present), len(ranking))
        of_this_class_alone = [e for e in ranking if e.classes == {c}]
        chosen = [e for e in of_this_class_alone if e in kept]
        assert chosen == of_this_class_alone[: len(chosen)]  # the higher in rank go first


# ----------------------------------------------------------------------------------------------- herding a stream


def by_definition(pool: list[Any], orders: dict[int, list[Any]], size: int) -> list[Any]:
    """Fill the places one by one: the class with fewest images kept takes its best that is left."""
    kept: list[Any] = []
    while len(kept) < min(size, len(pool)):
        open_classes = [c for c, order in orders.items() if any(e not in kept for e in order)]
        if not open_classes:
            break
        fewest = min(sum(c in e.classes for e in kept) for c in open_classes)
        c = min(c for c in open_classes if sum(c in e.classes for e in kept) == fewest)
        kept.append(next(e for e in orders[c] if e not in kept))
    return kept


@pytest.mark.parametrize("seed", range(12))
def test_the_memory_keeps_what_herding_to_the_running_class_means_picks(seed: int) -> None:
    rng = np.random.default_rng(seed)
    memory = HerdingMemory(5, np.random.default_rng(0))
    pixels: dict[int, list[np.ndarray]] = defaultdict(list)
    kept: list[Any] = []
    means: dict[Any, dict[int, np.ndarray]] = {}
    for i in range(30):
        held = (1 + rng.choice(3, int(rng.integers(1, 3)), replace=False)).tolist() if i > 12 else [1 + i % 2]
        exemplar: Any = Fake(str(i), frozenset(held))
        vectors = {c: rng.normal(size=(int(rng.integers(1, 6)), 3)) + c for c in held}
        for c in held:
            pixels[c].extend(vectors[c])
        means[exemplar] = {c: np.mean(vectors[c], axis=0) for c in held}
        pool = [*kept, exemplar]
        orders = {}
        for c in sorted({c for e in pool for c in e.classes}):
            among = [e for e in pool if c in e.classes]
            running = np.mean(pixels[c], axis=0)
            orders[c] = [among[j] for j in greedy([means[e][c].tolist() for e in among], running.tolist())]
        kept = pool if len(pool) <= 5 else by_definition(pool, orders, 5)
        memory.offer(exemplar, dict(means[exemplar]), {c: len(vectors[c]) for c in held})
        assert len(memory) <= 5
        assert {e.image_id for e in memory.exemplars} == {e.image_id for e in kept}
        assert set(memory.features) == set(memory.exemplars)  # what was dropped leaves nothing behind


# --------------------------------------------------------------------------------------------------- on the stream


def pixel_features(network: Any, image: torch.Tensor) -> np.ndarray:
    """Normalised features (h, w, D) of one image, by an eval-mode copy."""
    with torch.no_grad():
        features = rerun(network, train=False).backbone(image[None].double())[0].numpy()
    vectors = np.moveaxis(features, 0, -1)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def vectors_by_label(network: Any, image: torch.Tensor, labels: np.ndarray) -> dict[int, list[np.ndarray]]:
    """A cell of the features has the label of the pixel at its centre, of four the third."""
    found: dict[int, list[np.ndarray]] = defaultdict(list)
    vectors = pixel_features(network, image)
    for y, x in np.ndindex(vectors.shape[:2]):
        label = int(labels[STRIDE * y + STRIDE // 2, STRIDE * x + STRIDE // 2])
        if label != VOID:
            found[label].append(vectors[y, x])
    return found


class Stream(SupervisedPlugin):
    """Computes on its own what icarl should keep of each image, and looks at the memory's size at every moment."""

    def __init__(self) -> None:
        super().__init__()
        self.vectors: dict[int, list[np.ndarray]] = defaultdict(list)
        self.networks: list[Any] = []
        self.means: list[np.ndarray] = []
        self.kept: list[list[Exemplar]] = []
        self.sizes: set[int] = set()

    def fill(self, template: Any) -> None:
        data = benchmark().train_stream[0].data
        for i, image_id in enumerate(data.ids):
            self._count(template.network, data[i][0], annotation(image_id, 0))

    def _count(self, network: Any, image: torch.Tensor, labels: np.ndarray) -> None:
        for label, vectors in vectors_by_label(network, image, labels).items():
            self.vectors[label].extend(vectors)

    def snapshot(self, template: Any) -> None:
        self.networks.append(rerun(template.network, train=False))
        self.means.append(template.method.means.double().numpy().copy())
        self.kept.append(list(template.method.memory.exemplars))

    def before_forward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        self.sizes.add(strategy.method.kept())

    def after_forward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        self.sizes.add(strategy.method.kept())

    def after_update(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        self.sizes.add(strategy.method.kept())

    def after_training_iteration(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        self.sizes.add(strategy.method.kept())
        data = strategy.experience.data
        for image, index in zip(strategy.mb_x, strategy.mbatch[3].tolist(), strict=True):
            if index >= 0:
                self._count(strategy.network, image, annotation(data.ids[index], data.step))


@cache
def observed() -> tuple[Stream, Any]:
    """Snapshots after the filling and after each step."""
    stream = Stream()
    template = make("icarl", [stream], settings=SMALL)
    stream.fill(template)
    template.begin(benchmark().train_stream[0])
    stream.snapshot(template)
    for t in (1, 2):
        train(template, steps=[t], fill=False)
        stream.snapshot(template)
    return stream, template


def test_the_running_class_mean_is_the_mean_over_all_pixels_that_passed() -> None:
    stream, template = observed()
    memory = template.method.memory
    assert set(memory._sums) == set(stream.vectors) - {0} == {1, 2, 3, 4, 5, 6}
    for c in memory._sums:
        assert memory._pixels[c] == len(stream.vectors[c])
        np.testing.assert_allclose(
            memory._sums[c] / memory._pixels[c], np.mean(stream.vectors[c], axis=0), rtol=1e-3, atol=1e-4
        )


def class_means(network: Any, exemplars: list[Any], outputs: int) -> np.ndarray:
    """L2-normalised mean over the exemplars' pixels by label, the background's over label 0; NaN without a pixel."""
    vectors: dict[int, list[np.ndarray]] = defaultdict(list)
    for e in exemplars:
        image = benchmark().train_stream[e.step].data[e.index][0]
        for label, found in vectors_by_label(network, image, annotation(e.image_id, e.step)).items():
            vectors[label].extend(found)
    means = np.full((outputs, 64), np.nan)
    for c, found in vectors.items():
        mean = np.mean(found, axis=0)
        means[c] = mean / np.linalg.norm(mean)
    return means


@pytest.mark.parametrize("step", [0, 1, 2])
def test_class_means_are_those_of_the_exemplars_pixels_under_the_network_after_the_step(step: int) -> None:
    stream, _ = observed()
    outputs = (4, 5, 7)[step]
    expected = class_means(stream.networks[step], stream.kept[step], outputs)
    np.testing.assert_allclose(stream.means[step], expected, rtol=1e-3, atol=1e-4)
    norms = np.linalg.norm(stream.means[step], axis=1)
    np.testing.assert_allclose(norms[~np.isnan(norms)], 1.0, rtol=1e-5)
    if step:
        before = class_means(stream.networks[step - 1], stream.kept[step], outputs)
        earlier = class_means(stream.networks[step], stream.kept[step - 1], outputs)
        for other in (before, earlier):
            assert not np.allclose(stream.means[step], other, rtol=1e-2, atol=1e-2, equal_nan=True)


def test_the_memory_is_never_larger_than_its_size() -> None:
    stream, template = observed()
    assert max(stream.sizes) == template.method.kept() == 7
    assert len({(e.image_id, e.step) for e in template.method.memory.exemplars}) == 7


def test_each_class_has_its_quota_of_exemplars_after_each_step() -> None:
    """7 places: 2 for each of the 3 base classes, 1 for each of 4, 1 for each of 6; every class has as many images."""
    stream, _ = observed()
    for kept, known, quota in zip(stream.kept, (3, 4, 6), (2, 1, 1), strict=True):
        counts = Counter(c for e in kept for c in e.classes)
        assert all(counts[c] >= quota for c in range(1, known + 1))


def test_filling_memory_and_offering_images_leave_the_network_as_it_is() -> None:
    template = make("icarl", settings=SMALL)
    before = {k: v.clone() for k, v in template.network.state_dict().items()}
    template.begin(benchmark().train_stream[0])
    assert all(torch.equal(before[k], v) for k, v in template.network.state_dict().items())
    counts = [int(v) for k, v in before.items() if "num_batches" in k]
    train(template, steps=[1], fill=False)
    after = [int(v) for k, v in template.network.state_dict().items() if "num_batches" in k]
    assert [b - a for a, b in zip(counts, after, strict=True)] == [BATCHES[0]] * len(counts)


# ------------------------------------------------------------------------------------------------- class sums


@pytest.mark.parametrize(("height", "width"), [(8, 8), (10, 7), (4, 13)])
def test_class_sums_leave_void_and_labels_without_an_output_out_and_take_labels_at_the_cells_centres(
    height: int, width: int
) -> None:
    """A cell's centre lies at (i + 1/2) / 4 of the image's side, whether or not that is a multiple of 4."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(2, 3, 4, 4))
    labels = rng.choice([0, 1, 3, 4, 5, VOID], (2, height, width))
    sums, pixels = class_sums(torch.tensor(features), torch.tensor(labels), 4)
    expected, count = np.zeros((4, 3)), np.zeros(4)
    for i, y, x in np.ndindex(2, 4, 4):
        label = labels[i, (2 * y + 1) * height // 8, (2 * x + 1) * width // 8]
        if label < 4:
            f = features[i, :, y, x]
            expected[label] += f / np.sqrt((f**2).sum())
            count[label] += 1
    np.testing.assert_allclose(sums.numpy(), expected, rtol=1e-9, atol=1e-12)
    assert pixels.tolist() == count.tolist()
    assert count[2] == 0 and count[0] > 0


def test_a_cells_label_is_that_of_the_place_about_which_its_score_is_upsampled() -> None:
    """11 pixels, 3 cells: centres at 1.83, 5.5 and 9.17, in pixels 1, 5 and 9; in pixel 5 the second cell's score."""
    labels = torch.zeros(1, 11, 11, dtype=torch.long)
    labels[0, 1, 1], labels[0, 5, 5], labels[0, 9, 9] = 1, 2, 3
    features = torch.arange(9.0).reshape(1, 1, 3, 3).expand(-1, 2, -1, -1) + torch.tensor([1.0, 0.0])[:, None, None]
    sums, pixels = class_sums(features, labels, 4)
    assert pixels.tolist() == [6, 1, 1, 1]
    for c, cell in ((1, 0), (2, 1), (3, 2)):
        vector = features[0, :, cell, cell]
        assert torch.allclose(sums[c], vector / vector.norm())
    assert enlarged(features[0, 1, :, :, None].numpy(), 11)[5, 5, 0] == pytest.approx(4.0)


# --------------------------------------------------------------------------------------------------- prediction


def cosines(vectors: np.ndarray, means: np.ndarray) -> np.ndarray:
    """(h, w, C), one pixel and class at a time; -1 where a class has no mean."""
    scores = np.full((*vectors.shape[:2], len(means)), -1.0)
    for y, x, c in np.ndindex(*scores.shape):
        if not np.isnan(means[c]).any():
            f = vectors[y, x]
            scores[y, x, c] = sum(f * means[c]) / np.sqrt(sum(f * f) * sum(means[c] * means[c]))
    return scores


def enlarged(scores: np.ndarray, size: int) -> np.ndarray:
    """Bilinear, pixel centres at halves, the border repeated."""
    side = len(scores)
    weights = np.zeros((size, side))
    for i in range(size):
        place = min(max((i + 0.5) * side / size - 0.5, 0.0), side - 1.0)
        low = int(place)
        weights[i, low] += 1 - (place - low)
        weights[i, min(low + 1, side - 1)] += place - low
    return np.einsum("yi,xj,ijc->yxc", weights, weights, scores)


@pytest.mark.parametrize("seed", range(3))
def test_scores_are_the_cosines_to_the_class_means(seed: int) -> None:
    rng = np.random.default_rng(seed)
    features, means = rng.normal(size=(1, 5, 4, 4)), rng.normal(size=(6, 5))
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    means[[0, 4]] = np.nan
    scores = nearest_mean_scores(torch.tensor(features), torch.tensor(means))
    expected = cosines(np.moveaxis(features[0], 0, -1), means)
    np.testing.assert_allclose(np.moveaxis(scores[0].numpy(), 0, -1), expected, rtol=1e-6, atol=1e-9)


def test_a_prediction_is_the_nearest_class_mean_and_not_the_classifiers() -> None:
    class Scores(SupervisedPlugin):
        def __init__(self) -> None:
            super().__init__()
            self.seen: list[tuple[Any, Any]] = []

        def after_eval_iteration(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
            self.seen.append((strategy.mb_x.clone(), strategy.mb_output.clone()))

    watch = Scores()
    template = make("icarl", [watch], settings=SMALL)
    train(template)
    template.eval(benchmark().test_stream[2])
    exemplars: Any = template.method
    means = class_means(template.network, exemplars.memory.exemplars, 7)
    images, scores = (torch.cat(parts) for parts in zip(*watch.seen, strict=True))
    assert len(images) == 7
    differs = 0
    for image, got in zip(images, scores, strict=True):
        expected = enlarged(cosines(pixel_features(template.network, image), means), 16)
        np.testing.assert_allclose(np.moveaxis(got.numpy(), 0, -1), expected, atol=2e-4)
        ordered = np.sort(expected, axis=-1)
        sure = ordered[..., -1] - ordered[..., -2] > 1e-3
        assert sure.mean() > 0.5
        assert (got.argmax(0).numpy()[sure] == expected.argmax(-1)[sure]).all()
        with torch.no_grad():
            classified = rerun(template.network, train=False)(image[None].double())[0].argmax(0).numpy()
        differs += int((classified != expected.argmax(-1)).sum())
    assert differs > 0


def evaluated(template: Any, t: int) -> torch.Tensor:
    """The scores (C, pixels) of step t's test set."""
    found: list[torch.Tensor] = []

    class Seen(SupervisedPlugin):
        def after_eval_iteration(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
            found.append(strategy.mb_output.transpose(0, 1).flatten(1))

    template.plugins.append(Seen())
    template.eval(benchmark().test_stream[t])
    return torch.cat(found, dim=1)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_class_without_an_exemplar_is_never_predicted_while_others_exist(size: int) -> None:
    template = train(make("icarl", settings=[f"memory.size={size}"]))
    method: Any = template.method
    there = {0} | {c for e in method.memory.exemplars for c in e.classes}
    absent = sorted(set(range(7)) - there)
    assert absent
    scores = evaluated(template, 2)
    assert set(scores.argmax(0).tolist()) <= there
    assert scores[absent].max() < -0.999  # as far as a cosine goes: no feature could make it the nearest


def test_a_memory_without_a_single_exemplar_is_no_error() -> None:
    """Every annotated object may be smaller than the features' stride."""
    template = make("icarl")
    template.method.fill(template, [], 3)
    assert evaluated(template, 0).shape[0] == 4


def test_an_image_whose_classes_are_not_in_its_crop_counts_for_nothing() -> None:
    method = Icarl(IcarlParameters(), 3, np.random.default_rng(0))
    labels = torch.zeros(1, 8, 8, dtype=torch.long)
    method._offer([Fake("a", frozenset({2}))], torch.randn(1, 3, 2, 2), labels)
    assert method.kept() == 0
    labels[0, 6, 6] = 2
    method._offer([Fake("b", frozenset({1, 2}))], torch.randn(1, 3, 2, 2), labels)
    assert [e.image_id for e in method.memory.exemplars] == ["b"]
    assert set(method.memory._sums) == {2}


def test_an_image_is_offered_with_the_mean_feature_of_each_class_and_its_number_of_cells() -> None:
    """Class 1 has the left two of four cells, class 2 one of the right; the features are normalised before the mean."""
    method = Icarl(IcarlParameters(), 3, np.random.default_rng(0))
    labels = torch.zeros(1, 8, 8, dtype=torch.long)
    labels[0, :, :4], labels[0, 4:, 4:] = 1, 2
    features = torch.tensor([[[[3.0, 1.0], [0.0, 0.0]], [[4.0, 0.0], [2.0, 5.0]]]])  # (1, 2, 2, 2)
    exemplar: Any = Fake("a", frozenset({1, 2}))
    method._offer([exemplar], features, labels)
    kept = method.memory.features[exemplar]
    assert {c: mean.tolist() for c, mean in kept.items()} == {1: pytest.approx([0.3, 0.9]), 2: pytest.approx([0, 1])}
    assert method.memory._pixels == {1: 2, 2: 1}


def test_the_memory_counts_its_class_features_among_its_bytes() -> None:
    memory = HerdingMemory(2, np.random.default_rng(0))
    exemplar: Any = Fake("a", frozenset({1, 2}))
    memory.offer(exemplar, {c: np.zeros(8, np.float32) for c in (1, 2)}, {1: 1, 2: 1})
    assert memory.bytes() == 4 * 32
    assert isinstance(ConfidenceMemory(2, np.random.default_rng(0)).bytes(), int)
