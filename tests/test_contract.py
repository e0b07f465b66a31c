"""The online contract, for every built-in method: one update a batch, no image kept outside memory, known costs."""

from __future__ import annotations

import copy
import dataclasses
import gc
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor
from toy import (
    BATCH,
    BATCHES,
    GROUPS,
    VOID,
    Loads,
    Onlooker,
    Run,
    annotation,
    arrivals,
    benchmark,
    equal,
    full_label_map,
    id_by_content,
    make,
    run,
    statistics,
    train,
)

from bench.train.state import exemplars_of, packed, unpacked
from strategies.er import Er
from strategies.finetune import Finetune
from strategies.learning.arrivals import ArrivingImages, Holdings
from strategies.learning.evaluation import PixelMeter
from strategies.learning.faults import OnlineContractError
from strategies.learning.method import Method
from strategies.learning.registry import STRATEGIES, method_class
from strategies.learning.template import OnlineTemplate

MEMORY = 6
SETTINGS = (f"memory.size={MEMORY}",)

COSTS: dict[str, tuple[str, dict[str, Any], tuple[int, int, int]]] = {
    "finetune": ("finetune", {}, (1, 1, BATCH)),
    "er": ("er", {}, (1, 1, 2 * BATCH)),
    "ours": ("ours", {}, (1, 1, 2 * BATCH)),
    "ours, separate": ("ours", {"e_step": "separate"}, (2, 1, 4 * BATCH)),
    "ours, all off": (
        "ours",
        {"memory": "reservoir", "loss": "cross-entropy", "head": "linear", "sampling": "uniform"},
        (1, 1, 2 * BATCH),
    ),
    "mib": ("mib", {}, (2, 1, 4 * BATCH)),  # the update's pass and the old model's
    "lwf-mc": ("lwf-mc", {}, (2, 1, 4 * BATCH)),
    "agem": ("agem", {}, (2, 2, 2 * BATCH)),  # the incoming batch and the memory batch, each with its gradient
    "mir": ("mir", {}, (4, 2, BATCH + 2 * MEMORY + 2 * BATCH)),  # virtual step, candidates twice, the update
    "icarl": ("icarl", {}, (3, 1, 4 * BATCH + BATCH)),  # as lwf-mc, and the features of the incoming images
    "coriseg": ("coriseg", {}, (2, 1, 2 * BATCH + BATCH)),  # the old model sees the memory images alone
}
"""Forward passes, backward passes and images passed forward for an incoming batch of four."""

every_method = pytest.mark.parametrize(
    ("name", "parameters"), [(name, parameters) for name, parameters, _ in COSTS.values()], ids=COSTS
)


def test_these_tests_cover_every_built_in_method_that_goes_online() -> None:
    built_in = {n for n, point in STRATEGIES.entry_points().items() if point.value.startswith("strategies.")}
    online = {name for name in built_in if "online" in method_class(name).protocols}
    assert online == {name for name, _, _ in COSTS.values()}


DEFAULTS: dict[str, dict[str, Any]] = {
    "agem": {"unlabelled": "ignore"},
    "coriseg": {"unlabelled": "ignore", "distillation_weight": 1.0},
    "er": {"unlabelled": "ignore"},
    "finetune": {"unlabelled": "background"},
    "icarl": {},
    "joint": {"every_step": False},
    "lwf-mc": {},
    "mib": {"distillation_weight": 10.0},
    "mir": {"unlabelled": "ignore", "candidates": 50, "current_step": "include"},
    "ours": {
        **{"delta": 0.8, "gamma": 0.5, "eta": 1.0, "mu": 0.9, "tau": 12.0},  # the paper's, Sec. 4.2
        **{"memory": "cbes", "loss": "composite", "head": "cosine", "sampling": "dynamic", "e_step": "shared"},
        "unlabelled": "ignore",
    },
}


def test_the_defaults_are_those_of_the_papers_and_of_docs_methods() -> None:
    found = {name: dataclasses.asdict(method_class(name).Parameters()) for name in DEFAULTS}
    assert found == DEFAULTS


# ------------------------------------------------------------------------------------------------------- the costs


class Meter(SupervisedPlugin):
    """Reads the counters batch by batch; as the last plugin it reads them after the method's own hooks."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[int, int, int, int, int]] = []

    def _now(self, strategy: Any) -> tuple[int, int, int, int]:
        tally = strategy.network.tally
        return tally.passes, strategy.cost.backward_passes, tally.images, strategy.cost.updates

    def before_training_epoch(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        passes, _, images, _ = self._now(strategy)
        self.last = (passes, 0, images, 0)  # the step's own counters start at 0

    def after_training_iteration(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        now = self._now(strategy)
        passes, backward, images, updates = (b - a for a, b in zip(self.last, now, strict=True))
        self.rows.append((len(strategy.incoming()), passes, backward, images, updates))
        self.last = now


@cache
def metered(name: str, **parameters: Any) -> tuple[Run, Meter]:
    meter = Meter()
    return run(name, [meter], settings=SETTINGS, **parameters), meter


def alike(name: str, **parameters: Any) -> Run:
    """A run that tests share and must not change; the settings are the same for all methods."""
    return metered(name, **parameters)[0]


@pytest.mark.parametrize(("name", "parameters", "expected"), COSTS.values(), ids=COSTS)
def test_a_batch_costs_the_known_number_of_passes_and_images(
    name: str, parameters: dict[str, Any], expected: tuple[int, int, int]
) -> None:
    done, meter = metered(name, **parameters)
    assert [row[0] for row in meter.rows] == [4, 4, 2, 4, 4, 1]
    for incoming, passes, backward, images, updates in meter.rows:
        assert (passes, backward, updates) == (*expected[:2], 1)
        if incoming == BATCH:
            assert images == expected[2]
    for step in (1, 2):
        cost = done.costs[step]
        of_step = meter.rows[3 * (step - 1) : 3 * step]
        assert cost.incoming_batches == cost.updates == BATCHES[step - 1]
        assert cost.forward_passes == sum(row[1] for row in of_step)
        assert cost.backward_passes == sum(row[2] for row in of_step)
        assert cost.images == sum(row[3] for row in of_step)


def test_the_passes_counted_are_those_that_the_backbone_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted once more where nothing passes by: in the backbone itself, that of an old model or a virtual one too."""
    from strategies.networks.small import SmallBackbone

    made: list[int] = []
    forward = SmallBackbone.forward

    def counted(self: SmallBackbone, images: Tensor) -> Tensor:
        made.append(len(images))
        return forward(self, images)

    for name, parameters, expected in COSTS.values():
        template = make(name, settings=SETTINGS, **parameters)
        template.begin(benchmark().train_stream[0])
        monkeypatch.setattr(SmallBackbone, "forward", counted)
        made.clear()

        class Stop(SupervisedPlugin):
            def after_training_epoch(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
                monkeypatch.setattr(SmallBackbone, "forward", forward)

        template.plugins.append(Stop())
        template.train(benchmark().train_stream[1], eval_streams=[])
        assert len(made) == expected[0] * BATCHES[0] == template.cost.forward_passes, name
        assert sum(made) == template.cost.images, name


# ---------------------------------------------------------------------------------------- one update, nothing kept


@every_method
def test_a_built_in_method_keeps_the_contract(name: str, parameters: dict[str, Any]) -> None:
    done = alike(name, **parameters)
    for step in (1, 2):
        assert done.onlooker.optimizer_steps[step] == done.costs[step].updates == BATCHES[step - 1]
        came = [image_id for i in done.of(step) for image_id in i.incoming]
        assert sorted(came) == sorted(arrivals(step))
    assert done.template.method.kept() <= MEMORY


kept: list[Any] = []


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    """What a test's method has kept is no other test's, and the garbage of a batch is looked for among its own."""
    kept.clear()
    gc.freeze()
    yield
    gc.unfreeze()


WAYS: dict[str, Callable[[Any, Any], Any]] = {
    "in an attribute": lambda method, strategy: setattr(method, "last", strategy.mb_x),
    "in a list": lambda method, strategy: kept.append(strategy.mb_x),
    "as a view": lambda method, strategy: kept.append(strategy.mb_x[0]),
    "as another view": lambda method, strategy: kept.append(strategy.mb_x.flatten(1)),
    "as the whole mini-batch": lambda method, strategy: kept.append(list(strategy.mbatch)),
    "in a closure": lambda method, strategy: kept.append(lambda images=strategy.mb_x: images),
    "in a cycle": lambda method, strategy: kept.append([kept, {"images": strategy.mb_x}]),
    "on the network": lambda method, strategy: setattr(strategy.network, "last", (strategy.mb_x,)),
    "detached": lambda method, strategy: kept.append(strategy.mb_x.detach()),
    "detached, a part": lambda method, strategy: kept.append(strategy.mb_x.detach()[1:]),
    "as an array": lambda method, strategy: kept.append(strategy.mb_x.numpy()),
}
HOOKS = ("before_forward", "after_backward", "after_update", "after_training_iteration")


def keeper(kind: type[Method], way: str, hook: str) -> type[Method]:
    """A method that keeps the images of each batch in this way."""

    class Keeper(kind):
        pass

    def keeps(self: Any, strategy: Any, *args: Any, **kwargs: Any) -> Any:
        WAYS[way](self, strategy)
        return getattr(super(Keeper, self), hook)(strategy, *args, **kwargs)

    setattr(Keeper, hook, keeps)
    return Keeper


MESSAGE = r"step 1: Keeper keeps incoming images outside its memory; .* from the memory alone"


@pytest.mark.parametrize("kind", [Finetune, Er])
@pytest.mark.parametrize("way", WAYS)
def test_a_method_that_keeps_incoming_images_fails(way: str, kind: type[Method]) -> None:
    template = make(keeper(kind, way, "before_forward"))
    with pytest.raises(OnlineContractError, match=MESSAGE):
        train(template)
    assert template.cost.updates == 1  # at the next batch


@pytest.mark.parametrize("hook", ["before_training_iteration", *HOOKS])
def test_it_fails_whenever_the_images_are_taken(hook: str) -> None:
    with pytest.raises(OnlineContractError, match=MESSAGE):
        train(make(keeper(Er, "in a list", hook)))


def test_it_fails_for_the_last_batch_of_a_step_too() -> None:
    class Keeper(Finetune):
        def after_update(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
            if strategy.cost.updates == BATCHES[0]:
                kept.append(strategy.mb_x)

    template = make(Keeper)
    with pytest.raises(OnlineContractError, match=MESSAGE):
        train(template)
    assert template.cost.updates == BATCHES[0]


def test_a_method_may_keep_numbers_and_what_lies_in_a_cycle_that_nobody_holds() -> None:
    class Thrifty(Er):
        def after_update(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
            kept.append((strategy.mb_x.mean().item(), strategy.loss.item(), strategy.mb_output.detach().mean((2, 3))))
            cycle: list[Any] = [strategy.mb_x]
            cycle.append(cycle)

    assert train(make(Thrifty)).cost.updates == BATCHES[1]


@pytest.mark.parametrize("hook", HOOKS)
def test_a_second_step_of_the_optimiser_fails_at_its_batch(hook: str) -> None:
    class Greedy(Er):
        pass

    def again(self: Any, strategy: Any, *args: Any, **kwargs: Any) -> None:
        getattr(super(Greedy, self), hook)(strategy, *args, **kwargs)
        if strategy.cost.updates == (1 if hook in ("before_forward", "after_backward") else 2):
            strategy.optimizer.step()

    setattr(Greedy, hook, again)
    template = make(Greedy)
    with pytest.raises(OnlineContractError, match=r"step 1: 3 updates from 2 incoming batches; .* allows one each"):
        train(template)


def test_a_skipped_step_fails_at_its_batch() -> None:
    template = make("er")
    once = template.optimizer_step

    def sometimes(*args: Any, **kwargs: Any) -> None:
        if template.cost.updates == 0:
            once(*args, **kwargs)

    template.optimizer_step = sometimes
    with pytest.raises(OnlineContractError, match=r"step 1: 1 updates from 2 incoming batches; .* allows one each"):
        train(template)


# ------------------------------------------------------------------------------------ which images may be read again


class Hoarder(Finetune):
    """Keeps a reference to every image that it is given, tells of none, and replays the oldest first."""

    told: ClassVar[int] = 0

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.hoard: list[Any] = []
        self.read: set[Any] = set()

    def kept(self) -> int:
        return self.told

    def fill(self, strategy: OnlineTemplate, exemplars: list[Any], known_classes: int) -> None:
        self.hoard += exemplars

    def before_training_iteration(self, strategy: OnlineTemplate, *args: Any, **kwargs: Any) -> None:
        drawn = [self.hoard[(4 * strategy.cost.updates + i) % len(self.hoard)] for i in range(BATCH)]
        self.read |= set(drawn)
        strategy.join(strategy.load(drawn))

    def after_training_iteration(self, strategy: OnlineTemplate, *args: Any, **kwargs: Any) -> None:
        self.hoard += strategy.incoming()


@pytest.mark.parametrize(("told", "at_most"), [(0, 0), (2, 2), (MEMORY, MEMORY)])
def test_a_method_that_replays_more_images_than_it_tells_of_fails_when_it_reads_the_first_too_many(
    told: int, at_most: int
) -> None:
    class Modest(Hoarder):
        pass

    Modest.told = told
    template = make(Modest, settings=SETTINGS)
    message = rf"image train-\d+ of step 0: after batch 0 the memory had {told} images .*, and {at_most + 1} from until"
    with pytest.raises(OnlineContractError, match=message):
        train(template)
    method: Any = template.method
    assert len(method.read) <= BATCH * math.ceil((at_most + 1) / BATCH)


def test_a_memory_that_tells_of_more_images_than_it_may_have_fails_at_the_next_batch() -> None:
    class Open(Hoarder):
        def kept(self) -> int:
            return len(self.hoard)

    template = make(Open, settings=SETTINGS)
    message = rf"the memory has {len(arrivals(0))} images; memory.size allows {MEMORY}"
    with pytest.raises(OnlineContractError, match=message):
        train(template)
    assert template.cost.updates == 0


def test_a_memory_that_changes_wholly_between_batches_is_within_its_size() -> None:
    """Every image is replayed once, in the batch after the one that it came with: two are held at a time."""

    class Latest(Hoarder):
        told = 4

        def before_training_iteration(self, strategy: OnlineTemplate, *args: Any, **kwargs: Any) -> None:
            if len(self.hoard) > len(arrivals(0)):
                strategy.join(strategy.load(self.hoard[-BATCH:]))

    assert train(make(Latest, settings=["memory.size=4"])).cost.updates == BATCHES[1]


DOORS: dict[str, tuple[Callable[[Any, int], Any], str]] = {
    "the experience's data": (lambda s, i: s.experience.data.exemplar(i), "has not come by"),
    "an annotated image": (lambda s, i: s.experience.data.annotated(i), "has not come by"),
    "a sample": (lambda s, i: s.experience.data.sample(i, None, None), "has not come by"),
    "the data of an exemplar": (lambda s, i: s.incoming()[0].data.sample(i, None, None), "has not come by"),
    "the experience's data set": (lambda s, i: s.experience.dataset, "images are asked for"),
    "other batches": (lambda s, i: s.experience.data.batches(4), "asked for again"),
    "the data loader": (lambda s, i: next(iter(s.dataloader)), "passed over again"),
}


@pytest.mark.parametrize("door", DOORS)
def test_no_image_is_given_out_before_it_comes_by(door: str) -> None:
    ask, message = DOORS[door]

    class Curious(Er):
        def before_forward(self, strategy: OnlineTemplate, *args: Any, **kwargs: Any) -> None:
            if strategy.cost.updates == 0:
                ask(strategy, min({*range(10)} - set(strategy.mbatch[3].tolist())))

    with pytest.raises(OnlineContractError, match=message):
        train(make(Curious))


def test_an_experience_tells_its_classes_and_its_place_and_leads_to_no_other_images() -> None:
    class Reader(Finetune):
        def before_training_exp(self, strategy: OnlineTemplate, *args: Any, **kwargs: Any) -> None:
            seen, experience = strategy.experience, benchmark().train_stream[2]
            for name in ("current_experience", "classes_in_this_experience", "classes_seen_so_far", "future_classes"):
                assert getattr(seen, name) == getattr(experience, name)
            assert seen.origin_stream.name == "train"
            assert not hasattr(seen.origin_stream, "__getitem__")
            assert not hasattr(strategy.dataloader, "dataset")
            kept.append(seen.data.step)

    train(make(Reader), steps=[2])
    assert kept == [2]


def test_what_has_been_read_is_still_counted_after_a_checkpoint() -> None:
    """Three images are read before it, these and three others after it: six in all; a seventh is one too many."""
    holdings = Holdings(6)
    holdings.arrive(0, range(10))
    holdings.end_batch(6)
    for index in range(3):
        holdings.read(0, index)
    restored = Holdings(6)
    restored.load_state_dict(holdings.state_dict())
    for index in (0, 1, 2, 3, 4, 5):
        restored.read(0, index)
    restored.end_batch(6)
    restored.read(0, 5)
    assert not restored.has_come(1, 0)
    with pytest.raises(OnlineContractError, match=r"after batch 0 the memory had 6 images .*, and 7 from until then"):
        restored.read(0, 6)


@pytest.mark.parametrize(("kept", "batch"), [((1, 6), 0), ((6, 1), 1)])
def test_the_batch_after_which_the_memory_had_too_few_images_is_told(kept: tuple[int, int], batch: int) -> None:
    """Two images of batch 0 are read at batch 2, so both were held after the batches 0 and 1."""
    holdings = Holdings(6)
    holdings.arrive(0, range(2))
    for count in kept:
        holdings.end_batch(count)
    holdings.read(0, 0)
    with pytest.raises(OnlineContractError, match=rf"^after batch {batch} the memory had 1 images .*, and 2 from"):
        holdings.read(0, 1)


def test_what_is_asked_of_a_steps_images_reaches_them_as_it_is() -> None:
    images = SimpleNamespace(step=1, ids=("a", "b"), normalisation="by")
    images.sample = lambda *args, **options: (args, options)
    images.batches = lambda *args, **options: [(args, options)]
    holdings = Holdings(1)
    arriving = ArrivingImages(images, holdings)
    assert (arriving.ids, arriving.normalisation) == (("a", "b"), "by")
    holdings.arrive(1, [1])
    assert arriving.sample(1, "augmentation", again=True) == ((1, "augmentation"), {"again": True})
    assert list(arriving.batches(4, workers=2)) == [((4,), {"workers": 2})]


def test_no_image_of_an_evaluation_is_given_out() -> None:
    class Curious(Finetune):
        def predict(self, strategy: OnlineTemplate) -> Tensor:
            return strategy.experience.data.exemplar(0)

    with pytest.raises(OnlineContractError, match="has not come by"):
        make(Curious, [PixelMeter()]).eval(benchmark().test_stream[0])


# --------------------------------------------------------------------------------------- what is read of an image


def annotated_by(template: OnlineTemplate, loads: Loads) -> list[tuple[str, int, np.ndarray]]:
    """Every exemplar that a method loads or inspects, with the annotation it is given."""
    given: list[tuple[str, int, np.ndarray]] = []
    loads.watch(template)
    inspected = template.inspected

    def watched(exemplars: Any) -> Any:
        for chunk, images, labels in inspected(exemplars):
            for e, image, annotated in zip(chunk, images, labels, strict=True):
                assert id_by_content()[image.contiguous().numpy().tobytes()] == (e.image_id, False)
                given.append((e.image_id, e.step, annotated.numpy()))
            yield chunk, images, labels

    template.inspected = watched
    return given


@every_method
def test_every_image_is_read_with_the_annotation_it_arrived_with(name: str, parameters: dict[str, Any]) -> None:
    onlooker, loads = Onlooker(), Loads()
    template = make(name, [onlooker], settings=["memory.size=12"], **parameters)
    given = annotated_by(template, loads)
    train(template)
    for exemplars, (images, labels, steps, indices) in loads.batches:
        for e, image, annotated, step in zip(exemplars, images, labels, steps.tolist(), strict=True):
            assert id_by_content()[image.contiguous().numpy().tobytes()] == (e.image_id, False)
            assert step == e.step
            given.append((e.image_id, step, annotated.numpy()))
        assert max(indices.tolist()) < 0
    if name == "finetune":
        assert given == []
        return
    hidden = 0
    for image_id, step, annotated in given:
        np.testing.assert_array_equal(annotated, annotation(image_id, step))
        full = set(np.unique(full_label_map(image_id)).tolist())
        hidden += any(full & set(GROUPS[s]) for s in range(3) if s != step)
    assert hidden > 0
    assert {step for _, step, _ in given} >= {0, 1}
    for iteration in onlooker.iterations:
        np.testing.assert_array_equal(iteration.labels, iteration.planted)
        assert set(np.unique(iteration.labels)) >= {0, VOID}


# ------------------------------------------------------------------------------------- what all methods have alike


def test_ours_with_all_its_parts_switched_off_is_er_number_for_number() -> None:
    off = alike("ours", **COSTS["ours, all off"][1])
    er = alike("er")
    for step in range(3):
        assert equal(off.weights[step], er.weights[step])
    assert [i.ids for i in off.iterations] == [i.ids for i in er.iterations]
    assert [i.loss for i in off.iterations] == [i.loss for i in er.iterations]


@pytest.mark.parametrize(
    "on", [{"memory": "cbes"}, {"loss": "composite"}, {"head": "cosine"}, {"sampling": "dynamic"}], ids=str
)
def test_each_part_of_ours_switched_on_makes_another_network(on: dict[str, Any]) -> None:
    part = alike("ours", **COSTS["ours, all off"][1] | on)
    assert not torch.equal(part.weights[2]["head.weight"], alike("er").weights[2]["head.weight"])


@every_method
def test_incoming_batches_and_initialisation_are_the_same_for_all_methods(
    name: str, parameters: dict[str, Any]
) -> None:
    done, finetune = alike(name, **parameters), alike("finetune")
    for mine, theirs in zip(done.iterations, finetune.iterations, strict=True):
        assert mine.incoming == theirs.incoming
        assert torch.equal(mine.images[: len(mine.incoming)], theirs.images)


@every_method
def test_batchnorm_moves_once_a_batch_and_evaluation_changes_nothing(name: str, parameters: dict[str, Any]) -> None:
    done = alike(name, **parameters)
    base, *after = (statistics(w) for w in done.weights)
    for key in base:
        if "num_batches" in key:
            assert [int(s[key] - base[key]) for s in after] == [3, 6]
    evaluated = run(name, evaluate=True, settings=SETTINGS, **parameters)
    assert equal(evaluated.weights[-1], done.weights[-1])


@every_method
def test_updates_are_sgd_with_momentum_on_the_gradient_the_method_leaves(name: str, parameters: dict[str, Any]) -> None:
    settings = ["incremental.lr=0.02", "incremental.momentum=0.7", "incremental.weight_decay=0.03", *SETTINGS]
    done = run(name, settings=settings, **parameters)
    for step in (1, 2):
        velocity: list[Tensor] = []
        for iteration in done.of(step):
            velocity = velocity or [torch.zeros_like(p) for p in iteration.parameters]
            rows = zip(velocity, iteration.parameters, iteration.gradients, strict=True)
            velocity = [0.7 * v + g + 0.03 * p for v, p, g in rows]
            for v, before, after in zip(velocity, iteration.parameters, iteration.parameters_after, strict=True):
                torch.testing.assert_close(after, before - 0.02 * v, rtol=1e-5, atol=1e-6)


# ------------------------------------------------------------------------------------------------------- going on


@pytest.mark.parametrize("name", ["finetune", "ours", "icarl", "coriseg"])
def test_a_template_that_takes_over_a_state_goes_on_as_the_one_that_gave_it(name: str) -> None:
    first = train(make(name, settings=SETTINGS), steps=(1,))
    state = copy.deepcopy(packed(first.state_dict()))
    random = torch.get_rng_state()
    images = benchmark().test_stream[2].data[0][0][None]
    predicted = first.predicted(images)
    train(first, steps=(2,), fill=False)

    torch.manual_seed(99)
    second = make(name, settings=SETTINGS)
    find = exemplars_of(benchmark())
    second.load_state_dict(unpacked(state, lambda *place: second.watched(find(*place))))
    assert torch.equal(torch.get_rng_state(), random)
    assert second.network.outputs == 5  # the background, three classes of the base step, one of step 1
    assert torch.equal(second.predicted(images), predicted)
    train(second, steps=(2,), fill=False)
    assert equal(first.network.state_dict(), second.network.state_dict())
    assert first.method.kept() == second.method.kept() and first.method.memory_bytes() == second.method.memory_bytes()
    assert torch.equal(first.predicted(images), second.predicted(images))


# ------------------------------------------------------------------------------------------ images of several sizes


@dataclass(frozen=True)
class Sized:
    """An exemplar with an image of a size of its own, its first pixel the exemplar's number."""

    number: int
    side: int

    def load(self, augmentation: Any, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        assert augmentation is None
        return torch.full((3, self.side, 8), float(self.number)), torch.full((self.side, 8), self.number)


def test_images_are_inspected_in_order_those_of_one_size_together_up_to_the_evaluations_batch() -> None:
    template = make("er", settings=["evaluation.batch_size=3"])
    exemplars: Any = [Sized(n, side) for n, side in enumerate((8, 8, 8, 8, 16, 8, 8))]
    batches = list(template.inspected(exemplars))
    assert [[e.number for e in chunk] for chunk, _, _ in batches] == [[0, 1, 2], [3], [4], [5], [6]]
    for chunk, images, labels in batches:
        assert images[:, 0, 0, 0].tolist() == labels[:, 0, 0].tolist() == [e.number for e in chunk]
        assert images.shape[2] == labels.shape[1] == chunk[0].side
