"""The base training: the values of its learning rate, and the updates in which they are used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toy import benchmark, mean_nll

import bench.base
from bench.base import BaseTraining, learning_rate, train_base
from bench.checkpoint import Checkpoint
from bench.config import resolve_config
from bench.events import Event
from bench.seeds import derived_seed
from benchmarks.augmentation import Augmentation
from strategies.losses import one_vs_rest
from strategies.network import SegmentationNetwork, build_network
from strategies.protocol import BaseRecipe

WARM = {"base.lr": 0.8, "base.warmup_steps": 4, "base.poly_power": 2}


QUICK = {"base.epochs": 2, "base.batch_size": 4}
"""Of the ten images of the toy's step 1: batches of 4, 4, 2, six updates in all."""


def config(**settings: Any) -> Any:
    return resolve_config("shapes", None, None, [f"{key}={value}" for key, value in settings.items()])


def trained(
    folder: Path, settings: Any, recipe: BaseRecipe | None = None, seed: int = 0, events: list[Event] | None = None
) -> BaseTraining:
    data, heard = benchmark().train_stream[1].data, [] if events is None else events
    assert len(data) == 10
    checkpoint = Checkpoint(folder / "training.ckpt", {})
    cpu = torch.device("cpu")
    return train_base(data, 4, settings, recipe or BaseRecipe(), seed, cpu, "base", heard.append, checkpoint)


# --------------------------------------------------------------------------------------- the learning rate


@pytest.mark.parametrize(
    ("iteration", "rate"),
    [
        (0, 0.2),  # 0.8 * 1/4 * (10/10)^2
        (2, 0.384),  # 0.8 * 3/4 * (8/10)^2
        (3, 0.392),  # 0.8 * (7/10)^2: warm-up's end
        (4, 0.288),  # 0.8 * (6/10)^2
        (5, 0.2),  # 0.8 * (5/10)^2: the middle
        (9, 0.008),  # 0.8 * (1/10)^2: the last of ten
    ],
)
def test_the_learning_rate_warms_up_and_decays_by_a_power_of_what_is_left(iteration: int, rate: float) -> None:
    assert learning_rate(config(**WARM), iteration, 10) == pytest.approx(rate, rel=1e-12)


def test_without_warm_up_the_learning_rate_begins_at_its_full_value() -> None:
    cold = config(**{**WARM, "base.warmup_steps": 0})
    assert [learning_rate(cold, i, 10) for i in (0, 1, 9)] == pytest.approx([0.8, 0.648, 0.008], rel=1e-12)


def test_the_paper_decays_from_its_rate_by_the_power_09() -> None:
    paper = resolve_config("voc", "paper", None, [])
    half = paper.base.lr * 0.5358867312681466  # 2 ** -0.9
    assert learning_rate(paper, 0, 1000) == paper.base.lr
    assert learning_rate(paper, 500, 1000) == pytest.approx(half, rel=1e-12)


def test_the_updates_of_all_epochs_follow_one_schedule(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    rates: list[float] = []
    made = bench.base._optimizer

    def watched(*args: Any) -> torch.optim.Optimizer:
        optimizer = made(*args)
        optimizer.register_step_pre_hook(lambda *_: rates.append(optimizer.param_groups[0]["lr"]))
        return optimizer

    monkeypatch.setattr(bench.base, "_optimizer", watched)
    trained(tmp_path, config(**{**WARM, **QUICK, "base.warmup_steps": 2}))
    by_hand = [0.8 * share for share in (1 / 2, 25 / 36, 16 / 36, 9 / 36, 4 / 36, 1 / 36)]
    assert rates == pytest.approx(by_hand, rel=1e-12)


# --------------------------------------------------------------------------------------- the updates


def by_hand(recipe: BaseRecipe, optimizer: Any, loss_of: Any, seed: int) -> SegmentationNetwork:
    """METHODS, Protocol: two epochs over all images in random order, the rates 0.02 (1 - i / 6)."""
    torch.manual_seed(derived_seed("base", seed, "initialisation"))
    network = build_network("small", 4, recipe.head, recipe.tau).train()
    network.to(memory_format=torch.channels_last)
    steps, data = optimizer(network.parameters()), benchmark().train_stream[1].data
    for epoch in range(2):
        order = np.random.default_rng([derived_seed("base", seed, "order"), epoch]).permutation(10)
        key = (derived_seed("base", seed, "augmentation"), epoch)
        batches = data.batches(4, order.tolist(), Augmentation((0.5, 2.0), 16, True), key)
        for i, (images, labels, _, _) in enumerate(batches, 3 * epoch):
            steps.param_groups[0]["lr"] = 0.02 * (1 - i / 6)
            steps.zero_grad()
            loss_of(network(images), labels).backward()
            steps.step()
    return network


@pytest.mark.parametrize(
    ("name", "optimizer", "recipe", "loss_of"),
    [
        (
            "sgd",
            lambda of: torch.optim.SGD(of, 1.0, momentum=0.8, weight_decay=0.1),
            BaseRecipe(),
            mean_nll,
        ),
        (
            "adamw",
            lambda of: torch.optim.AdamW(of, 1.0, weight_decay=0.1),
            BaseRecipe("cosine", "sigmoid-bce", 5.0),
            one_vs_rest,
        ),
    ],
)
def test_a_base_training_ends_with_the_weights_of_the_updates_written_out(
    name: str, optimizer: Any, recipe: BaseRecipe, loss_of: Any, tmp_path: Path
) -> None:
    settings = {"base.optimizer": name, "base.lr": 0.02, "base.momentum": 0.8, "base.weight_decay": 0.1}
    settings |= {"base.warmup_steps": 0, "base.poly_power": 1, "data.scale": [0.5, 2.0], "data.crop": 16, **QUICK}
    training = trained(tmp_path, config(**settings), recipe, seed=3)
    expected = by_hand(recipe, optimizer, loss_of, seed=3).state_dict()
    found = training.network.state_dict()
    assert found.keys() == expected.keys()
    for key in expected:
        torch.testing.assert_close(found[key], expected[key], rtol=1e-4, atol=1e-5)
    assert not any(module.training for module in training.network.modules())
    assert training.epochs == 2 and training.seconds > 0
