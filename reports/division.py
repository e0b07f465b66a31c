"""Runs whose images were divided otherwise than their scenario's name says now."""

from __future__ import annotations

from collections.abc import Iterable

from reports.records import Run
from reports.spec import Spec

EARLIER_DIVISION = "made under the earlier division of dense disjoint steps"


def by_earlier_division(spec: Spec) -> bool:
    """Whether a run had other images in its disjoint steps than its scenario has now.

    Specs tell their division since the dense rule divides all steps in one go. Before, it divided a base step off first
    that was larger than the next one; 100-50 was not the increments of 100-10 joined.
    """
    if "division" in spec or "split_hash" not in spec or not _dense_disjoint(spec["scenario"]):
        return False
    sizes = [len(step["classes"]) for step in spec["steps"]]
    return sizes == [100, 50] or (len(sizes) > 2 and sizes[0] > sizes[1])


def _dense_disjoint(scenario: str) -> bool:
    name, _, options = scenario.partition(":")
    divided = not name.endswith("-overlapped") and "split=" not in options
    return divided and ("rule=ade" in options or (name.startswith(("ade-", "scenes-")) and "rule=" not in options))


def division_note(runs: Iterable[Run]) -> str:
    """Return the sentence that names the scenarios of runs by the earlier division; nothing if there are none."""
    names = sorted({run.spec["scenario"] for run in runs if by_earlier_division(run.spec)})
    return f"{', '.join(f'`{name}`' for name in names)}: {EARLIER_DIVISION}." if names else ""
