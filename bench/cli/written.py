"""Files made out of finished runs, and what is said of them: what reports, tables and curves share."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.cli.chosen import counted, of_strategies

if TYPE_CHECKING:
    from reports.records import Run, Unfinished


def from_bundles(command: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    """Return a command as it is, but that `--runs` may be a bundle, which is unpacked meanwhile."""

    def unpacks(options: argparse.Namespace) -> int:
        from reports.verifying import unpacked

        with unpacked(options.runs) as folder:
            return command(argparse.Namespace(**{**vars(options), "runs": folder}))

    return unpacks


def write_results(
    options: argparse.Namespace,
    write: Callable[[list[Run], Path, Sequence[str]], list[Path]],
    told: Callable[[list[Run]], list[str]],
    gaps: bool,
) -> int:
    """Write from the finished runs and say what is told of them; without any, nothing or, for `gaps`, marked ones."""
    from bench.plan.folders import require_writable
    from reports.records import find_runs, find_unfinished

    require_writable(options.out)
    runs = counted(find_runs(options.runs), getattr(options, "convention", None))
    say_missing(options.runs, runs, find_unfinished(options.runs))
    if not runs and not gaps:
        return 0
    runs = of_strategies(runs, getattr(options, "strategies", None))
    for path in write(runs, options.out, options.format):
        print(path)
    say(told(runs))
    return 0


def say_missing(folder: Path, runs: Sequence[Run], unfinished: Sequence[Unfinished]) -> None:
    """Say which runs of a folder are not finished, or that none is."""
    from reports.notes import missing_notes

    if not runs:
        print(f"no finished run in {folder}", file=sys.stderr)
    say(missing_notes(runs, unfinished))


def say(notes: Sequence[str]) -> None:
    """Print notes on stderr."""
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
