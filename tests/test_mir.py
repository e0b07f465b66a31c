"""MIR against an exhaustive search: copies of the network really take the step and look at every candidate."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor, nn
from toy import BATCHES, VOID, Loads, Onlooker, annotation, arrivals, benchmark, make, mean_nll, rerun, told, train

from strategies import mir
from strategies.mir import interference
from strategies.networks.heads import LinearHead
from strategies.networks.network import SegmentationNetwork

LR = 0.05


# ------------------------------------------------------------------------------------------------ a case by hand


def stand_in(images: Tensor, labels: Tensor) -> Any:
    """A strategy with a classifier of zeros on the pixels themselves, two outputs, and a step of size 1."""
    network = SegmentationNetwork(nn.Identity(), LinearHead(3, 2))
    network.head.load_state_dict({"weight": torch.zeros(2, 3), "bias": torch.zeros(2)})

    def gradient(loss: Tensor) -> list[Tensor]:
        return list(torch.autograd.grad(loss, list(network.parameters())))

    return SimpleNamespace(
        network=network, mb_x=images, mb_y=labels, protocol=SimpleNamespace(lr=1.0), gradient=gradient
    )


def picture(first_channel: Sequence[float]) -> Tensor:
    image = torch.zeros(3, 2, 2)
    image[0] = torch.tensor(first_channel).view(2, 2)
    return image


def test_interference_by_hand_is_per_image_and_not_per_pixel() -> None:
    """The incoming image is four pixels (1, 0, 0) of class 1: p = 1/2, so the gradient of the weights and of the
    biases is 1/2 for output 0, -1/2 for output 1. After the step a pixel (v, 0, 0) has logits -+(v + 1) / 2.

    a: one pixel v = 1 of class 0, the others void: log(1 + e^2) - log 2 = 1.434.
    b: four pixels v = 0 of class 0: log(1 + e) - log 2 = 0.620 each, so that their sum, 2.480, is above a's.
    c: four pixels v = 0 of class 1: log(1 + 1/e) - log 2 = -0.380. d: nothing but void: 0.
    """
    strategy = stand_in(picture([1] * 4)[None], torch.ones(1, 2, 2, dtype=torch.long))
    images = torch.stack([picture(v) for v in ([1, 9, 9, 9], [0] * 4, [0] * 4, [5] * 4)])
    labels = torch.tensor([[0, VOID, VOID, VOID], [0] * 4, [1] * 4, [VOID] * 4]).view(4, 2, 2)
    rise = interference(strategy, strategy.mb_y, images, labels)
    assert rise.tolist() == pytest.approx([1.43378, 0.62011, -0.37989, 0.0], abs=1e-5)
    assert rise[3] == 0
    assert rise.argsort(descending=True).tolist() == [0, 1, 3, 2]


# ---------------------------------------------------------------------------------------------- exhaustive search


def image_nll(network: nn.Module, image: Tensor, labels: Tensor) -> np.ndarray:
    """-log p(label) of the image's non-void pixels, alone through the network."""
    with torch.no_grad():
        logits = network(image[None].double())[0].numpy()
    known = labels.numpy() != VOID
    scores = logits[:, known]
    return np.log(np.exp(scores).sum(0)) - scores[labels.numpy()[known], np.arange(known.sum())]


def exhaustive(
    network: SegmentationNetwork, incoming: Sequence[Tensor], candidates: Sequence[Tensor], lr: float = LR
) -> tuple[np.ndarray, np.ndarray]:
    """Each candidate's rise of the mean and of the summed pixel loss.

    The step's gradient is that of the update, with BatchNorm in the network's own mode; the candidates' passes are
    in eval mode with the statistics of before.
    """
    stepped, before = rerun(network, train=network.training), rerun(network, train=False)
    kept = copy.deepcopy(dict(stepped.named_buffers()))
    optimizer = torch.optim.SGD(stepped.parameters(), lr=lr)
    optimizer.zero_grad()
    torch.autograd.backward(mean_nll(stepped(incoming[0].double()), incoming[1]))
    optimizer.step()
    stepped.load_state_dict(kept, strict=False)
    stepped.eval()
    means, sums = [], []
    for image, labels in zip(*candidates[:2], strict=True):
        rise = image_nll(stepped, image, labels) - image_nll(before, image, labels)
        means.append(rise.mean() if len(rise) else 0.0)
        sums.append(rise.sum())
    return np.array(means), np.array(sums)


def known(batch: Sequence[Tensor]) -> list[Tensor]:
    """Its images, and the labels that the cross-entropy takes by default."""
    return [batch[0], torch.from_numpy(told(*batch[1:3]))]


def candidates_of(template: Any, step: int) -> tuple[list[Tensor], list[Tensor]]:
    """A batch of a step, and memory images of the base step with ever more of their pixels made void.

    In double precision, the network too: in single one a unit that is all but 0 may be on here and off there.
    """
    template.network.double()
    base = benchmark().train_stream[0].data
    incoming = next(iter(benchmark().train_stream[step].data.batches(4)))
    images, labels, steps, indices = template.load([base.exemplar(i) for i in range(8)])
    for i in range(8):
        places = (labels[i] != VOID).nonzero()
        hidden = places[torch.randperm(len(places), generator=torch.Generator().manual_seed(i))[: 25 * i]]
        labels[i, hidden[:, 0], hidden[:, 1]] = VOID
    labels[5] = VOID
    return [incoming[0].double(), *incoming[1:]], [images.double(), labels, steps, indices]


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_interference_equals_the_exhaustive_computation(mode: str) -> None:
    template = make("mir", settings=[f"incremental.lr={LR}", "incremental.weight_decay=0.5"])
    template.network.train(mode == "train")
    template.network.grow(1)
    incoming, candidates = candidates_of(template, 1)
    template.mbatch = incoming
    rise = interference(template, incoming[1], *candidates[:2]).numpy()
    means, sums = exhaustive(template.network, incoming, candidates)
    np.testing.assert_allclose(rise, means, rtol=1e-6, atol=1e-9)
    assert rise[5] == 0
    assert means.argsort().tolist() != sums.argsort().tolist()  # images and pixels rank differently here
    assert np.abs(means[[0, 1, 2, 3, 4, 6, 7]]).min() > 0


@pytest.mark.parametrize(("limit", "parts"), [(8, [8]), (7.9, [4, 4]), (3, [3, 3, 2]), (0, [1] * 8)])
def test_candidates_are_passed_in_parts_whose_logits_are_bounded(
    limit: float, parts: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    template = make("mir", settings=[f"incremental.lr={LR}"])
    template.network.train()
    template.network.grow(1)
    incoming, (images, labels, *_) = candidates_of(template, 1)
    template.mbatch, network = incoming, template.network
    whole = interference(template, incoming[1], images, labels)
    monkeypatch.setattr(mir, "LOGITS", {"cpu": int(limit * network.outputs * labels[0].numel())})
    sizes, before = [], network.tally.passes
    network.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
    torch.testing.assert_close(interference(template, incoming[1], images, labels), whole, rtol=1e-4, atol=1e-6)
    assert sizes == [len(incoming[0]), *parts, *parts]
    assert network.tally.passes - before == 3


# -------------------------------------------------------------------------------------------------- on the stream


def state(strategy: Any) -> dict[str, Any]:
    """Everything that a look-ahead must leave alone, copied."""
    network = strategy.network
    return copy.deepcopy(
        {
            "weights": dict(network.state_dict()),
            "gradients": {n: p.grad for n, p in network.named_parameters()},
            "optimizer": strategy.optimizer.state_dict(),
            "modes": [(m.training, getattr(m, "track_running_stats", None)) for m in network.modules()],
        }
    )


def assert_same(one: Any, other: Any) -> None:
    """Equal bit for bit, through dicts and lists."""
    if isinstance(one, Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_same(a, b)
    else:
        assert one == other


class LookAhead(SupervisedPlugin):
    """Takes down the state when candidates are loaded and when the look-ahead is over."""

    def __init__(self, template: Any = None) -> None:
        super().__init__()
        self.started: list[Any] = []
        self.ended: list[Any] = []
        self.networks: list[SegmentationNetwork] = []
        self.joined: list[list[Tensor]] = []

    def watch(self, template: Any) -> None:
        load = template.load

        def loading(exemplars: Any) -> Any:
            self.started.append(state(template))
            self.networks.append(copy.deepcopy(template.network))
            return load(exemplars)

        template.load = loading

    def before_training_iteration(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        self.ended.append(state(strategy))
        self.joined.append([part.clone() for part in strategy.mbatch])


SETTINGS = [f"incremental.lr={LR}", "data.flip=true", "memory.size=12", "incremental.momentum=0.5"]


@cache
def observed() -> tuple[LookAhead, Loads, Any]:
    look, loads = LookAhead(), Loads()
    template = make("mir", [look], settings=SETTINGS, candidates=7)
    look.watch(loads.watch(template))
    return look, loads, train(template)


def test_the_look_ahead_leaves_everything_as_it_is_bit_for_bit() -> None:
    look, _, _ = observed()
    assert len(look.started) == len(look.ended) == sum(BATCHES)
    assert any(g is not None for g in look.started[-1]["gradients"].values())
    assert look.started[-1]["optimizer"]["state"]
    for before, after in zip(look.started, look.ended, strict=True):
        assert_same(before, after)


def test_the_images_joined_are_the_most_interfered_of_exactly_the_candidates_drawn() -> None:
    look, loads, _ = observed()
    by_another_rule = 0
    for network, (exemplars, candidates), joined in zip(look.networks, loads.batches, look.joined, strict=True):
        count = len(joined[0]) // 2
        assert len(exemplars) == len({id(e) for e in exemplars}) == len(candidates[0]) == 7
        incoming = [part[:count] for part in joined]
        means, _ = exhaustive(network, known(incoming), known(candidates))
        best = np.argsort(-means)[:count]
        found = [
            next(i for i in range(7) if torch.equal(candidates[0][i], image) and torch.equal(candidates[1][i], labels))
            for image, labels in zip(joined[0][count:], joined[1][count:], strict=True)
        ]
        assert set(found) == set(best.tolist())
        assert joined[2][count:].tolist() == [exemplars[i].step for i in found]
        assert joined[3][count:].tolist() == [~i for i in found]
        by_another_rule += any(
            set(np.argsort(other)[:count]) != set(best) for other in (means, -np.abs(means), np.arange(7))
        )
    assert by_another_rule >= 4


def test_candidates_carry_the_annotations_they_arrived_with() -> None:
    loads = Loads()
    train(loads.watch(make("mir")))
    assert {e.step for exemplars, _ in loads.batches for e in exemplars} == {0, 1, 2}
    for exemplars, (_, labels, steps, _) in loads.batches:
        for exemplar, annotated, step in zip(exemplars, labels, steps.tolist(), strict=True):
            assert step == exemplar.step
            np.testing.assert_array_equal(annotated.numpy(), annotation(exemplar.image_id, step))


def test_candidates_are_fresh_draws_that_come_from_the_whole_memory() -> None:
    """Nothing leaves this memory, so that only the draws differ."""
    loads = Loads()
    template = train(loads.watch(make("mir", candidates=7)))
    drawn = [{(e.image_id, e.step) for e in exemplars} for exemplars, _ in loads.batches]
    assert [len(d) for d in drawn] == [7] * sum(BATCHES)
    assert len(set(map(frozenset, drawn))) == len(drawn)
    assert len(set().union(*drawn)) > 0.6 * template.method.kept() > 14


def test_no_copy_of_the_network_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    template = make("mir")
    template.begin(benchmark().train_stream[0])

    def forbidden(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("a network was copied")

    monkeypatch.setattr(SegmentationNetwork, "__deepcopy__", forbidden, raising=False)
    monkeypatch.setattr(SegmentationNetwork, "__copy__", forbidden, raising=False)
    monkeypatch.setattr(nn.Module, "load_state_dict", forbidden)
    with pytest.raises(AssertionError, match="copied"):
        copy.deepcopy(template.network)
    train(template, fill=False)
    assert template.cost.updates == BATCHES[1]


def test_images_of_the_current_step_are_candidates_unless_they_are_left_out() -> None:
    drawn = {}
    for way in ("include", "exclude"):
        onlooker, loads = Onlooker(), Loads()
        train(loads.watch(make("mir", [onlooker], settings=SETTINGS, current_step=way)))
        steps = [iteration.step for iteration in onlooker.iterations]
        drawn[way] = {(t, e.step) for t, (exemplars, _) in zip(steps, loads.batches, strict=True) for e in exemplars}
        assert all(len(e) == 12 for e, _ in loads.batches) == (way == "include")  # all that the memory holds
    assert drawn["include"] == {(1, 0), (1, 1), (2, 0), (2, 1), (2, 2)}
    assert drawn["exclude"] == {(1, 0), (2, 0), (2, 1)}


@pytest.mark.parametrize(
    ("memory", "candidates", "joined"),
    [(3, 50, [3, 3, 2, 3, 3, 1]), (60, 2, [2, 2, 2, 2, 2, 1]), (60, 50, [4, 4, 2, 4, 4, 1])],
)
def test_as_many_join_as_are_incoming_or_else_all_that_there_are(
    memory: int, candidates: int, joined: list[int]
) -> None:
    onlooker, loads = Onlooker(), Loads()
    template = make("mir", [onlooker], settings=[f"memory.size={memory}"], candidates=candidates)
    train(loads.watch(template))
    assert [len(i.replayed) for i in onlooker.iterations] == joined
    assert {len(exemplars) for exemplars, _ in loads.batches[:1]} == {min(memory, candidates, len(arrivals(0)))}
    for iteration in onlooker.iterations:
        np.testing.assert_array_equal(iteration.labels, iteration.planted)


def test_nothing_joins_from_an_empty_memory() -> None:
    onlooker = Onlooker()
    template = make("mir", [onlooker])
    method: Any = template.method
    method.memory.offer = lambda *_: None
    train(template, steps=[1], fill=False)
    assert [len(i.images) for i in onlooker.iterations] == [4, 4, 2]
    assert template.cost.forward_passes == BATCHES[0]
