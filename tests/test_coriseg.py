"""CoRiSeg against its definition: what it keeps, what is distilled, and what the loss is worth."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
import reference
import torch
from avalanche.core import SupervisedPlugin
from toy import BATCHES, FLOAT32, LEARNED, VOID, Iteration, Onlooker, Run, annotation, arrivals, benchmark, make, run

from strategies.learning.losses import distillation
from strategies.learning.memory import ConfidenceMemory
from strategies.networks.build import build_network

WEIGHT = 3.0
SETTINGS = ["incremental.lr=0.02", "memory.size=7"]


@dataclass(frozen=True)
class Fake:
    image_id: str
    classes: frozenset[int]
    step: int = 0


# ---------------------------------------------------------------------------------------------------- the memory


def kept_by_definition(pool: list[tuple[Any, dict[int, float]]], size: int) -> list[Any]:
    """Fill the places one by one: the class with fewest images kept takes its most confident one that is left."""
    kept: list[Any] = []
    left = list(pool)
    while left and len(kept) < size:
        open_classes = {c for e, _ in left for c in e.classes}
        c = min(open_classes, key=lambda c: (sum(c in e.classes for e in kept), c))
        best = max((pair for pair in left if c in pair[0].classes), key=lambda pair: pair[1][c])
        kept.append(best[0])
        left.remove(best)
    return kept


def filled(stream: list[tuple[Any, dict[int, float]]], size: int) -> ConfidenceMemory:
    memory = ConfidenceMemory(size, np.random.default_rng(0))
    for exemplar, scores in stream:
        memory.offer(exemplar, scores)
        assert len(memory) <= size
        assert set(memory.scores) == set(memory.exemplars)  # what was dropped leaves nothing behind
    return memory


def random_stream(seed: int, several: bool) -> list[tuple[Any, dict[int, float]]]:
    """40 images of ever more classes, one or several in each, with distinct confidences."""
    rng = np.random.default_rng(seed)
    stream: list[tuple[Any, dict[int, float]]] = []
    for i in range(40):
        known = 2 + i // 12
        held = (1 + rng.choice(known, int(rng.integers(1, 3)) if several else 1, replace=False)).tolist()
        stream.append((Fake(str(i), frozenset(held)), {c: float(rng.random()) for c in held}))
    return stream


@pytest.mark.parametrize("seed", range(15))
def test_the_memory_keeps_what_its_definition_ranks_first(seed: int) -> None:
    stream = random_stream(seed, several=True)
    pool: list[tuple[Any, dict[int, float]]] = []
    memory = ConfidenceMemory(7, np.random.default_rng(0))
    for exemplar, scores in stream:
        memory.offer(exemplar, scores)
        pool.append((exemplar, scores))
        kept = kept_by_definition(pool, 7)
        pool = [(e, s) for e, s in pool if e in kept]
        assert set(memory.exemplars) == set(kept)


@pytest.mark.parametrize("seed", range(15))
def test_of_images_of_one_class_each_the_most_confident_of_the_whole_stream_are_kept_by_equal_quotas(seed: int) -> None:
    stream = random_stream(seed, several=False)
    memory = filled(stream, 10)
    assert len(memory) == 10
    classes = sorted({c for e, _ in stream for c in e.classes})
    counts = []
    for c in classes:
        ranked = [e for e, s in sorted(stream, key=lambda pair: -pair[1].get(c, -1)) if c in e.classes]
        held = [e for e in ranked if e in memory.exemplars]
        assert held == ranked[: len(held)]
        assert len(held) >= min(10 // len(classes), len(ranked))
        if len(held) < len(ranked):
            counts.append(len(held))
    assert max(counts) - min(counts) <= 1


def test_the_memory_by_hand() -> None:
    """Two places: a class's lone image stays however unsure it is, and of the others the surest."""
    stream: list[tuple[Any, dict[int, float]]] = [
        (Fake("a", frozenset({1})), {1: 0.6}),
        (Fake("b", frozenset({1})), {1: 0.9}),
        (Fake("c", frozenset({2})), {2: 0.1}),
        (Fake("d", frozenset({1})), {1: 0.8}),
        (Fake("e", frozenset()), {}),
        (Fake("f", frozenset({2})), {2: 0.05}),
    ]
    assert {e.image_id for e in filled(stream, 2).exemplars} == {"b", "c"}


# ------------------------------------------------------------------------------------------------ on the stream


class Offers(SupervisedPlugin):
    """Writes down what the memory is offered and how much it holds at every moment."""

    def __init__(self) -> None:
        super().__init__()
        self.offers: list[tuple[Any, dict[int, float]]] = []
        self.sizes: list[int] = []

    def watch(self, template: Any) -> Any:
        offer = template.method.memory.offer

        def written_down(exemplar: Any, scores: dict[int, float]) -> None:
            self.offers.append((exemplar, dict(scores)))
            offer(exemplar, scores)
            self.sizes.append(template.method.kept())

        template.method.memory.offer = written_down
        return template

    def before_forward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        self.sizes.append(strategy.method.kept())


@cache
def observed() -> tuple[Run, Offers]:
    offers = Offers()

    class Watch(SupervisedPlugin):
        def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
            if strategy.experience.data.step == 1:
                offers.watch(strategy)

    return run("coriseg", [Watch(), offers], settings=SETTINGS, distillation_weight=WEIGHT), offers


def confidences(logits: np.ndarray, labels: np.ndarray, classes: frozenset[int]) -> dict[int, float]:
    found = {c: reference.confidence(logits[None], labels[None], c) for c in classes}
    return {c: 0.0 if p is None else p for c, p in found.items()}


def annotated(name: str, step: int) -> frozenset[int]:
    return frozenset(np.unique(annotation(name, step)).tolist()) - {0, VOID}


def test_incoming_images_are_offered_with_the_confidence_of_the_pass_that_met_them() -> None:
    done, offers = observed()
    met = [
        (
            name,
            iteration.step,
            confidences(iteration.logits[i], iteration.planted[i], annotated(name, iteration.step)),
        )
        for iteration in done.iterations
        for i, name in enumerate(iteration.incoming)
    ]
    assert [(e.image_id, e.step) for e, _ in offers.offers] == [(name, step) for name, step, _ in met]
    for (_, scores), (_, _, expected) in zip(offers.offers, met, strict=True):
        assert scores == pytest.approx(expected, rel=1e-4, abs=1e-9)
    assert len({round(p, 3) for _, scores in offers.offers for p in scores.values()}) > 5


def test_the_base_steps_images_are_offered_with_the_base_models_confidence_and_move_nothing() -> None:
    template = make("coriseg", settings=SETTINGS)
    before = {k: v.clone() for k, v in template.network.state_dict().items()}
    offers = Offers()
    offers.watch(template)
    template.begin(benchmark().train_stream[0])
    assert all(torch.equal(before[k], v) for k, v in template.network.state_dict().items())
    assert {e.image_id for e, _ in offers.offers} == arrivals(0)
    for exemplar, scores in offers.offers:
        with torch.no_grad():
            image = benchmark().train_stream[0].data[exemplar.index][0]
            logits = template.network.eval()(image[None])[0].double().numpy()
        expected = confidences(logits, annotation(exemplar.image_id, 0), exemplar.classes)
        assert scores == pytest.approx(expected, rel=1e-3)


def test_the_memory_after_a_run_is_what_the_definition_makes_of_the_offers() -> None:
    template = make("coriseg", settings=SETTINGS)
    offers = Offers()
    offers.watch(template)
    template.begin(benchmark().train_stream[0])
    for t in (1, 2):
        template.train(benchmark().train_stream[t], eval_streams=[])
    pool: list[tuple[Any, dict[int, float]]] = []
    for exemplar, scores in offers.offers:
        pool.append((exemplar, scores))
        kept = kept_by_definition(pool, 7)
        pool = [(e, s) for e, s in pool if e in kept]
    method: Any = template.method
    assert set(method.memory.exemplars) == {e for e, _ in pool}
    assert {c for e, _ in pool for c in e.classes} == {1, 2, 3, 4, 5, 6}
    assert max(offers.sizes) == 7


# ------------------------------------------------------------------------------------------------------- the loss


def log_softmax(z: np.ndarray) -> np.ndarray:
    z = z - z.max(1, keepdims=True)
    return z - np.log(np.exp(z).sum(1, keepdims=True))


def old_logits(done: Run, iteration: Iteration) -> np.ndarray:
    old = build_network("small", sum(map(len, LEARNED[: iteration.step]))).double().eval()
    old.load_state_dict(done.weights[iteration.step - 1])
    with torch.no_grad():
        return old(iteration.images.double()).numpy()


def distilled(logits: np.ndarray, old: np.ndarray, labels: np.ndarray) -> float:
    """Mean over non-void pixels of the cross-entropy between the softmaxes over the old outputs."""
    total, count = 0.0, 0
    q, log_p = np.exp(log_softmax(old)), log_softmax(logits[:, : old.shape[1]])
    for i, y, x in np.ndindex(*labels.shape):
        if labels[i, y, x] != VOID:
            total -= float((q[i, :, y, x] * log_p[i, :, y, x]).sum())
            count += 1
    return total / count


def test_distillation_by_hand() -> None:
    """q = (1/4, 3/4); p over the two old outputs = (1/2, 1/2): log 2 a pixel, whatever the new output says."""
    old = torch.tensor([0.25, 0.75]).log().view(1, 2, 1, 1).expand(1, 2, 1, 2)
    logits = torch.tensor([1.0, 1.0, 7.0]).view(1, 3, 1, 1).expand(1, 3, 1, 2)
    assert distillation(logits, old, torch.tensor([[[0, VOID]]])).item() == pytest.approx(np.log(2))
    assert distillation(logits, old, torch.tensor([[[1, 2]]])).item() == pytest.approx(np.log(2))


def test_the_loss_is_cross_entropy_on_all_images_and_distillation_on_memory_images() -> None:
    done, _ = observed()
    for iteration in done.iterations:
        kept = np.array(iteration.indices) < 0
        assert 0 < kept.sum() == len(kept) / 2
        old = old_logits(done, iteration)
        on_memory = distilled(iteration.logits[kept], old[kept], iteration.planted[kept])
        expected = reference.cross_entropy(iteration.logits, iteration.told) + WEIGHT * on_memory
        assert iteration.loss == pytest.approx(expected, rel=FLOAT32)
        on_all = distilled(iteration.logits, old, iteration.planted)
        assert WEIGHT * abs(on_all - on_memory) > 3 * FLOAT32 * expected


def test_incoming_images_get_the_gradient_of_cross_entropy_alone_and_memory_images_that_of_both() -> None:
    """d / d logit: (p - 1[label]) / pixels, and for old outputs w (p_old - q) / pixels of memory images."""
    done, _ = observed()
    for iteration in done.iterations:
        labels, told, counted = iteration.told, iteration.told != VOID, iteration.planted != VOID
        p = np.exp(log_softmax(iteration.logits))
        one_hot = np.stack([labels == c for c in range(p.shape[1])], axis=1)
        expected = (p - one_hot) * told[:, None] / told.sum()
        old = old_logits(done, iteration)
        for i in np.flatnonzero(np.array(iteration.indices) < 0):
            known = old.shape[1]
            pull = np.exp(log_softmax(iteration.logits[i : i + 1, :known])) - np.exp(log_softmax(old[i : i + 1]))
            share = counted[np.array(iteration.indices) < 0].sum()
            expected[i, :known] += WEIGHT * pull[0] * counted[i] / share
        np.testing.assert_allclose(iteration.logits_gradient.numpy(), expected, atol=1e-6)


def test_the_old_model_is_the_previous_steps_and_frozen() -> None:
    class Watch(SupervisedPlugin):
        def __init__(self) -> None:
            super().__init__()
            self.heads: list[tuple[int, torch.Tensor]] = []

        def after_update(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
            old = strategy.method.old
            assert not any(m.training for m in old.modules())
            assert not any(p.requires_grad for p in old.parameters())
            self.heads.append((strategy.experience.data.step, old.head.weight.clone()))

    watch = Watch()
    done = run("coriseg", [watch], settings=SETTINGS)
    assert len(watch.heads) == sum(BATCHES)
    for step, head in watch.heads:
        assert torch.equal(head, done.weights[step - 1]["head.weight"])


def test_without_memory_images_the_loss_is_the_cross_entropy() -> None:
    onlooker = Onlooker()
    template = make("coriseg", [onlooker])
    method: Any = template.method
    method.memory.offer = lambda *_: None
    template.train(benchmark().train_stream[1], eval_streams=[])
    for iteration in onlooker.iterations:
        assert iteration.replayed == []
        assert iteration.loss == pytest.approx(reference.cross_entropy(iteration.logits, iteration.told), FLOAT32)
