"""The commands that look after runs that are under way: status, cancel."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from bench.cli.arguments import a_path, add_runs_folder


def add_status(parser: argparse.ArgumentParser) -> None:
    """Add `bench status`."""
    add_runs_folder(parser, "--runs")
    parser.add_argument("--json", action="store_true", help="print JSON, a record per run")
    parser.set_defaults(command=_status)


def _status(options: argparse.Namespace) -> int:
    from rich.console import Console

    from bench.launch.queue import queue_states
    from bench.launch.status import print_states, run_states

    _require_folder(options.runs)
    unreadable: list[OSError] = []
    states = run_states(options.runs, queue_states, unreadable.append)
    if options.json:
        print(json.dumps([run.as_dict() for run in states], indent=1))
    else:
        print_states(states, Console(width=None if sys.stdout.isatty() else 120))
    for error in unreadable:
        print(f"bench: {error.filename}: cannot be read ({error.strerror})", file=sys.stderr)
    return 1 if unreadable else 0


def add_cancel(parser: argparse.ArgumentParser) -> None:
    """Add `bench cancel`."""
    text = "directories of runs, or folders of them (default: those of --runs)"
    parser.add_argument("run", nargs="*", type=a_path, metavar="RUN_DIR", help=text)
    add_runs_folder(parser, "--runs")
    parser.set_defaults(command=_cancel)


def _cancel(options: argparse.Namespace) -> int:
    from rich.console import Console

    from bench.launch.queue import cancel
    from bench.plan.folders import run_folders

    chosen = options.run or [options.runs]
    for folder in chosen:
        _require_folder(folder)
    runs = [run for folder in chosen for run in run_folders(folder)]
    cancel(runs, Console(width=None if sys.stdout.isatty() else 120))
    return 0


def _require_folder(folder: Path) -> None:
    from bench.settings.errors import RequestError

    if not folder.is_dir():
        raise RequestError(f"{folder}: there is no such folder of runs")
