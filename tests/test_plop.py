"""PLOP's terms against slow derivations: thresholds, pseudo labels, local POD, and a step's first loss by hand."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from avalanche.core import SupervisedPlugin
from test_offline_methods import WITHOUT_MEMORY, Losses, template_of, train
from test_sequential import sequential
from torch import Tensor
from toy import benchmark, make

from strategies.learning.local_pod import local_pod, with_new_as_background
from strategies.learning.offline_losses import weighed_cross_entropy
from strategies.learning.pseudo_labels import (
    ThresholdRule,
    Uncertainty,
    UncertaintyCounts,
    medians,
    pseudo_labels,
    published_threshold,
)
from strategies.networks.network import SegmentationNetwork
from strategies.plop import Plop

VOID = 255
RULES: tuple[ThresholdRule, ...] = ("published", "median")
SIZES = ((2, 5, 7), (1, 4, 4), (1, 1, 1))
"""Images, height, width: odd sides, one image, one pixel."""
EXACT = {"rtol": 1e-9, "atol": 1e-12}


def numbers(*shape: int, seed: int = 0, spread: float = 3.0) -> Tensor:
    return torch.tensor(np.random.default_rng([seed, *shape]).normal(0, spread, shape))


def label_map(size: Sequence[int], old: int, outputs: int, kind: str) -> Tensor:
    """Labels of a step whose classes are the outputs from `old` on."""
    rng = np.random.default_rng([*size, old, outputs])
    labels = rng.choice([0, 0, *range(old, outputs)], size)
    if kind == "no background":
        labels[labels == 0] = old
    labels[rng.random(size) < {"some": 0.3, "all": 1.1}.get(kind, 0)] = VOID
    return torch.tensor(labels)


def uncertainty_by_hand(z: Sequence[float], outputs: int, rule: str) -> tuple[float, int]:
    """Of one pixel with old logits z: the entropy in the rule's measure, and the likeliest output."""
    total = math.fsum(math.exp(x) for x in z)
    p = [math.exp(x) / total for x in z]
    of_each = [-x * math.log(x + 1e-8) for x in p]
    mean_or_sum = math.fsum(of_each) / (len(z) if rule == "published" else 1)
    over = math.log(len(z)) * (math.log(outputs) if rule == "published" else 1)
    return max(0.0, mean_or_sum / over), p.index(max(p))


# --------------------------------------------------------------------------------------------------- thresholds


def published_by_hand(counts: Sequence[int]) -> float:
    """Bin by bin: the first b with half <= 0 + 1 + ... + (b - 1) + count(b)."""
    half = sum(counts) / 2
    if not half:
        return 0.001
    for b in range(100):
        numbers_before = sum(range(b))
        if half <= numbers_before + counts[b]:
            return max(0.001, (b + ((half - numbers_before) / counts[b] if counts[b] else 0)) / 100)
    return math.inf


def is_threshold(found: float, values: Sequence[float], rule: str) -> bool:
    """Whether it is the rule's for these uncertainties; the median is known to a bin of 20,000."""
    if rule == "published":
        return found == pytest.approx(published_by_hand(np.histogram(values, 100, (0, 1))[0].tolist()), rel=1e-3)
    shares = [np.mean([value < found + near for value in values]) if values else 0.5 for near in (-6e-5, 6e-5)]
    return shares[0] <= 0.5 <= shares[1] or (found == np.float32(0.001) and shares[1] >= 0.5)


def test_the_published_threshold_is_that_of_a_loop_over_bins() -> None:
    rng = np.random.default_rng(1)
    rows = [
        *([0] * 100, [1] + [0] * 99, [0] * 99 + [8], [100] * 100, [0, 6] + [0] * 98, [30000, 40000, 30000] + [0] * 97),
        *(rng.integers(0, most, 100).tolist() for most in (2, 5, 1000)),
        *(np.histogram(rng.beta(0.2, 9, n), 100, (0, 1))[0].tolist() for n in (10, 300, 10**6)),
    ]
    for row in rows:
        assert max(0.001, published_threshold(row)) == pytest.approx(published_by_hand(row), rel=1e-12), row
    assert published_threshold([30000, 40000, 30000] + [0] * 97) == math.inf  # all are accepted
    assert published_threshold([8, 2] + [0] * 98) == pytest.approx(0.005 / 0.8)  # whoever is surer than most


@pytest.mark.parametrize("rule", RULES)
def test_thresholds_come_from_the_background_pixels_of_each_likeliest_output(rule: ThresholdRule) -> None:
    """Of all passes together."""
    outputs, known, size = 4, 5, (2, 31, 17)
    uncertainty = Uncertainty(rule, outputs, known)
    seen = UncertaintyCounts(uncertainty, torch.device("cpu"))
    found: dict[int, list[float]] = {k: [] for k in range(outputs)}
    for seed in range(3):
        logits, labels = numbers(size[0], outputs, *size[1:], seed=seed, spread=4), label_map(size, 4, 5, "some")
        logits[:, 2] = -50  # never the likeliest
        logits[0, 3] += 40  # so sure that its entropy is 0 in float32
        seen.add(logits.float(), labels)
        for b, i, j in product(*map(range, size)):
            if labels[b, i, j] == 0:
                unsure, likeliest = uncertainty_by_hand(logits[b, :, i, j].tolist(), known, rule)
                found[likeliest].append(unsure)
    assert int(seen.counts.sum()) == sum(map(len, found.values()))
    thresholds = uncertainty.thresholds(seen.counts)
    assert thresholds[2] == torch.tensor(0.001)
    assert all(is_threshold(float(thresholds[k]), values, rule) for k, values in found.items())


def test_medians_lie_in_their_bin_by_the_share_of_its_pixels() -> None:
    counts = torch.tensor([[0, 4, 0, 0], [2, 0, 2, 0], [0, 0, 0, 0], [1, 1, 1, 5], [1, 0, 0, 8]])
    assert medians(counts).tolist() == pytest.approx([1.5 / 4, 1 / 4, 0, 3.2 / 4, (3 + 3.5 / 8) / 4])


def test_what_the_published_measure_makes_of_many_classes() -> None:
    """It is at most 1 / (O log K): below half a bin on ADE20K, where every background pixel is accepted."""
    for outputs, known in ((16, 17), (51, 101), (101, 151)):
        spread = torch.rand(2000, 1, 1, 1) * 8
        logits = torch.cat([torch.randn(2000, outputs, 1, 1) * spread, torch.zeros(1, outputs, 1, 1)])
        unsure, likeliest = Uncertainty("published", outputs, known).of(logits)
        most = 1 / (outputs * math.log(known))
        assert unsure.max() == pytest.approx(most, rel=1e-5) and unsure.min() >= 0
        in_the_first_bin = torch.zeros(outputs, 100, dtype=torch.int64).index_fill_(1, torch.tensor(0), 1000)
        thresholds = Uncertainty("published", outputs, known).thresholds(in_the_first_bin)
        assert thresholds.tolist() == pytest.approx([0.005] * outputs)
        labels = torch.zeros(2001, 1, 1, dtype=torch.int64)
        filled, shares = pseudo_labels(unsure, likeliest, labels, thresholds)
        if outputs > 50:
            assert torch.equal(filled, likeliest) and shares.min() > 0.99999
        else:
            assert (filled == VOID).any()


# ------------------------------------------------------------------------------------------------- cross-entropy


@pytest.mark.parametrize("kind", ["some", "none", "all", "no background"])
@pytest.mark.parametrize("rule", RULES)
def test_labels_factors_and_cross_entropy_are_those_of_a_loop_over_pixels(rule: ThresholdRule, kind: str) -> None:
    for (old, outputs), size in product(((2, 3), (3, 7), (16, 17)), SIZES):
        logits, old_logits = numbers(size[0], outputs, *size[1:]), numbers(size[0], old, *size[1:], seed=1)
        labels, thresholds = label_map(size, old, outputs, kind), torch.rand(old) * (0.04 if rule == "published" else 1)
        filled, shares = pseudo_labels(*Uncertainty(rule, old, outputs).of(old_logits), labels, thresholds)
        expected = 0.0
        for b in range(size[0]):
            background = accepted = 0
            nll = 0.0
            for i, j in product(*map(range, size[1:])):
                label = int(labels[b, i, j])
                if label == 0:
                    background += 1
                    unsure, likeliest = uncertainty_by_hand(old_logits[b, :, i, j].tolist(), outputs, rule)
                    label = likeliest if unsure < float(thresholds[likeliest]) else VOID
                    accepted += label != VOID
                assert int(filled[b, i, j]) == label
                if label != VOID:
                    z = logits[b, :, i, j].tolist()
                    nll += math.log(math.fsum(map(math.exp, z))) - z[label]
            share = accepted / (background + 1e-6)
            assert float(shares[b]) == pytest.approx(share, abs=1e-15)
            expected += share * nll / labels.numel()
        found = weighed_cross_entropy(logits, filled, shares)
        torch.testing.assert_close(float(found), expected, **EXACT)


def test_where_nothing_is_accepted_an_image_with_background_has_no_loss_at_all() -> None:
    """The factor is on its new classes too: PLOP's loss is exactly 0 there, and so without POD for every image."""
    old_logits, labels = numbers(2, 3, 5, 7), label_map((2, 5, 7), 3, 5, "some")
    unsure, likeliest = Uncertainty("published", 3, 5).of(old_logits)
    for thresholds, share in ((torch.zeros(3), 0.0), (torch.full((3,), math.inf), 1.0)):
        filled, shares = pseudo_labels(unsure, likeliest, labels, thresholds)
        assert shares.tolist() == pytest.approx([share] * 2, abs=1e-6) and (filled >= 3).any()
        assert (float(weighed_cross_entropy(numbers(2, 5, 5, 7), filled, shares)) == 0) == (share == 0)


# ----------------------------------------------------------------------------------------------------- local POD


def pod_by_hand(new: np.ndarray, old: np.ndarray) -> float:
    """Window by window, with every number of both vectors."""
    images, channels, height, width = new.shape
    norms = []
    for b in range(images):
        squares, changes = [], (new[b] ** 2 - old[b] ** 2).tolist()
        for s in (1, 2, 4):
            k = width // s
            for i, j in product(range(s), range(s)):
                rows, columns = range(i * k, min((i + 1) * k, height)), range(j * k, (j + 1) * k)
                if not rows or not columns:
                    continue
                for c in range(channels):
                    change = changes[c]
                    squares += [(sum(change[y][x] for x in columns) / len(columns)) ** 2 for y in rows]
                    squares += [(sum(change[y][x] for y in rows) / len(rows)) ** 2 for x in columns]
        norms.append(math.sqrt(math.fsum(squares)))
    return math.fsum(norms) / images


@pytest.mark.parametrize(
    "shape", [(2, 3, 8, 8), (1, 2, 9, 9), (2, 2, 6, 9), (1, 2, 3, 8), (2, 1, 9, 5), (1, 3, 2, 3), (1, 1, 1, 1)], ids=str
)
def test_local_pod_is_that_of_a_loop_over_windows(shape: tuple[int, ...]) -> None:
    """Square maps and others: windows follow the width, and have the rows that are there."""
    new, old = numbers(*shape), numbers(*shape, seed=1)
    found = local_pod(new, old)
    torch.testing.assert_close(float(found), pod_by_hand(new.numpy(), old.numpy()), **EXACT)
    order = torch.randperm(shape[1])
    torch.testing.assert_close(local_pod(new[:, order], old[:, order]), found, **EXACT)
    torch.testing.assert_close(local_pod(3 * new, 3 * old), 9 * found, **EXACT)
    same = old.clone().requires_grad_()
    nothing = local_pod(same, old)
    (gradient,) = torch.autograd.grad(nothing, same)
    assert nothing == 0 and not gradient.any()


@pytest.mark.parametrize(("height", "width", "lost"), [(8, 8, 0), (7, 7, 0), (4, 8, 0), (9, 8, 8), (1, 3, 0)], ids=str)
def test_cells_in_no_window_get_no_gradient(height: int, width: int, lost: int) -> None:
    maps = numbers(1, 1, height, width).requires_grad_()
    (gradient,) = torch.autograd.grad(local_pod(maps, numbers(1, 1, height, width, seed=1)), maps)
    assert int((gradient == 0).sum()) == lost


def test_new_outputs_are_added_to_the_background() -> None:
    logits = torch.arange(10.0).view(1, 5, 1, 2)
    assert with_new_as_background(logits, 3)[0, :, 0].tolist() == [[0 + 6 + 8, 1 + 7 + 9], [2, 3], [4, 5]]


# ---------------------------------------------------------------------------------------------- a step of the toy


def maps_by_hand(network: SegmentationNetwork, images: Tensor) -> list[Tensor]:
    """Of the network `small`: its stages' maps before their last ReLU, the features and the logits at their size."""
    backbone: Any = network.backbone
    stem = backbone.stem[1][1](backbone.stem[1][0](backbone.stem[0](images)))
    maps, x = [stem], stem.relu()
    for block in backbone.blocks:
        maps.append(block.second(block.first(x)) + block.skip(x))
        x = maps[-1].relu()
    context = backbone.pooled(x.mean((2, 3)))[:, :, None, None]
    features = (backbone.joined(torch.cat([backbone.near(x), backbone.wide(x)], 1)) + context).relu()
    return [*maps, features, network.head(features)]


@pytest.mark.parametrize("rule", RULES)
def test_the_first_update_has_plops_loss(rule: ThresholdRule) -> None:
    losses = Losses()
    template = template_of(Plop, losses, thresholds=rule, pod_factor=0.03, logits_factor=0.002)
    old = copy.deepcopy(template.network).eval()
    batches: list[Any] = []
    looked_over = template.looked_over
    template.looked_over = lambda: (batches.append(batch) or batch for batch in looked_over())
    train(template, 1)
    loss, images, labels, logits, _ = losses.seen[0]
    assert len(batches) == 3 and torch.equal(batches[0][0], images)

    found: dict[int, list[float]] = {k: [] for k in range(4)}
    with torch.no_grad():
        for some, truth in batches:
            z = old(some)
            for b, i, j in product(*map(range, truth.shape)):
                if truth[b, i, j] == 0:
                    unsure, likeliest = uncertainty_by_hand(z[b, :, i, j].tolist(), 5, rule)
                    found[likeliest].append(unsure)
        old_logits = old(images)
    thresholds = template.method.thresholds.tolist()
    assert all(is_threshold(thresholds[k], values, rule) for k, values in found.items())

    cross_entropy = 0.0
    log_p = logits.log_softmax(1)
    for b in range(len(labels)):
        background = accepted = 0
        nll = 0.0
        for i, j in product(*map(range, labels.shape[1:])):
            label = int(labels[b, i, j])
            if label == 0:
                background += 1
                unsure, likeliest = uncertainty_by_hand(old_logits[b, :, i, j].tolist(), 5, rule)
                label = likeliest if unsure < thresholds[likeliest] else VOID
                accepted += label != VOID
            if label != VOID:
                nll -= float(log_p[b, label, i, j])
        cross_entropy += accepted / (background + 1e-6) * nll / labels.numel()
    assert cross_entropy > 0

    grown = template_of(Plop)
    train_one = grown.network.train()
    with torch.no_grad():
        new, before = maps_by_hand(train_one, images), maps_by_hand(old, images)
        new[-1] = logits_before_the_update(old, new[-2])
        new[-1] = torch.cat([new[-1][:, :1] + new[-1][:, 4:], new[-1][:, 1:4]], 1)
    terms = [pod_by_hand(*(each.double().numpy() for each in pair)) for pair in zip(new, before, strict=True)]
    assert len(terms) == 6 and all(term > 0 for term in terms)
    pod = math.sqrt(5 / 1) * (0.03 * sum(terms[:5]) + 0.002 * terms[5]) / 6
    assert float(loss) == pytest.approx(cross_entropy + pod, rel=1e-5)


def logits_before_the_update(old: SegmentationNetwork, features: Tensor) -> Tensor:
    """Of the network grown by one output, as MiB starts it."""
    weight, bias = old.head.weight, old.head.bias.clone()
    bias[0] -= math.log(2)
    weight, bias = torch.cat([weight, weight[:1]]), torch.cat([bias, bias[:1]])
    return torch.einsum("cd,bdij->bcij", weight, features) + bias.view(-1, 1, 1)


def test_the_gradient_of_pod_reaches_all_maps_and_grows_with_the_root_of_all_outputs_by_new_ones() -> None:
    template = template_of(Plop)
    reached: list[int] = []
    scales: list[float] = []
    method, factor = template.method, template.method.parameters.pod_factor

    def looked_at() -> Tensor:
        maps = [*(method.maps[name] for name in method.maps.names), method.features(), method.features.logits()]
        pod: Tensor = of_method()
        gradients = torch.autograd.grad(pod, maps, retain_graph=True)
        reached.append(sum(bool(gradient.any()) for gradient in gradients))
        pairs = [(method.maps[name], method.old_maps[name]) for name in method.maps.names]
        pairs.append((method.features(), method.old_features()))
        of_five = factor / 6 * sum(local_pod(new, old).item() for new, old in pairs)
        logits = with_new_as_background(method.features.logits(), method.old.outputs)
        of_logits = 0.0005 / 6 * local_pod(logits, method.old_features.logits()).item()
        scales.append(pod.item() / (of_five + of_logits))
        return pod

    of_method = method.pod
    method.pod = looked_at
    train(template, 1, 2)
    assert reached == [6] * 12
    assert scales == pytest.approx([math.sqrt(5 / 1)] * 6 + [math.sqrt(7 / 2)] * 6, rel=1e-4)


class Gradients(SupervisedPlugin):
    """Keeps the gradients of a step's first update."""

    first: list[Tensor] | None = None

    def after_backward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        self.seen = [parameter.grad.clone() for parameter in strategy.network.parameters()]

    def before_update(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        self.first = self.first or self.seen


def test_a_batch_in_parts_has_the_thresholds_and_the_gradients_of_the_whole() -> None:
    found = []
    for parts in (1, 2):
        gradients = Gradients()
        settings = [*WITHOUT_MEMORY, "incremental.batchnorm=statistics", f"incremental.accumulate={parts}"]
        template = train(template_of(Plop, gradients, settings=settings), 1)
        found.append((template.method.thresholds, gradients.first, template.cost.images))
    assert torch.equal(found[0][0], found[1][0]) and found[0][2] == found[1][2]
    for one, other in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6 * float(one.abs().max()))


def test_where_steps_annotate_every_class_seen_nothing_is_filled_in() -> None:
    losses = Losses()
    template = make("plop", [losses], settings=WITHOUT_MEMORY, pod_factor=0.0, logits_factor=0.0)
    template.begin(sequential().train_stream[0])
    template.train(sequential().train_stream[1], eval_streams=[])
    loss, _, labels, logits, _ = losses.seen[0]
    known = labels != VOID
    nll = -logits.log_softmax(1).gather(1, labels.where(known, 0)[:, None])[:, 0]
    torch.testing.assert_close(loss, (nll * known).sum() / labels.numel())
    assert template.method.thresholds is None
    assert template.cost.forward_passes == 2 * template.cost.updates
    assert benchmark() is not sequential()
