"""Paired differences between strategies over common seeds, and mean ranks over scenarios."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from reports.rows import REFERENCES, embedded_note, method_of, natural_order, row_name, row_order, seeds_text
from reports.tables import MEASURES, headline, spread_of

CONFIDENCE = 0.95
_DIFFERENCES = [
    *("scenario", "settings", "strategy", "variant", "reference", "column"),
    *("n", "seeds", "all_seeds", "difference", "low", "high"),
]
_RANKS = ["data", "settings", "column", "strategy", "mean_rank", "scenarios", "over", "seeds", "all_seeds"]
Seeds = dict[int, float]


class _Key(NamedTuple):
    """Whose values: a row of a scenario's table, and a measure."""

    scenario: str
    settings: str
    strategy: str
    variant: str
    column: str


Values = dict[_Key, Seeds]


def paired_differences(steps: pd.DataFrame, reference: str = "ours") -> pd.DataFrame:
    """Return every strategy's difference to `reference` after the last step, over the seeds that both have.

    `steps` is what `reports.tables.frame` returns. Each row is compared with the reference's row of the same scenario
    and settings; where the reference has several, with the one of the same variant. Columns: `scenario`, `settings`,
    `strategy`, `variant`, `reference`; `column` (of `reports.tables.MEASURES`);
    `n` and `seeds` (the common ones); `all_seeds` (False if either has a seed that the other lacks, which is then
    left out); `difference` (strategy - reference, in points, the mean over the seeds' differences); `low` and `high`,
    its 95 % confidence interval by Student's t: NaN for n < 2. Without a common seed n is 0 and the numbers are NaN.
    """
    values = _last_values(steps)
    records = []
    for key, own in values.items():
        if key.strategy != reference:
            records.append({**key._asdict(), "reference": reference, **paired(own, _reference(values, key, reference))})
    return pd.DataFrame(records, columns=_DIFFERENCES)


def ranks(steps: pd.DataFrame) -> pd.DataFrame:
    """Return every method's mean rank over the scenarios that all methods have, 1 the best.

    `steps` is what `reports.tables.frame` returns. Methods are labels without parameters; the references finetune and
    joint are not ranked, and ranked with each other are rows of equal `settings` alone, where there are two. In a
    scenario methods are ranked by their means over the seeds that all of them have, equal means sharing the mean of
    their ranks; a scenario without a common seed is left out. Columns: `data` (published or embedded, never mixed);
    `settings`; `column` (of `reports.tables.MEASURES`); `strategy` (with its variant); `mean_rank`; `scenarios` (their
    number) and `over` (their names); `seeds` (each scenario's, separated by `;` where they differ); `all_seeds` (False
    if a seed that only some of the methods have was left out, or if the scenarios' seeds differ).
    """
    values = {key: own for key, own in _last_values(steps).items() if is_ranked(key.strategy)}
    records = [
        {"data": data, "settings": settings, "column": column, **record}
        for data in ("published", "embedded")
        for settings in sorted({key.settings for key in values}, key=natural_order)
        for column in MEASURES
        for record in _mean_ranks(_by_scenario(values, data, settings, column))
    ]
    return pd.DataFrame(records, columns=_RANKS)


# ---------------------------------------------------------------- numbers


def _last_values(steps: pd.DataFrame) -> Values:
    """Each seed's value after the last step, in the tables' order."""
    rows = headline(steps).sort_values("step").groupby(["scenario", "strategy", "variant", "seed"]).tail(1)
    values: Values = {}
    for row in rows.to_dict("records"):
        for column in MEASURES:
            key = _Key(row["scenario"], row["settings"], row["strategy"], row["variant"], column)
            own = values.setdefault(key, {})
            if not math.isnan(row[column]):
                own[int(row["seed"])] = float(row[column])
    return {key: values[key] for key in sorted(values, key=_order)}


def _order(key: _Key) -> tuple[Any, ...]:
    place = natural_order(key.settings), row_order(key.strategy, key.variant)
    return key.scenario, *place, list(MEASURES).index(key.column)


def _reference(values: Values, key: _Key, reference: str) -> Seeds:
    """The reference's values that a row is compared with; none where it has no row of these settings, or several."""
    alike = {
        other.variant: own
        for other, own in values.items()
        if other.strategy == reference
        and (other.scenario, other.settings, other.column) == (key.scenario, key.settings, key.column)
    }
    return next(iter(alike.values())) if len(alike) == 1 else alike.get(key.variant, {})


def paired(own: Seeds, other: Seeds) -> dict[str, Any]:
    """Return the difference of two rows' values by seed as `paired_differences` has it, from `n` on."""
    common = sorted(set(own) & set(other))
    differences = np.array([own[seed] - other[seed] for seed in common], dtype=float)
    mean = float(differences.mean()) if common else math.nan
    half = _half_interval(differences)
    return {
        "n": len(common),
        "seeds": seeds_text(common),
        "all_seeds": set(own) == set(other),
        "difference": mean,
        "low": mean - half,
        "high": mean + half,
    }


def _half_interval(values: npt.NDArray[np.float64]) -> float:
    """Half the width of the mean's confidence interval, NaN below two values."""
    if len(values) < 2:
        return math.nan
    from scipy import stats

    quantile = stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)
    return float(quantile * spread_of(values) / math.sqrt(len(values)))


def is_ranked(strategy: str) -> bool:
    """Whether a label is of a method without parameters that is no reference."""
    return strategy == method_of(strategy) and strategy not in REFERENCES


def _by_scenario(values: Values, data: str, settings: str, column: str) -> dict[str, dict[str, Seeds]]:
    """By scenario and method: each seed's value, of the scenarios on published or on embedded data."""
    found: dict[str, dict[str, Seeds]] = {}
    for key, own in values.items():
        kind = "embedded" if embedded_note(key.scenario) else "published"
        if (key.column, key.settings, kind) == (column, settings, data):
            found.setdefault(key.scenario, {})[row_name(key.strategy, key.variant)] = own
    return found


def _mean_ranks(found: dict[str, dict[str, Seeds]]) -> Iterable[dict[str, Any]]:
    methods = list(dict.fromkeys(method for rows in found.values() for method in rows))
    if len(methods) < 2:
        return
    common = {
        scenario: sorted(set.intersection(*map(set, rows.values())))
        for scenario, rows in found.items()
        if len(rows) == len(methods)
    }
    common = {scenario: seeds for scenario, seeds in common.items() if seeds}
    if not common:
        return
    means = pd.DataFrame(
        {
            name: {method: np.mean([found[name][method][s] for s in common[name]]) for method in methods}
            for name in common
        }
    )
    mean_rank = means.rank(ascending=False, method="average").mean(axis="columns")
    lists = list(dict.fromkeys(seeds_text(seeds) for seeds in common.values()))
    complete = all(sorted(own) == common[name] for name in common for own in found[name].values())
    for method in sorted(methods, key=lambda method: (mean_rank[method], methods.index(method))):
        yield {
            "strategy": method,
            "mean_rank": float(mean_rank[method]),
            "scenarios": len(common),
            "over": " ".join(common),
            "seeds": "; ".join(lists),
            "all_seeds": complete and len(lists) == 1,
        }
