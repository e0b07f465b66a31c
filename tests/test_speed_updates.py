"""`bench speed`: methods that take turns do not meet what another one has left."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
from toy import benchmark

from bench.settings.merging import resolve_config
from bench.speed.updates import Bare, _interleaved, update_seconds
from strategies.ewc import Ewc


class Cycle:
    def __init__(self) -> None:
        self.itself = self


def test_what_lies_in_cycles_is_gone_before_the_next_is_measured() -> None:
    left: list[weakref.ref[Cycle]] = []
    alive: list[int] = []

    def kind() -> float:
        alive.append(sum(each() is not None for each in left))
        left.append(weakref.ref(Cycle()))
        return float(len(left))

    assert _interleaved({"one": kind, "other": kind}, 2) == {"one": 3.0, "other": 4.0}
    assert alive == [0] * 6


def test_a_penalty_is_measured_with_the_importance_that_it_has_after_a_base_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    penalised: list[int] = []
    after_backward = Ewc.after_backward

    def watched(method: Ewc, *args: Any, **kwargs: Any) -> None:
        penalised.append(len(method.omega))
        after_backward(method, *args, **kwargs)

    monkeypatch.setattr(Ewc, "after_backward", watched)
    config = resolve_config("shapes", "small", None, ["protocol=offline", "incremental.epochs=2"])
    loop = Bare("ewc", lambda *_: 1.0)
    assert update_seconds(["ewc"], config, "toy-3-1-overlapped", benchmark(), loop, rounds=1)["ewc"] > 0
    assert penalised and min(penalised) > 0
