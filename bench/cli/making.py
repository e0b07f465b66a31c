"""The commands that make runs: run, run-one."""

from __future__ import annotations

import argparse
import sys
import time
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from bench.cli.arguments import a_path, add_loggers, add_run_settings

if TYPE_CHECKING:
    from rich.console import Console

    from bench.launch.execution import Result


def add_run(parser: argparse.ArgumentParser) -> None:
    """Add `bench run`."""
    add = parser.add_argument
    add("--strategies", required=True, help='names, with parameters if wanted: "er,ours(sampling=uniform)"')
    add("--scenario", required=True, help="e.g. shapes-15-1-disjoint; `bench scenarios` lists them")
    add("--memory", type=int, help="images in memory, the same as --set memory.size=N")
    add_run_settings(parser)
    parser.set_defaults(command=_run)


def _run(options: argparse.Namespace) -> int:
    from rich.console import Console

    from bench.cli.arguments import request_of
    from bench.launch.execution import say_end
    from bench.launch.session import run
    from bench.settings.assignments import with_own_option

    console = Console(width=None if sys.stdout.isatty() else 120)
    if options.memory is not None:
        options.set = with_own_option(options.set, "memory.size", options.memory, "--memory")
    result = run(request_of(options, strategies=options.strategies, scenario=options.scenario), console)
    try:
        if result.runs:
            _show(result, options.out, console)
    finally:
        status = say_end(result, console)
    return status


def add_run_one(parser: argparse.ArgumentParser) -> None:
    """Add `bench run-one`."""
    add = parser.add_argument
    add("folder", type=a_path, metavar="RUN_DIR", help="the run's directory, in which its spec.yaml stands")
    add("--base-only", action="store_true", help="train the base model that it needs and no more")
    add("--verbose", action="store_true", help="print what the log says, and log every update")
    add_loggers(parser)
    parser.set_defaults(command=_run_one)


def _run_one(options: argparse.Namespace) -> int:
    from rich.console import Console

    from bench.launch.execution import run_one, say_end

    console = Console(width=None if sys.stdout.isatty() else 120)
    result = run_one(options.folder, console, options.base_only, options.verbose, options.loggers)
    return say_end(result, console)


def _show(result: Result, out: Path, console: Console) -> None:
    """Print the table of this command's runs, and write the tables and curves of all runs in the folder."""
    from bench.cli.summary import print_results

    print_results(result.runs, console)
    written = _write_results(out, result.runs[0].spec["scenario"], console)
    for path in [*(run.path for run in result.runs), *written]:
        console.print(str(path), markup=False, highlight=False, soft_wrap=True)


def _write_results(out: Path, scenario: str, console: Console) -> list[Path]:
    """Write the tables and curves of all runs in the folder and return their paths; one command at a time does."""
    from bench.launch.claims import Claims, holder
    from reports.atomic import clear_scraps
    from reports.curves import write_curves
    from reports.files import RecordError
    from reports.notes import missing_notes, notes
    from reports.records import find_runs, find_unfinished
    from reports.scenario_tables import write_tables

    claim = out / "tables" / ".claim"
    written: list[Path] = []
    with Claims() as claims:
        for waited in count():
            if claims.take(claim):
                break
            if waited == 50:
                text = f"{holder(claim)} has been writing the tables and curves for a while; awaited"
                console.print(text, markup=False, highlight=False, soft_wrap=True)
            time.sleep(0.2)
        for name in ("tables", "curves"):
            clear_scraps(out / name)
        try:
            runs, unfinished = find_runs(out / scenario), find_unfinished(out / scenario)
            written += write_tables(runs, out / "tables", unfinished=unfinished)
            written += write_curves(runs, out / "curves", ("png", "pdf"))
            for note in (*missing_notes(runs, unfinished), *notes(runs)):
                console.print(f"note: {note}", markup=False, highlight=False, soft_wrap=True)
        except RecordError as error:
            note = f"note: no table or curves of all runs in {out}: {error}"
            console.print(note, markup=False, highlight=False, soft_wrap=True)
    return written
