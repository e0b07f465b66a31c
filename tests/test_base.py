"""The base training: the values of its learning rate, and the updates in which they are used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from toy import benchmark

import bench.base
from bench.base import learning_rate, train_base
from bench.checkpoint import Checkpoint
from bench.config import resolve_config
from strategies.protocol import BaseRecipe

WARM = {"base.lr": 0.8, "base.warmup_steps": 4, "base.poly_power": 2}


def config(**settings: Any) -> Any:
    return resolve_config("shapes", None, None, [f"{key}={value}" for key, value in settings.items()])


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
    data = benchmark().train_stream[1].data
    assert len(data) == 10  # batches of 4, 4, 2: six updates in two epochs
    settings = config(**{**WARM, "base.epochs": 2, "base.batch_size": 4, "base.warmup_steps": 2})
    checkpoint = Checkpoint(tmp_path / "training.ckpt", {})
    train_base(data, 4, settings, BaseRecipe(), 0, torch.device("cpu"), "base", lambda event: None, checkpoint)
    by_hand = [0.8 * share for share in (1 / 2, 25 / 36, 16 / 36, 9 / 36, 4 / 36, 1 / 36)]
    assert rates == pytest.approx(by_hand, rel=1e-12)
