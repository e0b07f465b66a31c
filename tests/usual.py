"""Which of many alike cases the usual tests run; the others are `long`."""

from collections.abc import Iterable
from typing import Any

import pytest


def usual(cases: Iterable[Any], *kept: Any) -> list[Any]:
    """Return the cases for `parametrize`, all but `kept` marked as `long`. ValueError: a kept one is not among them."""
    cases = list(cases)
    if missing := [case for case in kept if case not in cases]:
        raise ValueError(f"no such case: {missing}")
    return [case if case in kept else _long(case) for case in cases]


def _long(case: Any) -> Any:
    return pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.long)
