"""`bench speed`: methods that take turns do not meet what another one has left."""

from __future__ import annotations

import weakref

from bench.speed.updates import _interleaved


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
