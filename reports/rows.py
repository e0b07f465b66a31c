"""The rows of a table and the lines of a figure: their names, their order, the seeds most of them share."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from reports.records import Run

METHODS = (
    *("finetune", "er", "ewc", "pi", "rw", "lwf", "lwf-mc", "ilt", "icarl"),
    *("agem", "mir", "mib", "plop", "ewf", "ssul", "ssul-m", "dkd", "dkd-m", "coriseg", "ours", "joint"),
)
REFERENCES = ("finetune", "joint")
"""Methods that bound the others from below and above; they are not ranked with them."""
EMBEDDED = ("shapes", "scenes")
NO_RUN = "no finished run"
"""What stands in the place of rows."""

_UNSET = object()
_CONFIG = "config:"
_PROTOCOL, _INCREMENTAL = f"{_CONFIG}protocol", f"{_CONFIG}incremental."
_NUMBER = re.compile(r"(\d+(?:\.\d+)?(?:e[-+]?\d+)?)")


def method_of(strategy: str) -> str:
    """Return the method's name in a strategy's label: `ours` in `ours(sampling=uniform)`."""
    return strategy.split("(", 1)[0]


def row_order(strategy: str, variant: str) -> tuple[Any, ...]:
    """Return the key that sorts rows: the known methods as in `METHODS`, then the others; 20 before 100."""
    method = method_of(strategy)
    place = METHODS.index(method) if method in METHODS else len(METHODS)
    return place, method, natural_order(strategy), natural_order(variant), strategy, variant


def row_name(strategy: str, variant: str) -> str:
    """Return a row's name: the strategy's label, in brackets the settings that tell it from its kin."""
    return f"{strategy} [{variant}]" if variant else strategy


def natural_order(text: str) -> list[Any]:
    """Return the key that sorts texts by the numbers in them: `memory.size=20` before `memory.size=100`."""
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


# ---------------------------------------------------------------- settings

RowId = tuple[str, str]
"""A strategy's label and a run's hash: a row of a scenario's table, whose runs differ in the seed alone."""
BESIDE_TRAINING = frozenset(
    [
        *("data.workers", "data.ram_gb", "data.train_list", "data.shared_ids", "data.max_megapixels"),
        *("evaluation.batch_size", "evaluation.pictures", "evaluation.future_classes", "evaluation.images"),
        *("runtime.threads", "runtime.device", "runtime.compile", "runtime.fused", "keep"),
    ]
)
"""Settings that change numbers by rounding at most, or of which the data's fingerprint or the conventions tell: no row
by themselves."""
LATER: dict[str, Any] = {
    "protocol": "online",
    "base.min_updates": 0,
    "base.nesterov": False,
    "base.lr_factors": {},
    "base.weight_decays": {},
    "base.warmup_share": 0.0,
    "base.warmup_from": 0.001,
    "base.warmup_poly": "from_start",
    "base.min_lr": 0.0,
    "base.accumulate": 1,
    "base.batchnorm": "train",
    "base.dropout": True,
    "base.drop_last": False,
    "base.weights": "last",
    "data.augmentation": "scale_crop",
    "data.area": [0.5, 2.0],
    "data.aspect": [3 / 4, 4 / 3],
    "data.padding": "below_right",
    "data.fill": "void",
    "data.fill_colour": "mean",
    "data.void": "ignore",
    "data.jpeg_draft": False,
    "runtime.compile": False,
    "runtime.fused": False,
    "incremental.devices": 1,
}
"""Settings that older runs do not have, as these were made."""


def row_id(run: Run) -> RowId:
    """Return which row of its scenario's table a run belongs to."""
    return run.spec["strategy"], run.spec["hash"]


def differing_settings(runs: Sequence[Run], beside: Collection[str] = ()) -> list[str]:
    """Return the settings that are not one in all rows of one scenario: dotted keys over `config`, sorted.

    A method's own parameters are none of them, nor is what stands in `BESIDE_TRAINING` or in `beside`: what a panel's
    title or a column's heading says anyway.
    """
    return [_shown(key) for key in _differing(runs, beside)]


def row_settings(runs: Sequence[Run], beside: Collection[str] = ()) -> dict[RowId, str]:
    """Return each row's values of `differing_settings`, `memory.size=20`; '' where all rows share their settings.

    Rows of equal texts were trained under equal settings, and these alone can be ranked.
    """
    keys = _differing(runs, beside)
    return {row: _told(found[0], keys) for row, found in _by_row(runs).items()}


def variants(runs: Sequence[Run], beside: Collection[str] = ()) -> dict[RowId, str]:
    """Return what tells each row of one scenario from the others beside its label.

    First its `row_settings`; then, where several rows have one label, the other settings and parameters whose values
    differ, `candidates=20`; and the hash itself where nothing of these tells two of them apart. The settings in
    `beside` are not named.
    """
    keys = _differing(runs)
    names: dict[RowId, str] = {}
    for label in dict.fromkeys(run.spec["strategy"] for run in runs):
        kin = _by_row([run for run in runs if run.spec["strategy"] == label])
        telling = [*keys, *(key for key in _telling(list(kin.values())) if key not in keys)]
        texts = {row: _told(found[0], telling) for row, found in kin.items()}
        shared = Counter(texts.values())
        named = [key for key in telling if _shown(key) not in beside]
        for row, found in kin.items():
            alone = shared[texts[row]] == 1
            names[row] = ", ".join(filter(None, [_told(found[0], named), "" if alone else f"hash={row[1]}"]))
    return names


def _differing(runs: Sequence[Run], beside: Collection[str] = ()) -> list[str]:
    telling = _telling(list(_by_row(runs).values()))
    others = BESIDE_TRAINING.union(beside)
    return [key for key in telling if key.startswith(_CONFIG) and _shown(key) not in others]


def _by_row(runs: Sequence[Run]) -> dict[RowId, list[dict[str, Any]]]:
    """The settings and parameters of each row's runs."""
    found: dict[RowId, list[dict[str, Any]]] = {}
    for run in runs:
        found.setdefault(row_id(run), []).append(_settings(run))
    return found


def _settings(run: Run) -> dict[str, Any]:
    config = {f"{_CONFIG}{key}": value for key, value in flat_settings(run.spec["config"]).items()}
    return {**config, **_flat(run.spec["method"]["parameters"], "parameters:")}


def flat_settings(config: dict[str, Any]) -> dict[str, Any]:
    """Return a run's settings by dotted keys, those of today that it does not have with the values of `LATER`.

    The study that they were chosen in is none of them.
    """
    later = {key: value for key, value in LATER.items() if "." not in key or key.partition(".")[0] in config}
    return {**later, **_flat({key: value for key, value in config.items() if key != "study"}, "")}


def _flat(nested: dict[str, Any], prefix: str) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, dict) and value:
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _telling(by_row: Sequence[list[dict[str, Any]]]) -> list[str]:
    """The keys whose values differ between rows, sorted; one that differs within a row (as a seed) tells nothing.

    Settings of the increments tell apart rows of one protocol alone: another one has others.
    """
    keys = sorted({key for found in by_row for one in found for key in one})
    protocols = [{one.get(_PROTOCOL) for one in found} for found in by_row]
    by_protocol = [[f for f, of in zip(by_row, protocols, strict=True) if of == each] for each in map(set, protocols)]
    return [
        key
        for key in keys
        if any(
            _tells_apart([{_value_text(one.get(key, _UNSET)) for one in f} for f in rows])
            for rows in (by_protocol if key.startswith(_INCREMENTAL) else [by_row])
        )
    ]


def _tells_apart(values: Sequence[set[str]]) -> bool:
    return all(len(each) == 1 for each in values) and len(set().union(*values)) > 1


def _shown(key: str) -> str:
    return key.partition(":")[2]


def _told(settings: dict[str, Any], keys: Iterable[str]) -> str:
    told = [key for key in keys if key in settings or not key.startswith(_INCREMENTAL)]
    return ", ".join(f"{_shown(key)}={_value_text(settings.get(key, _UNSET))}" for key in told)


def _value_text(value: Any) -> str:
    if value is _UNSET:
        return "unset"
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    if isinstance(value, list):
        return "[" + " ".join(_value_text(one) for one in value) + "]"
    return str(value)
