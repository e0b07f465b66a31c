"""The methods on a toy stream: what they draw, see and update is what METHODS.md says, image by image."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import reference
import torch
from avalanche.core import SupervisedPlugin
from scipy.stats import chi2
from torch import Tensor
from toy import (
    BATCH,
    BATCHES,
    FLOAT32,
    GROUPS,
    LEARNED,
    TRAIN,
    VOID,
    Iteration,
    Onlooker,
    Run,
    annotation,
    arrivals,
    benchmark,
    equal,
    full_label_map,
    id_by_content,
    make,
    plain,
    run,
    statistics,
)

from strategies.finetune import FinetuneParameters
from strategies.learning.faults import OnlineContractError
from strategies.learning.losses import class_confidences
from strategies.learning.method import Method
from strategies.learning.protocol import BaseRecipe
from strategies.learning.registry import method_class
from strategies.learning.template import OnlineTemplate
from strategies.mib import Mib
from strategies.networks.build import build_network
from strategies.ours import Ours, OursParameters, sampling_probabilities


def test_the_toy_stream_is_what_these_tests_take_it_for() -> None:
    for step, experience in enumerate(benchmark().train_stream):
        assert set(experience.data.ids) == arrivals(step)
        assert experience.classes_in_this_experience == LEARNED[step]
    assert [len(arrivals(step)) for step in (1, 2)] == [10, 9]
    assert len(id_by_content()) == 2 * len(TRAIN)


OURS = {"delta": 0.7}
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "finetune": ("finetune", {}),
    "er": ("er", {}),
    "mib": ("mib", {}),
    "ours": ("ours", OURS),
    "ours, linear head, reservoir": ("ours", OURS | {"head": "linear", "memory": "reservoir", "sampling": "uniform"}),
    "ours, cross-entropy": ("ours", OURS | {"loss": "cross-entropy"}),
    "ours, separate": ("ours", OURS | {"e_step": "separate"}),
}
every_method = pytest.mark.parametrize(("name", "parameters"), METHODS.values(), ids=METHODS)
every_replay = pytest.mark.parametrize(
    ("name", "parameters"),
    [m for k, m in METHODS.items() if k != "finetune"],
    ids=[k for k in METHODS if k != "finetune"],
)


# ------------------------------------------------------------------------------------- what a batch and a loss see


@every_replay
def test_each_memory_image_carries_the_annotation_it_arrived_with(name: str, parameters: dict[str, Any]) -> None:
    hidden_older, hidden_newer = 0, 0
    for iteration in plain(name, **parameters).iterations:
        np.testing.assert_array_equal(iteration.labels, iteration.planted)
        for image_id, tau, index in zip(iteration.ids, iteration.tau.tolist(), iteration.indices, strict=True):
            assert image_id in arrivals(tau)
            assert tau == iteration.step if index >= 0 else tau <= iteration.step
            if index < 0:
                full = set(np.unique(full_label_map(image_id)).tolist())
                hidden_older += any(full & set(GROUPS[s]) for s in range(tau))
                hidden_newer += any(full & set(GROUPS[s]) for s in range(tau + 1, iteration.step + 1))
    assert hidden_older > 0
    assert hidden_newer > 0  # its full label map would have told a class known by now


@every_method
def test_incoming_images_carry_their_own_steps_classes_alone(name: str, parameters: dict[str, Any]) -> None:
    for iteration in plain(name, **parameters).iterations:
        count = len(iteration.incoming)
        assert set(iteration.tau[:count].tolist()) == {iteration.step}
        assert set(np.unique(iteration.labels[:count]).tolist()) <= {0, VOID, *LEARNED[iteration.step]}


def mib_loss(iteration: Iteration, before: dict[str, Tensor]) -> float:
    known = sum(map(len, LEARNED[: iteration.step]))
    old = build_network("small", known).eval()
    old.load_state_dict(before)
    with torch.no_grad():
        old_logits = old(iteration.images).double().numpy()
    return reference.mib_cross_entropy(**iteration.arguments) + 10.0 * reference.mib_distillation(
        iteration.logits, old_logits, LEARNED[iteration.step], iteration.planted
    )


def separate_loss(iteration: Iteration) -> float:
    """Eq. 7 with pseudo-labels of another forward pass: what needs none, and their cross-entropy."""
    assert iteration.evaluated_logits is not None
    pseudo = reference.relabel(**iteration.arguments | {"logits": iteration.evaluated_logits}, delta=OURS["delta"])
    counted, relabelled = (iteration.planted != VOID).sum(), (pseudo != reference.NO_LABEL).sum()
    without = reference.composite_loss(**iteration.arguments, delta=1.0, gamma=0.5)
    known = reference.cross_entropy(iteration.logits, np.where(pseudo == reference.NO_LABEL, VOID, pseudo))
    return without + known * relabelled / counted


@every_method
def test_the_loss_is_the_references_on_the_annotations_the_images_arrived_with(
    name: str, parameters: dict[str, Any]
) -> None:
    separate = "e_step" in parameters
    done = run(name, look=True, **parameters) if separate else plain(name, **parameters)
    for iteration in done.iterations:
        if name == "mib":
            expected = mib_loss(iteration, done.weights[iteration.step - 1])
        elif separate:
            expected = separate_loss(iteration)
        elif name == "ours" and "loss" not in parameters:
            expected = reference.composite_loss(**iteration.arguments, delta=OURS["delta"], gamma=0.5)
        else:
            known = iteration.planted if name == "finetune" else iteration.told
            expected = reference.cross_entropy(iteration.logits, known)
        assert iteration.loss == pytest.approx(expected, rel=FLOAT32)


def test_a_method_that_says_nothing_of_its_loss_has_the_cross_entropy_with_labels_as_stored_and_keeps_nothing() -> None:
    class Bare(Method):
        Parameters = FinetuneParameters

    done = run(Bare)
    for iteration in done.iterations:
        expected = reference.cross_entropy(iteration.logits, iteration.planted)
        assert iteration.loss == pytest.approx(expected, rel=FLOAT32)
    assert (done.template.method.kept(), done.template.method.memory_bytes()) == (0, 0)


def test_in_these_runs_the_two_kinds_of_e_step_relabel_differently() -> None:
    """So that the test above tells one from the other."""
    for iteration in run("ours", look=True, **OURS).iterations:
        assert iteration.evaluated_logits is not None
        shared = reference.relabel(**iteration.arguments, delta=OURS["delta"])
        other = reference.relabel(**iteration.arguments | {"logits": iteration.evaluated_logits}, delta=OURS["delta"])
        assert (shared != other).any()


def test_in_these_runs_the_e_step_relabels_some_latent_pixels_to_old_and_new_classes_and_leaves_others() -> None:
    found: Counter[int] = Counter()
    for iteration in plain("ours", **OURS).iterations:
        pseudo = reference.relabel(**iteration.arguments, delta=OURS["delta"])
        found.update(pseudo[iteration.planted == 0].tolist())
    assert found[reference.NO_LABEL] > 0
    assert sum(found[c] > 0 for c in range(7)) >= 3


@every_method
def test_void_pixels_get_no_gradient_and_all_annotated_pixels_do(name: str, parameters: dict[str, Any]) -> None:
    for iteration in plain(name, **parameters).iterations:
        void = torch.from_numpy(iteration.planted.copy() == VOID)
        annotated = torch.from_numpy((iteration.planted != VOID) & (iteration.planted != 0))
        gradient = iteration.logits_gradient.abs().amax(1)
        assert void.any()
        assert not gradient[void].any()
        assert gradient[annotated].all()


class Noise(SupervisedPlugin):
    """Adds to what the network says on void pixels, or on the annotated ones."""

    def __init__(self, on_void: bool) -> None:
        super().__init__()
        self.on_void = on_void

    def after_forward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        void = strategy.mb_y == VOID
        changed = void if self.on_void else ~void & (strategy.mb_y > 0)
        noise = torch.randn(strategy.mb_output.shape, generator=torch.Generator().manual_seed(0))
        strategy.mb_output = strategy.mb_output + 30 * noise * changed[:, None]


@every_method
def test_what_the_network_says_on_void_pixels_changes_no_update_and_no_confidence(
    name: str, parameters: dict[str, Any]
) -> None:
    clean = plain(name, **parameters)
    noisy = run(name, [Noise(on_void=True)], **parameters)
    for key, value in clean.weights[-1].items():
        torch.testing.assert_close(noisy.weights[-1][key], value, rtol=1e-4, atol=1e-6)
    if name == "ours":
        np.testing.assert_allclose(noisy.template.method.confidence, clean.template.method.confidence, atol=1e-6)
    other = run(name, [Noise(on_void=False)], **parameters)
    assert not torch.allclose(other.weights[-1]["head.weight"], clean.weights[-1]["head.weight"], rtol=1e-3)


# ---------------------------------------------------------------------------------------------- dynamic sampling


@pytest.mark.parametrize("e_step", ["shared", "separate"])
def test_class_confidences_follow_the_reference_over_all_batches(e_step: str) -> None:
    done = run("ours", look=True, e_step=e_step)
    expected: dict[int, float] = {}
    kept = 0
    for iteration in done.iterations:
        logits = iteration.logits if e_step == "shared" else iteration.evaluated_logits
        assert logits is not None and iteration.confidence is not None
        for c in range(1, logits.shape[1]):
            of_batch = reference.confidence(logits, iteration.planted, c)
            kept += of_batch is None and expected.get(c, 0.0) > 0
            expected[c] = reference.ema(expected.get(c, 0.0), of_batch, mu=0.9)
        assert iteration.confidence[1:].tolist() == pytest.approx(list(expected.values()), rel=FLOAT32)
    assert kept > 0  # a class that was there before was absent from a batch
    assert len(expected) == 6


def test_confidences_start_at_zero_in_step_1_and_for_new_classes_and_live_on_for_known_ones() -> None:
    done = plain("ours", **OURS)
    first, second = (start["confidence"] for start in done.onlooker.starts)
    assert first.tolist() == [0.0] * 5
    last = done.of(1)[-1].confidence
    assert last is not None and (last[1:] > 0).all()
    assert second[:5].tolist() == last.tolist()
    assert second[5:].tolist() == [0.0, 0.0]


def test_a_confidence_moves_by_hand_with_a_single_pixel_and_stays_without_one() -> None:
    """E(1) = 0.9 * 0.5 + 0.1 * 0.25 with p(1) = 1/4 at its one pixel; class 2 has none."""
    method = ours_with([], (0.0, 0.5, 0.4))
    log_p = torch.tensor([0.5, 0.25, 0.25]).log().view(1, 3, 1, 1).expand(1, 3, 1, 2)
    method._update_confidence(*class_confidences(log_p, torch.tensor([[[1, VOID]]])))
    assert method.confidence[1:].tolist() == pytest.approx([0.475, 0.4], rel=FLOAT32)


def test_the_base_model_has_the_head_and_the_temperature_of_the_increments() -> None:
    assert Ours.recipe(OursParameters(tau=3.0)) == BaseRecipe(head="cosine", tau=3.0)
    assert Ours.recipe(OursParameters(head="linear")) == BaseRecipe(head="linear", tau=None)


def test_sampling_probabilities_are_numbers_however_peaky() -> None:
    assert sampling_probabilities(np.array([0.9, 0.9, 0.95]), 1e6).tolist() == [0.5, 0.5, 0.0]


@pytest.mark.parametrize("eta", [0.0, 1.0, 10.0])
def test_sampling_probabilities_equal_the_reference(eta: float) -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        E = rng.random(6)
        expected = reference.sampling_probabilities(dict(enumerate(E)), eta, set(range(6)))
        np.testing.assert_allclose(sampling_probabilities(E, eta), list(expected.values()), rtol=1e-12)


@pytest.mark.parametrize("available", [(1, 2, 3), (1, 2)])
def test_sampling_probabilities_by_hand(available: tuple[int, ...]) -> None:
    case = reference.HAND_CASES["sampling_probabilities"]
    got = sampling_probabilities(np.array([case["E"][c] for c in available]), case["eta"])
    assert got.tolist() == pytest.approx(list(case["expected"][available].values()), abs=1e-12)


@dataclass(frozen=True)
class Fake:
    image_id: str
    classes: frozenset[int]
    step: int = 0

    def load(self, augmentation: Any, rng: np.random.Generator) -> Any:
        raise AssertionError("drawing looks at no image")


def fakes(**classes: set[int]) -> list[Any]:
    return [Fake(name, frozenset(held)) for name, held in classes.items()]


def ours_with(exemplars: list[Any], confidence: Sequence[float], seed: int = 0, **parameters: Any) -> Ours:
    method = Ours(OursParameters(**parameters), 10, np.random.default_rng(seed))
    method.memory.exemplars = exemplars
    method.confidence = np.array(confidence)
    return method


def assert_frequencies(expected: dict[Any, float], happened: Counter[Any]) -> None:
    total = sum(happened.values())
    assert set(happened) <= set(expected)
    misfit = sum((happened[k] - p * total) ** 2 / (p * total) for k, p in expected.items())
    assert chi2.sf(misfit, len(expected) - 1) > 1e-4, (happened, expected)


EXEMPLARS = {"a": {1, 2}, "b": {1}, "c": {1}, "d": {2, 4}}
CONFIDENCE = (0.0, 0.9, 0.4, 0.0, 0.1)
"""Class 3 has no exemplar and the lowest E: it would be the likeliest."""


def exemplar_probabilities(eta: float) -> dict[str, float]:
    p_class = reference.sampling_probabilities(dict(enumerate(CONFIDENCE)), eta, {1, 2, 4})
    chances = dict.fromkeys(EXEMPLARS, 0.0)
    for c, p in p_class.items():
        holders = [name for name, classes in EXEMPLARS.items() if c in classes]
        for name in holders:
            chances[name] += p / len(holders)
    assert sum(chances.values()) == pytest.approx(1)
    return chances


@pytest.mark.parametrize("eta", [0.0, 1.0, 4.0])
def test_ours_draws_a_class_from_p_s_among_those_with_an_exemplar_then_one_of_its_exemplars(eta: float) -> None:
    method = ours_with(fakes(**EXEMPLARS), CONFIDENCE, eta=eta)
    happened = Counter(e.image_id for _ in range(1000) for e in method.draw(4))
    assert_frequencies(exemplar_probabilities(eta), happened)


def test_ours_draws_independently_and_with_replacement() -> None:
    single = exemplar_probabilities(4.0)
    method = ours_with(fakes(**EXEMPLARS), CONFIDENCE, eta=4.0)
    happened = Counter(tuple(e.image_id for e in method.draw(2)) for _ in range(4000))
    assert_frequencies({(i, j): single[i] * single[j] for i in single for j in single}, happened)
    assert [e.image_id for e in ours_with(fakes(a={1}), [0.0, 0.0]).draw(4)] == ["a"] * 4


def test_ours_draws_nothing_from_an_empty_memory() -> None:
    assert ours_with([], [0.0, 0.0]).draw(4) == []


@pytest.mark.parametrize(
    ("name", "parameters"), [("er", {}), ("mib", {}), ("ours", {"sampling": "uniform"})], ids=["er", "mib", "uniform"]
)
def test_the_others_draw_uniformly_without_replacement(name: str, parameters: dict[str, Any]) -> None:
    kind = method_class(name)
    method = kind(kind.Parameters(**parameters), 10, np.random.default_rng(0))
    method.confidence = np.array([0.0, 0.9])
    method.memory.exemplars = fakes(a={1}, b={1}, c={1})
    assert sorted(e.image_id for e in method.draw(4)) == ["a", "b", "c"]
    happened = Counter("".join(sorted(e.image_id for e in method.draw(2))) for _ in range(1500))
    assert_frequencies(dict.fromkeys(("ab", "ac", "bc"), 1 / 3), happened)


# ---------------------------------------------------------------------------------------------------- the memory


@every_replay
def test_as_many_memory_images_join_as_are_incoming_also_in_the_last_batch(
    name: str, parameters: dict[str, Any]
) -> None:
    done = plain(name, **parameters)
    assert [len(i.incoming) for i in done.iterations] == [4, 4, 2, 4, 4, 1]
    assert [len(i.replayed) for i in done.iterations] == [4, 4, 2, 4, 4, 1]
    assert all(max(i.indices[len(i.incoming) :]) < 0 for i in done.iterations)  # the incoming ones come first


def test_finetune_replays_nothing_and_keeps_nothing() -> None:
    done = plain("finetune")
    assert all(i.replayed == [] for i in done.iterations)
    assert done.template.method.kept() == 0


@every_replay
def test_incoming_images_enter_memory_after_their_update_and_never_before(
    name: str, parameters: dict[str, Any]
) -> None:
    of_this_step = 0
    for step in (1, 2):
        arrived: set[str] = set()
        for iteration in plain(name, **parameters).of(step):
            pairs = zip(iteration.ids, iteration.tau.tolist(), iteration.indices, strict=True)
            fresh = {image_id for image_id, tau, index in pairs if index < 0 and tau == step}
            assert fresh <= arrived
            of_this_step += len(fresh)
            arrived |= set(iteration.incoming)
    assert of_this_step > 0


class Spy(SupervisedPlugin):
    """Stands in for a method's memory and writes down what it is offered."""

    def __init__(self, template: OnlineTemplate) -> None:
        super().__init__()
        self.offers: list[tuple[str, int, frozenset[int], int]] = []
        self.updates_before: list[int] = []
        memory = template.method.memory
        offer = memory.offer

        def written_down(exemplar: Any, known_classes: int) -> None:
            self.offers.append((exemplar.image_id, exemplar.step, exemplar.classes, known_classes))
            self.updates_before.append(template.cost.updates)
            offer(exemplar, known_classes)

        memory.offer = written_down


@pytest.mark.parametrize("name", ["er", "mib", "ours"])
def test_every_image_is_offered_to_memory_once_with_its_annotated_classes_and_the_classes_known_then(
    name: str,
) -> None:
    onlooker = Onlooker()
    template = make(name, [onlooker])
    spy = Spy(template)
    template.begin(benchmark().train_stream[0])
    for experience in benchmark().train_stream[1:]:
        template.train(experience, eval_streams=[])
    by_step = [[o for o in spy.offers if o[1] == step] for step in range(3)]
    assert spy.offers == [o for offers in by_step for o in offers]
    for step, known in enumerate((3, 4, 6)):  # |Y_t|, and |Y_0| while memory is filled from the base step
        assert sorted(o[0] for o in by_step[step]) == sorted(arrivals(step))
        for image_id, _, classes, known_classes in by_step[step]:
            assert classes == set(np.unique(annotation(image_id, step)).tolist()) - {0, VOID}
            assert known_classes == known
    for step in (1, 2):
        assert [o[0] for o in by_step[step]] == [n for i in onlooker.iterations if i.step == step for n in i.incoming]


def test_a_batch_is_offered_to_memory_after_its_update() -> None:
    template = make("er")
    spy = Spy(template)
    template.begin(benchmark().train_stream[0])
    filled = len(spy.offers)
    template.train(benchmark().train_stream[1], eval_streams=[])
    assert spy.updates_before[filled:] == [1] * 4 + [2] * 4 + [3] * 2


def base_order(name: str, seed: int) -> list[str]:
    template = make(name, seed=seed)
    spy = Spy(template)
    template.begin(benchmark().train_stream[0])
    return [o[0] for o in spy.offers]


def test_memory_is_filled_from_the_base_step_in_an_order_of_the_seed() -> None:
    assert base_order("er", 0) == base_order("ours", 0)
    assert base_order("er", 0) != base_order("er", 1)
    assert base_order("er", 0) != list(benchmark().train_stream[0].data.ids)


def test_an_image_in_memory_is_augmented_anew_at_each_replay_its_labels_with_it() -> None:
    done = run("ours", settings=["data.flip=true", "memory.size=2"], **OURS)
    ways: dict[tuple[str, int], set[bool]] = {}
    for iteration in done.iterations:
        np.testing.assert_array_equal(iteration.labels, iteration.planted)
        for i in np.flatnonzero(np.array(iteration.indices) < 0):
            ways.setdefault((iteration.ids[i], int(iteration.tau[i])), set()).add(iteration.mirrored[i])
    assert {True, False} in ways.values()


# ----------------------------------------------------------------------------------------- one pass, one update


PASSES = {"finetune": 1, "er": 1, "ours": 1, "mib": 2}
"""Forward passes per batch; mib's second is the old model's."""


@every_method
def test_every_incoming_batch_gets_one_optimiser_step_and_its_passes_are_counted(
    name: str, parameters: dict[str, Any]
) -> None:
    done = plain(name, **parameters)
    passes = 2 if "e_step" in parameters else PASSES[name]
    for step, (batches, images) in enumerate(zip(BATCHES, (10, 9), strict=True), 1):
        assert batches == math.ceil(len(arrivals(step)) / BATCH)
        cost = done.costs[step]
        assert done.onlooker.optimizer_steps[step] == len(done.of(step)) == batches
        assert (cost.incoming_batches, cost.updates, cost.backward_passes) == (batches, batches, batches)
        assert cost.forward_passes == passes * batches
        assert cost.images == passes * images * (1 if name == "finetune" else 2)


@every_method
def test_every_image_of_a_step_comes_once(name: str, parameters: dict[str, Any]) -> None:
    for step in (1, 2):
        came = [image_id for i in plain(name, **parameters).of(step) for image_id in i.incoming]
        assert sorted(came) == sorted(arrivals(step))


@pytest.mark.parametrize("updates", [0, 2])
def test_another_number_of_updates_than_batches_is_an_error(updates: int) -> None:
    template = make("er")
    once = template.optimizer_step

    def several(*args: Any, **kwargs: Any) -> None:
        for _ in range(updates):
            once(*args, **kwargs)

    template.optimizer_step = several
    template.begin(benchmark().train_stream[0])
    with pytest.raises(OnlineContractError, match=r"step 1: (0 updates|2 updates from 1|6 updates from 3)"):
        template.train(benchmark().train_stream[1], eval_streams=[])


@pytest.mark.parametrize("name", ["er", "mib", "ours"])
def test_updates_are_sgd_with_momentum_that_starts_anew_at_each_step(name: str) -> None:
    """v <- momentum v + (g + weight decay theta), theta <- theta - lr v, and v = 0 when a step starts."""
    settings = ["incremental.lr=0.02", "incremental.momentum=0.7", "incremental.weight_decay=0.03"]
    done = run(name, settings=settings)
    for step in (1, 2):
        velocity: list[Tensor] = []
        for iteration in done.of(step):
            velocity = velocity or [torch.zeros_like(p) for p in iteration.parameters]
            rows = zip(velocity, iteration.parameters, iteration.gradients, strict=True)
            velocity = [0.7 * v + g + 0.03 * p for v, p, g in rows]
            for v, before, after in zip(velocity, iteration.parameters, iteration.parameters_after, strict=True):
                torch.testing.assert_close(after, before - 0.02 * v, rtol=1e-5, atol=1e-6)


def test_optimiser_state_does_not_outlive_a_step() -> None:
    first, second = plain("ours", **OURS).onlooker.starts
    assert first["optimizer"] is not second["optimizer"]
    assert first["optimizer_state"] == second["optimizer_state"] == 0
    assert len(first["optimizer"].state) > 0


# ------------------------------------------------------------------------------------------------ paired streams


def stream_order(done: Run) -> list[list[str]]:
    return [i.incoming for i in done.iterations]


@every_method
def test_all_methods_meet_the_same_images_in_the_same_order_augmented_alike(
    name: str, parameters: dict[str, Any]
) -> None:
    flips = run(name, settings=["data.flip=true", "memory.size=7"], **parameters)
    other = run("finetune", settings=["data.flip=true"])
    assert stream_order(flips) == stream_order(other) == stream_order(plain("finetune"))
    for mine, theirs in zip(flips.iterations, other.iterations, strict=True):
        assert torch.equal(mine.images[: len(mine.incoming)], theirs.images)
    assert {m for i in other.iterations for m in i.mirrored} == {True, False}


def test_the_order_differs_between_seeds_scenarios_and_from_the_lists() -> None:
    listed = [list(benchmark().train_stream[step].data.ids) for step in (1, 2)]
    orders = [
        stream_order(plain("finetune")),
        stream_order(run("finetune", seed=1)),
        stream_order(run("finetune", scenario="toy-3-1-disjoint")),
        [ids[i : i + BATCH] for ids in listed for i in range(0, len(ids), BATCH)],
    ]
    assert all(a != b for i, a in enumerate(orders) for b in orders[:i])


@pytest.mark.parametrize("kind", ["initialisation", "augmentation", "memory"])
def test_the_order_depends_on_its_own_seed_alone(kind: str) -> None:
    onlooker = Onlooker()
    template = make("finetune", [onlooker])
    template.seeds = dataclasses.replace(template.seeds, **{kind: 123})
    template.begin(benchmark().train_stream[0])
    for experience in benchmark().train_stream[1:]:
        template.train(experience, eval_streams=[])
    assert [i.incoming for i in onlooker.iterations] == stream_order(plain("finetune"))


@every_method
def test_equal_seeds_give_equal_networks_whatever_torchs_generator_does(name: str, parameters: dict[str, Any]) -> None:
    class Disturbance(SupervisedPlugin):
        def before_training_epoch(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
            torch.rand(7)
            np.random.default_rng(0).random(7)

        def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
            torch.rand(7)

    again = run(name, [Disturbance()], **parameters)
    assert equal(again.weights[-1], plain(name, **parameters).weights[-1])


# ---------------------------------------------------------------------------------------- evaluation, BatchNorm


@every_method
def test_evaluation_changes_neither_network_nor_memory_and_never_grows(name: str, parameters: dict[str, Any]) -> None:
    template = make(name, **parameters)
    template.begin(benchmark().train_stream[0])
    before, kept = copy.deepcopy(template.network.state_dict()), template.method.kept()
    template.eval(benchmark().test_stream[2])
    assert template.network.outputs == 4
    assert equal(template.network.state_dict(), before)
    assert template.method.kept() == kept


@every_method
def test_evaluating_between_steps_leaves_the_training_as_it_is(name: str, parameters: dict[str, Any]) -> None:
    assert equal(run(name, evaluate=True, **parameters).weights[-1], plain(name, **parameters).weights[-1])


@every_method
def test_networks_grow_by_the_steps_classes_and_keep_the_known_outputs_parameters(
    name: str, parameters: dict[str, Any]
) -> None:
    done = plain(name, **parameters)
    assert [len(w["head.weight"]) for w in done.weights] == [4, 5, 7]
    assert [i.logits.shape[1] for i in done.iterations] == [5, 5, 5, 7, 7, 7]
    for step in (1, 2):
        names = [n for n, _ in done.template.network.named_parameters()]
        start = dict(zip(names, done.of(step)[0].parameters, strict=True))
        before = done.weights[step - 1]
        for key, value in start.items():
            first = 1 if name == "mib" and key == "head.bias" else 0  # mib lowers the background's bias
            known = before[key].shape[0]
            assert torch.equal(value[first:known], before[key][first:]), key


@every_method
@pytest.mark.parametrize("mode", ["frozen", "train"])
def test_frozen_batchnorm_keeps_its_statistics_and_train_moves_them_once_a_batch(
    name: str, parameters: dict[str, Any], mode: str
) -> None:
    done = run(name, settings=[f"incremental.batchnorm={mode}"], evaluate=True, **parameters)
    base, *after = (statistics(w) for w in done.weights)
    if mode == "frozen":
        assert all(equal(base, s) for s in after)
        trained = {
            k for k, v in done.weights[0].items() if "stem.0.1.weight" in k and not torch.equal(v, done.weights[2][k])
        }
        assert trained  # its scales are trained all the same
        return
    for key in base:
        if "num_batches" in key:
            assert [int(s[key] - base[key]) for s in after] == [
                3,
                6,
            ]  # one batch each: neither evaluation nor a second pass counts
        else:
            assert not torch.equal(after[0][key], base[key])
            assert not torch.equal(after[1][key], after[0][key])


@pytest.mark.parametrize("name", ["er", "ours"])
def test_frozen_batchnorm_normalises_by_its_statistics_and_train_by_the_batch(name: str) -> None:
    frozen, training = (run(name, look=True, settings=[f"incremental.batchnorm={m}"]) for m in ("frozen", "train"))
    for iteration in frozen.iterations:
        np.testing.assert_allclose(iteration.logits, iteration.evaluated_logits, rtol=1e-3, atol=1e-3)
    for iteration in training.iterations:
        assert iteration.evaluated_logits is not None
        assert np.abs(iteration.logits - iteration.evaluated_logits).max() > 0.1


# ------------------------------------------------------------------------------------------------ mib's old model


def test_mibs_old_model_is_the_network_before_growth_and_does_not_change_during_the_step() -> None:
    class Watch(SupervisedPlugin):
        def __init__(self) -> None:
            super().__init__()
            self.states: dict[int, list[dict[str, Tensor]]] = {1: [], 2: []}

        def after_update(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
            method = strategy.method
            assert isinstance(method, Mib)
            assert not any(m.training for m in method.old.modules())
            assert not any(p.requires_grad for p in method.old.parameters())
            self.states[strategy.experience.data.step].append(copy.deepcopy(method.old.state_dict()))

    watch = Watch()
    done = run("mib", [watch])
    for step in (1, 2):
        assert len(watch.states[step]) == BATCHES[step - 1]
        assert all(equal(state, done.weights[step - 1]) for state in watch.states[step])
        assert not equal(done.weights[step - 1], done.weights[step])


def test_mibs_new_outputs_share_the_backgrounds_probability_when_a_step_starts() -> None:
    done = plain("mib")
    names = [n for n, _ in done.template.network.named_parameters()]
    for step in (1, 2):
        start = dict(zip(names, done.of(step)[0].parameters, strict=True))
        weight, bias = (done.weights[step - 1][f"head.{k}"].double().numpy() for k in ("weight", "bias"))
        expected = reference.mib_init(weight, bias, len(LEARNED[step]))
        np.testing.assert_allclose(start["head.weight"].numpy(), expected[0], rtol=1e-6)
        np.testing.assert_allclose(start["head.bias"].numpy(), expected[1], rtol=1e-5, atol=1e-6)
