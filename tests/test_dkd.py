"""DKD: its terms against loops over pixels and cells, its head, its rule of prediction, void as a negative."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import asdict
from decimal import Decimal, localcontext
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from kept_networks import kept
from torch import Tensor, nn
from toy import arrivals, benchmark, equal, make

import bench
from bench.train.network_file import write_network
from strategies.dkd import Dkd, DkdParameters, parts, start_as_auxiliary
from strategies.dkd_m import DkdM, DkdMParameters
from strategies.learning.evaluation import best_classes
from strategies.learning.losses import BaseLoss
from strategies.learning.offline import OfflineTemplate
from strategies.networks.build import build_network
from strategies.networks.heads import AuxiliaryHead, LinearHead, StepwiseAuxiliaryHead
from strategies.networks.network import SegmentationNetwork

VOID = 255
EXACT = {"rtol": 1e-10, "atol": 1e-10}
SHAPES = ((2, 5, 7), (1, 4, 6), (1, 1, 1))
"""Odd sides, one image, one pixel."""
LABELS_ALONE = DkdParameters(positive_weight=3.0, **dict.fromkeys(
    ("distillation_weight", "positive_part_weight", "negative_part_weight"), 0.0
))  # fmt: skip
UNLIKE = DkdParameters(2.0, 35.0, 2.0, 3.0, 7.0)
"""No two weights are alike."""


def sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z))


def bce(z: float, q: float) -> float:
    return -q * math.log(sigmoid(z)) - (1 - q) * math.log(sigmoid(-z))


# ------------------------------------------------------------------------------------------------- its terms


class Batch:
    """A mini-batch as a method sees it: an old network with two classes and the same with `new` ones more."""

    void_is_negative = False

    @property
    def is_memory(self) -> Tensor:
        """The last image is one, where there are two."""
        return torch.arange(len(self.mb_y)) > 0

    experience = SimpleNamespace(annotates_all_seen=False)

    def __init__(self, shape: tuple[int, int, int], new: int, void: str) -> None:
        rng = np.random.default_rng([*shape, new])
        torch.manual_seed(int(rng.integers(1000)))
        images, *size = shape
        cells = nn.Conv2d(3, 4, 2, stride=2, padding=1)  # features of both signs
        self.network = SegmentationNetwork(cells, AuxiliaryHead(4, 3)).double()
        self.old = copy.deepcopy(self.network)
        self.network.grow(new)
        with torch.no_grad():
            for parameter in self.network.parameters():
                parameter += 0.5 * torch.randn_like(parameter)
        self.mb_x = torch.randn(images, 3, *size).double()
        labels = rng.choice([0, *range(3, 3 + new)], shape)
        if void != "none":
            labels[rng.random(shape) < {"some": 0.3, "all": 1.1}[void]] = VOID
        self.mb_y = torch.tensor(labels)

    def loss(self, parameters: DkdParameters, void_is_negative: bool, kind: type[Dkd] = Dkd) -> Tensor:
        self.void_is_negative = void_is_negative
        method = kind(parameters, 0, np.random.default_rng(0))
        method.old = self.old
        method.before_training_exp(self)
        self.mb_output = self.network(self.mb_x)
        loss = method.loss(self)
        Dkd.after_training_exp(method, self)
        assert not self.network.head._forward_hooks
        return loss

    def expected(self, p: DkdParameters, void_is_negative: bool) -> float:
        """The loss, pixel by pixel and cell by cell."""
        pixels = list(self.of_pixels())
        total = math.fsum(self.of_labels(z, y, p) for z, _, y in pixels if void_is_negative or y != VOID)
        total += p.distillation_weight * math.fsum(bce(z[c], sigmoid(old[c])) for z, old, _ in pixels for c in (1, 2))
        cells = list(self.of_cells())
        of_parts = [0.0, 0.0]
        for (w, f), (old_w, old_f) in cells:
            for c, sign in product((1, 2), (0, 1)):
                z, old = (part(*each, sign) for each in ((w[c], f), (old_w[c], old_f)))
                of_parts[sign] += bce(z, sigmoid(old))
        weights = p.positive_part_weight, p.negative_part_weight
        return total / len(pixels) + sum(w * each / len(cells) for w, each in zip(weights, of_parts, strict=True))

    @staticmethod
    def of_labels(z: list[float], y: int, p: DkdParameters) -> float:
        classes = (p.positive_weight * bce(z[c], 1) if y == c else bce(z[c], 0) for c in range(3, len(z)))
        return bce(z[0], 0) + sum(classes)

    def of_pixels(self) -> Iterator[tuple[list[float], list[float], int]]:
        logits, old = (network(self.mb_x).detach() for network in (self.network, self.old))
        for b, i, j in np.ndindex(*self.mb_y.shape):
            yield logits[b, :, i, j].tolist(), old[b, :, i, j].tolist(), int(self.mb_y[b, i, j])

    def of_cells(self) -> Iterator[Any]:
        """Weights and features of both networks in each cell."""
        both = [(n.head.weight.tolist(), n.features(self.mb_x).detach()) for n in (self.network, self.old)]
        for b, i, j in np.ndindex(both[0][1].shape[0], *both[0][1].shape[2:]):
            yield [(weight, features[b, :, i, j].tolist()) for weight, features in both]


def part(weight: list[float], features: list[float], sign: int) -> float:
    """z+ (0) or z- (1) in a cell."""
    chosen = [w if (w > 0) == (sign == 0) else 0.0 for w in weight]
    return math.fsum(w * f for w, f in zip(chosen, features, strict=True))


@pytest.mark.parametrize("void_is_negative", [False, True])
@pytest.mark.parametrize("void", ["none", "some", "all"])
def test_the_loss_is_that_of_loops_over_pixels_and_cells(void: str, void_is_negative: bool) -> None:
    for shape, new, p in product(SHAPES, (1, 3), (DkdParameters(), UNLIKE, LABELS_ALONE)):
        batch = Batch(shape, new, void)
        expected = torch.tensor(batch.expected(p, void_is_negative), dtype=torch.float64)
        torch.testing.assert_close(batch.loss(p, void_is_negative), expected, **EXACT)


@pytest.mark.parametrize("void_is_negative", [False, True])
def test_labels_of_old_classes_are_their_own_on_images_from_memory_and_negatives_of_the_new_ones(
    void_is_negative: bool,
) -> None:
    """In `sequential`, where every image tells old classes, they are on all, less what memory has erased."""
    batch = Batch((2, 5, 7), 2, "some")
    without = batch.loss(UNLIKE, void_is_negative)
    batch.mb_y[batch.mb_y == 0] = 1 + torch.arange(int((batch.mb_y == 0).sum())) % 2
    erased = DkdMParameters(**asdict(UNLIKE), replayed="erased")
    for kind, parameters in ((Dkd, UNLIKE), (DkdM, erased)):
        assert torch.equal(batch.loss(parameters, void_is_negative, kind), without)
    pixels = list(batch.of_pixels())
    of_incoming, of_memory = (
        math.fsum(
            35.0 * bce(z[c], 1) if y == c else bce(z[c], 0)
            for z, _, y in of_image
            for c in (1, 2)
            if void_is_negative or y != VOID
        )
        for of_image in (pixels[: 5 * 7], pixels[5 * 7 :])
    )
    corrected = DkdMParameters(**asdict(UNLIKE))
    found = batch.loss(corrected, void_is_negative, DkdM)
    torch.testing.assert_close(found, without + of_memory / (2 * 5 * 7), **EXACT)
    batch.experience = SimpleNamespace(annotates_all_seen=True)
    for kind, parameters, of_all in (
        (Dkd, UNLIKE, of_incoming + of_memory),
        (DkdM, corrected, of_incoming + of_memory),
        (DkdM, erased, of_incoming),
    ):
        found = batch.loss(parameters, void_is_negative, kind)
        torch.testing.assert_close(found, without + of_all / (2 * 5 * 7), **EXACT)


@pytest.mark.parametrize("void_is_negative", [False, True])
@pytest.mark.parametrize("void", ["none", "some", "all"])
def test_the_base_loss_is_that_of_a_loop_over_the_pixels_that_count(void: str, void_is_negative: bool) -> None:
    for shape, weight in product(SHAPES, (1.0, 2.0, 35.0)):
        batch = Batch(shape, 3, void)
        logits = batch.network(batch.mb_x).detach()
        loss = BaseLoss(Dkd.recipe(DkdParameters(base_positive_weight=weight)), void_is_negative)
        counted = [(z, y) for z, _, y in batch.of_pixels() if void_is_negative or y != VOID]
        total = math.fsum(
            bce(z[0], 0) + sum(weight * bce(z[c], 1) if y == c else bce(z[c], 0) for c in range(1, len(z)))
            for z, y in counted
        )
        expected = torch.tensor(total / max(1, len(counted)), dtype=torch.float64)
        torch.testing.assert_close(loss(logits, batch.mb_y), expected, **EXACT)
        assert int(loss.pixels(batch.mb_y)) == len(counted)


def test_the_parts_and_the_bias_add_up_to_the_logit() -> None:
    torch.manual_seed(0)
    head, features = LinearHead(64, 7), torch.randn(2, 64, 5, 3)
    raising, lowering = parts(features.abs(), head.weight)
    assert (raising >= 0).all() and (lowering <= 0).all() and raising.any() and lowering.any()
    raising, lowering = parts(features, head.weight)
    torch.testing.assert_close(raising + lowering + head.bias[:, None, None], head(features), rtol=0, atol=1e-6)


# -------------------------------------------------------------------------------------------------- its head


def heads() -> list[AuxiliaryHead | StepwiseAuxiliaryHead]:
    torch.manual_seed(1)
    head = AuxiliaryHead(6, 4)
    stepwise = copy.deepcopy(head).stepwise()
    assert isinstance(stepwise, StepwiseAuxiliaryHead)
    return [head, stepwise]


def test_no_gradient_goes_from_the_auxiliary_output_into_the_features() -> None:
    for head in heads():
        features = torch.randn(2, 6, 3, 3, requires_grad=True)
        logits = head(features)
        torch.autograd.backward(logits[:, 0].square().mean(), retain_graph=True)
        assert features.grad is None or not features.grad.any()
        gradients = [parameter.grad for parameter in head.parameters() if parameter.numel()]
        assert all(g is not None and g[0].any() and not g[1:].any() for g in gradients)
        torch.autograd.backward(logits[:, 1:].square().mean())
        assert features.grad is not None and features.grad.any()


def test_an_auxiliary_head_in_steps_computes_grows_and_is_saved_as_one_of_a_piece() -> None:
    features, (head, stepwise) = torch.randn(2, 6, 3, 4), heads()
    for new in (2, 1):
        for each in (head, stepwise):
            torch.manual_seed(new)
            each.grow(new)
            start_as_auxiliary(each, new)
        assert torch.equal(head(features), stepwise(features)) and head.outputs == stepwise.outputs
        assert equal(head.state_dict(), stepwise.state_dict())
        assert {p for name, _ in stepwise.named_parameters() if (p := stepwise.part_of(name)) == "new"}
    assert [len(p) for p in stepwise.parameters()] == [6, 1, 6, 1]


def test_new_classifiers_begin_as_the_auxiliary_one_and_the_others_stay() -> None:
    for head in heads():
        before = {name: tensor.clone() for name, tensor in head.state_dict().items()}
        head.grow(2)
        start_as_auxiliary(head, 2)
        for name, tensor in head.state_dict().items():
            assert torch.equal(tensor[:4], before[name]) and len(tensor) == 6
            assert torch.equal(tensor[4], before[name][0]) and torch.equal(tensor[5], before[name][0])


# -------------------------------------------------------------------------------------------------- prediction


def predicted(logits: list[float]) -> int:
    """The class of the largest sigmoid if that is above 1/2, else the background, to fifty digits."""
    with localcontext() as context:
        context.prec = 50
        sigmoids = [1 / (1 + (-Decimal(z)).exp()) for z in logits[1:]]
        largest = max(sigmoids)
        return 1 + sigmoids.index(largest) if largest > Decimal("0.5") else 0


def test_the_prediction_is_the_class_of_the_largest_sigmoid_above_a_half() -> None:
    """Where it is 1/2 it is the background; sigmoids that are 1 or 0 in float32 are told apart."""
    torch.manual_seed(0)
    logits = torch.randn(1, 4, 20, 20) - 0.5
    edges = [(9, 0, -1, -2), (9, -1, -1, -1), (-9, 1e-6, 0, 0), (0, 40, 45, 42), (5, -45, -40, -42), (3, 2, 2, 1)]
    logits[0, :, 0, : len(edges)] = torch.tensor(edges, dtype=torch.float32).T
    [head, stepwise] = heads()
    labels = best_classes(head.scores(logits))
    assert torch.equal(labels, best_classes(stepwise.scores(logits)))
    assert labels[0, 0, : len(edges)].tolist() == [0, 0, 1, 2, 0, 1]
    for i, j in np.ndindex(20, 20):
        assert labels[0, i, j] == predicted(logits[0, :, i, j].tolist())
    assert set(labels.unique().tolist()) == {0, 1, 2, 3}


def test_a_kept_network_predicts_by_the_rule(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = build_network("small", 3, "auxiliary").eval()
    with torch.no_grad():
        network.head.bias -= network(torch.randn(1, 3, 32, 32)).mean((0, 2, 3))
        network.head.bias[0] += 100  # no score is the auxiliary's
    write_network(tmp_path / "n", kept(head="auxiliary", method="dkd"), network.state_dict(), {})
    segmenter = bench.load(tmp_path / "n")
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    labels, ids = segmenter.predict(pixels), segmenter.kept.classes
    seen = torch.from_numpy(pixels.transpose(2, 0, 1)).float() / 255
    mean, deviation = (torch.tensor(each)[:, None, None] for each in segmenter.kept.normalisation)
    with torch.no_grad():
        logits = network(((seen - mean) / deviation)[None])[0].double()
    clear = logits.abs().amin(0) > 1e-4
    for i, j in np.argwhere(clear.numpy()):
        assert labels[i, j] == ids[predicted(logits[:, i, j].tolist())]
    assert len(np.unique(labels)) == 4


# ---------------------------------------------------------------------------------------------------- training

SETTINGS = ["protocol=offline", "memory.size=0", "incremental.epochs=2", "incremental.batch_size=4"]
PRESET = [
    *SETTINGS,
    "incremental.lr=0.001",
    "incremental.optimizer=sgd",
    "incremental.weight_decay=0",
    "incremental.weight_decays={new: 0.5}",
    "incremental.batchnorm=frozen",
    "data.void=negative",
]


def test_the_steps_begin_with_copies_of_the_auxiliary_and_decay_the_new_classifier_alone() -> None:
    template = make("dkd", settings=PRESET)
    template.begin(benchmark().train_stream[0])
    assert isinstance(template, OfflineTemplate) and template.void_is_negative
    starts: list[tuple[dict[str, Tensor], dict[str, float]]] = []

    def start() -> None:
        groups = [(group["weight_decay"], group["params"]) for group in template.optimizer.param_groups]
        head = dict(template.network.head.named_parameters())
        decays = {name: next(d for d, params in groups if any(p is q for q in params)) for name, p in head.items()}
        assert {d for d, params in groups if not any(p is q for q in params for p in head.values())} == {0.0}
        starts.append((copy.deepcopy(template.network.head.state_dict()), decays))

    template.start_step = start
    for t in (1, 2):
        template.train(benchmark().train_stream[t], eval_streams=[])
    assert [len(head["bias"]) for head, _ in starts] == [5, 7]
    for (head, decays), known in zip(starts, (4, 5), strict=True):
        for tensor in head.values():
            assert all(torch.equal(row, tensor[0]) for row in tensor[known:])
        assert decays == {"known_weight": 0.0, "known_bias": 0.0, "new_weight": 0.5, "new_bias": 0.5}
    assert not torch.equal(starts[1][0]["bias"][0], starts[0][0]["bias"][0])
    assert not template.network.head._forward_hooks


def test_void_moves_the_new_classifier_where_it_is_a_negative() -> None:
    """The first update of the new classifier with and without void pixels, by the gradients of its bias."""
    gradients: dict[str, list[Tensor]] = {"ignore": [], "background": [], "negative": []}
    for void, seen in gradients.items():
        template = make("dkd", settings=[*PRESET, f"data.void={void}", "incremental.epochs=1"])
        template.begin(benchmark().train_stream[0])
        labels = [benchmark().train_stream[1].data[i][1] for i in range(len(arrivals(1)))]
        assert any((each == VOID).any() for each in labels)
        images = [benchmark().train_stream[1].data[i][0] for i in range(len(labels))]
        strategy: Any = SimpleNamespace(
            network=template.network,
            mb_x=torch.stack(images),
            void_is_negative=void == "negative",
            experience=benchmark().train_stream[1],
        )
        strategy.mb_y = torch.stack(labels)
        if void == "background":
            strategy.mb_y = strategy.mb_y.masked_fill(strategy.mb_y == VOID, 0)
        template.method.grow(template, 1)
        template.method.before_training_exp(strategy)
        strategy.mb_output = template.network(strategy.mb_x)
        template.network.zero_grad()
        torch.autograd.backward(template.method.loss(strategy))
        seen.append(template.network.head.new_bias.grad.clone())
    [ignored], [background], [negative] = gradients.values()
    torch.testing.assert_close(negative, background)
    assert (negative - ignored).abs().max() > 1e-4
