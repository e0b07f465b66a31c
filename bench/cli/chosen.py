"""Which finished runs a command shows, and by which convention: `--strategies`, `--convention`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reports.records import Run


def add_convention(parser: argparse.ArgumentParser) -> None:
    """Add `--convention`."""
    parser.add_argument(
        "--convention",
        metavar="NAME",
        help="count as em, mib, plop, ssul or dkd does, and by single switches: mib,background_in_mean=yes (default: "
        "each run's own)",
    )


def counted(runs: Sequence[Run], convention: str | None) -> list[Run]:
    """Return runs as they are counted by what was asked for; raise `RequestError` where there is no such convention."""
    if convention is None:
        return list(runs)
    from bench.settings.errors import RequestError
    from reports.counting import ConventionError, under

    try:
        return under(runs, convention)
    except ConventionError as error:
        raise RequestError(f"--convention {error}") from None


def of_strategies(runs: Sequence[Run], asked: str | None) -> list[Run]:
    """Return the runs of the strategies asked for, all by default; `RequestError` for one without a finished run."""
    if asked is None:
        return list(runs)
    from bench.settings.errors import RequestError
    from bench.settings.strategies import strategy_labels

    labels, there = strategy_labels(asked), sorted({run.spec["strategy"] for run in runs})
    for label in labels:
        if runs and label not in there:
            raise RequestError(f"--strategies {label}: no finished run; there are runs of {', '.join(there)}")
    return [run for run in runs if run.spec["strategy"] in labels]
