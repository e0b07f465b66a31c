"""The sequential setup: a step annotates every class seen so far, and no method takes such a class for unlabelled."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest
import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor
from toy import GROUPS, LEARNED, VOID, Toy, make

from benchmarks.names import ScenarioName
from benchmarks.scenarios import compute_scenario
from benchmarks.streams import SegmentationScenario, build_benchmark
from strategies.learning.losses import own_classes, relabel
from strategies.networks.settings import OF_IMAGENET

ONLINE = ("finetune", "er", "lwf-mc", "icarl", "agem", "mir", "mib", "coriseg", "ours")


@cache
def sequential() -> SegmentationScenario:
    scenario = compute_scenario(ScenarioName("toy", "3+1+2", "sequential"), Toy(), GROUPS)
    return build_benchmark(scenario, normalisation=OF_IMAGENET)


class Seen(SupervisedPlugin):
    """Writes down each mini-batch's steps, labels and annotated classes after the forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[tuple[Tensor, Tensor, Tensor]] = []

    def after_forward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        self.batches.append((strategy.mb_step.clone(), strategy.mb_y.clone(), strategy.own.clone()))


def seen_by(name: str) -> Sequence[tuple[Tensor, Tensor, Tensor]]:
    seen = Seen()
    template = make(name, [seen])
    for t, experience in enumerate(sequential().train_stream):
        template.begin(experience) if t == 0 else template.train(experience, eval_streams=[])
    return seen.batches


@pytest.mark.parametrize("name", ONLINE)
def test_every_annotated_class_is_own_and_nothing_else(name: str) -> None:
    """Of an image of step tau: the classes of the steps up to tau, in memory too; never the background."""
    batches = seen_by(name)
    old_in_new = 0
    for steps, labels, own in batches:
        for tau, image, mine in zip(steps.tolist(), labels, own, strict=True):
            known = [label for group in LEARNED[: tau + 1] for label in group]
            assert mine.nonzero().flatten().tolist() == known
            shown = set(image.unique().tolist()) - {0, VOID}
            assert shown <= set(known)
            old_in_new += tau > 0 and bool(shown & set(LEARNED[0]))
    assert old_in_new > 0, "the case this test is for"


def test_own_classes_by_hand() -> None:
    step_of_output = torch.tensor([-1, 0, 0, 1, 2])
    steps = torch.tensor([0, 1, 2])
    assert own_classes(steps, step_of_output).int().tolist() == [[0, 1, 1, 0, 0], [0, 0, 0, 1, 0], [0, 0, 0, 0, 1]]
    assert own_classes(steps, step_of_output, all_seen=True).int().tolist() == [
        [0, 1, 1, 0, 0],
        [0, 1, 1, 1, 0],
        [0, 1, 1, 1, 1],
    ]


def test_e_step_never_fills_in_a_class_that_the_annotation_would_have_told() -> None:
    """Output 1 is likeliest; where step 1 annotates class 1 as well, an unlabelled pixel cannot be it."""
    log_p = torch.tensor([0.001, 0.9, 0.009, 0.09]).log().view(1, 4, 1, 1)
    unlabelled = torch.zeros(1, 1, 1, dtype=torch.long)
    step_of_output, step = torch.tensor([-1, 0, 1, 2]), torch.tensor([1])
    alone = relabel(log_p, unlabelled, own_classes(step, step_of_output), 0.5)
    all_seen = relabel(log_p, unlabelled, own_classes(step, step_of_output, all_seen=True), 0.05)
    assert (alone.item(), all_seen.item()) == (1, 3)
