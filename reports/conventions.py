"""Whether runs were measured by one convention, on one split of one data set: only then are they one table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from reports.division import EARLIER_DIVISION, by_earlier_division
from reports.files import RecordError
from reports.records import Run, run_order, runs_on

UNKNOWN = "not recorded"
_NAMED = 5


def require_one_convention(runs: Sequence[Run]) -> None:
    """Raise RecordError, one line, if the runs do not share what makes their numbers comparable.

    That is every key of the spec's `conventions` over all runs, and over the runs of one scenario the split
    (`split_hash`) and the data's fingerprint. The line names what differs and the runs that are in the minority.
    """
    ordered = sorted(runs, key=run_order)
    for key in sorted({key for run in ordered for key in run.spec["conventions"]}):
        _require_one(f"convention {key}", ordered, [run.spec["conventions"].get(key, UNKNOWN) for run in ordered])
    for scenario in dict.fromkeys(run.spec["scenario"] for run in ordered):
        own = runs_on(scenario, ordered)
        splits = [str(run.spec.get("split_hash", UNKNOWN)) for run in own]
        earlier = {split for split, run in zip(splits, own, strict=True) if by_earlier_division(run.spec)}
        notes = {split: f"{split} ({EARLIER_DIVISION})" for split in earlier}
        _require_one(f"{scenario}: split_hash", own, splits, notes)
        prints = [run.spec.get("data", {}).get("fingerprint", UNKNOWN) for run in own]
        _require_one(f"{scenario}: data fingerprint", own, prints)


def _require_one(what: str, runs: Sequence[Run], values: Sequence[Any], notes: Mapping[str, str] | None = None) -> None:
    """Raise RecordError where `values`, one a run, differ; its line has for a value what `notes` has for it."""
    texts = [(notes or {}).get(str(value), str(value)) for value in values]
    counts = Counter(texts)
    if len(counts) < 2:
        return
    usual = min(counts, key=lambda text: (-counts[text], text))
    odd = [f"{text} in {run.path}" for run, text in zip(runs, texts, strict=True) if text != usual]
    rest = f" and {len(odd) - _NAMED} more" if len(odd) > _NAMED else ""
    raise RecordError(f"{what} is {usual} in {counts[usual]} of {len(runs)} runs, but {', '.join(odd[:_NAMED])}{rest}")


def convention_text(value: object) -> str:
    """Return a convention's value in words."""
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def recorded(value: object) -> str:
    """Return what a spec has, or that it has nothing."""
    return UNKNOWN if value is None else str(value)


def background_counts(conventions: Mapping[str, Any]) -> bool:
    """Whether the background's IoU enters the means: where a spec does not say otherwise."""
    return conventions.get("background_in_mean") is not False
