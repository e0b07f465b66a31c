"""Search spaces: what is tuned of which method, within what the method takes, from one base model."""

from __future__ import annotations

import dataclasses
from typing import Any, get_type_hints

import pytest

from strategies.learning.protocol import OfflineProtocol, OnlineProtocol
from strategies.learning.registry import STRATEGIES, method_class
from strategies.learning.search import search_space

TUNED = {
    "coriseg": {"distillation_weight"},
    "dkd": {"positive_weight", "distillation_weight", "positive_part_weight", "negative_part_weight"},
    "ewc": {"penalty_weight"},
    "ewf": {"distillation_weight"},
    "ilt": {"distillation_weight", "feature_weight"},
    "lwf": {"distillation_weight"},
    "mib": {"distillation_weight"},
    "mir": {"candidates"},
    "ours": {"delta", "gamma", "eta", "mu"},
    "pi": {"penalty_weight"},
    "plop": {"pod_factor", "logits_factor"},
    "rw": {"penalty_weight"},
    "ssul": {"threshold", "background_rate"},
}
TUNED |= {"dkd-m": TUNED["dkd"] | {"threshold"}, "ssul-m": TUNED["ssul"]}
BUILT_IN = [name.rpartition(":")[2] for name in STRATEGIES.built_in_names()]


def space_of(name: str, **values: Any) -> dict[str, Any]:
    kind = method_class(name).Parameters
    return search_space(kind, dataclasses.asdict(kind(**values)))


@pytest.mark.parametrize("name", BUILT_IN)
def test_of_each_method_is_tuned_what_its_paper_leaves_open(name: str) -> None:
    assert space_of(name).keys() == TUNED.get(name, set())


@pytest.mark.parametrize("name", TUNED)
def test_a_methods_ranges_hold_its_default_are_taken_by_it_and_keep_its_base_model(name: str) -> None:
    method = method_class(name)
    unset = method.Parameters()
    types = get_type_hints(method.Parameters)
    for key, search in space_of(name).items():
        assert search.low <= getattr(unset, key) <= search.high
        assert search.low > 0 or not search.log
        assert search.whole == (types[key] is int)
        for end in (search.low, search.high):
            assert method.recipe(method.Parameters(**{key: end})) == method.recipe(unset)


@pytest.mark.parametrize(
    ("name", "given", "tuned"),
    [
        ("ours", {"loss": "cross-entropy"}, {"eta", "mu"}),
        ("ours", {"sampling": "uniform"}, {"delta", "gamma"}),
        ("ours", {"loss": "cross-entropy", "sampling": "uniform"}, set()),
        ("ewf", {"on": "plop"}, {"pod_factor", "logits_factor"}),
    ],
)
def test_what_has_no_effect_is_not_tuned(name: str, given: dict[str, str], tuned: set[str]) -> None:
    assert space_of(name, **given).keys() == tuned


def test_of_the_increments_the_learning_rate_alone_is_tuned() -> None:
    for kind in (OnlineProtocol, OfflineProtocol):
        (search,) = search_space(kind, {}).values()
        assert (search.low, search.high, search.log, search.whole) == (1e-4, 1e-1, True, False)
        assert search_space(kind, {}).keys() == {"lr"}
