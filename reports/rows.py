"""The rows of a table and the lines of a figure: their names, their order, the seeds most of them share."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from reports.records import Run

METHODS = ("finetune", "er", "lwf-mc", "icarl", "agem", "mir", "mib", "coriseg", "ours", "joint")
REFERENCES = ("finetune", "joint")
"""Methods that bound the others from below and above; they are not ranked with them."""
EMBEDDED = ("shapes", "scenes")

_UNSET = object()
_NUMBER = re.compile(r"(\d+(?:\.\d+)?(?:e[-+]?\d+)?)")


def method_of(strategy: str) -> str:
    """Return the method's name in a strategy's label: `ours` in `ours(sampling=uniform)`."""
    return strategy.split("(", 1)[0]


def row_order(strategy: str, variant: str) -> tuple[Any, ...]:
    """Return the key that sorts rows: the known methods as in `METHODS`, then the others; 20 before 100."""
    method = method_of(strategy)
    place = METHODS.index(method) if method in METHODS else len(METHODS)
    return place, method, _natural(strategy), _natural(variant), strategy, variant


def row_name(strategy: str, variant: str) -> str:
    """Return a row's name: the strategy's label, in brackets the settings that tell it from its kin."""
    return f"{strategy} [{variant}]" if variant else strategy


def _natural(text: str) -> list[Any]:
    parts = _NUMBER.split(text)
    return [float(part) if place % 2 else part for place, part in enumerate(parts)]


def file_stem(scenario: str) -> str:
    """Return the scenario's name with everything replaced that a file name or a LaTeX label cannot hold."""
    return re.sub(r"[^A-Za-z0-9._=+-]", "_", scenario)


def embedded_note(scenario: str) -> str:
    """Return what must be said of a scenario on generated images; nothing for a published data set."""
    name = scenario.split("-", 1)[0]
    return f"embedded data set `{name}`, not VOC/ADE results" if name in EMBEDDED else ""


# ---------------------------------------------------------------- seeds


def seeds_text(seeds: Iterable[int]) -> str:
    """Return the seeds in order, separated by a blank."""
    return " ".join(str(seed) for seed in sorted(seeds))


def count_text(seeds: str) -> str:
    """Return `n = 2, seeds 0, 1` for the seeds `0 1`."""
    each = seeds.split()
    return f"n = {len(each)}, seed{'s' if len(each) > 1 else ''} {', '.join(each)}"


def own_seeds(seeds: str, common: str) -> str:
    """Return what a row's name adds where its seeds are not the common ones, else nothing."""
    return "" if seeds == common else f" ({count_text(seeds)})"


def common_seeds(rows: Iterable[str]) -> str:
    """Return the seeds that most rows have (of equally frequent ones the most seeds), given each row's."""
    counts = Counter(rows)
    return max(counts, key=lambda seeds: (counts[seeds], len(seeds.split()), seeds))


# ---------------------------------------------------------------- variants


def variants(runs: Sequence[Run]) -> dict[str, str]:
    """Return for each hash among the runs of one scenario and label what tells it from the others.

    '' if there is one hash; otherwise the settings whose values differ, `memory.size=20`, dotted keys over
    `config` and `method.parameters`; and the hash itself where no setting tells two of them apart.
    """
    settings: dict[str, list[dict[str, Any]]] = {}
    for run in runs:
        settings.setdefault(run.spec["hash"], []).append(_settings(run))
    keys = sorted({key for found in settings.values() for one in found for key in one})
    telling = [key for key in keys if _tells_apart(key, list(settings.values()))]
    names = {
        name: ", ".join(f"{key.partition(':')[2]}={_value_text(found[0].get(key, _UNSET))}" for key in telling)
        for name, found in settings.items()
    }
    if len(names) == 1:
        return dict.fromkeys(names, "")
    shared = Counter(names.values())
    return {
        name: text if shared[text] == 1 else ", ".join(filter(None, [text, f"hash={name}"]))
        for name, text in names.items()
    }


def _settings(run: Run) -> dict[str, Any]:
    parameters = run.spec["method"]["parameters"]
    return {**_flat(run.spec["config"], "config:"), **_flat(parameters, "parameters:")}


def _flat(nested: dict[str, Any], prefix: str) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, dict) and value:
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _tells_apart(key: str, by_hash: list[list[dict[str, Any]]]) -> bool:
    """Whether a setting is one in all runs of each hash but not over the hashes (so a seed tells nothing)."""
    values = [{_value_text(one.get(key, _UNSET)) for one in found} for found in by_hash]
    return all(len(each) == 1 for each in values) and len(set.union(*values)) > 1


def _value_text(value: Any) -> str:
    if value is _UNSET:
        return "unset"
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    if isinstance(value, list):
        return "[" + " ".join(_value_text(one) for one in value) + "]"
    return str(value)
