"""The commands for runs that are handed over: bundle, verify."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from bench.cli.arguments import a_path, add_data_root

if TYPE_CHECKING:
    from reports.records import Run


def add_bundle(parser: argparse.ArgumentParser) -> None:
    """Add `bench bundle`."""
    add = parser.add_argument
    add("runs", nargs="+", type=a_path, metavar="RUNS", help="finished runs, folders of them, or bundles")
    add("--out", type=a_path, required=True, metavar="FILE.zip", help="file to write")
    add("--networks", action="store_true", help="with the networks that the runs have kept")
    parser.set_defaults(command=_bundle)


def _bundle(options: argparse.Namespace) -> int:
    from bench.cli.written import say
    from bench.plan.folders import require_writable
    from bench.screen.words import several
    from bench.settings.errors import RequestError
    from reports.bundle import environment_here, write_bundle
    from reports.notes import missing_notes
    from reports.records import find_runs, find_unfinished
    from reports.verifying import unpacked

    if options.out.is_dir():
        raise RequestError(f"--out {options.out}: a folder, it is to be a file: {options.out / 'runs.zip'}")
    require_writable(options.out.parent)
    with ExitStack() as opened:
        folders = [opened.enter_context(unpacked(given)) for given in options.runs]
        found = [find_runs(folder) for folder in folders]
        _require_different(options.runs, found)
        runs = [run for each in found for run in each]
        say(missing_notes(runs, [run for folder in folders for run in find_unfinished(folder)]))
        if empty := [given for given, each in zip(options.runs, found, strict=True) if not each]:
            raise RequestError(f"{empty[0]}: there is no finished run")
        options.out.parent.mkdir(parents=True, exist_ok=True)
        size = write_bundle(runs, options.out, environment_here(), options.networks)
    print(f"{options.out}: {several(len(runs), 'run')}, {size / 1e6:.2f} MB")
    return 0


def _require_different(given: Sequence[Path], found: Sequence[Sequence[Run]]) -> None:
    """Raise `RequestError` for a run that is there twice, naming the bundles or directories that it is in."""
    from bench.settings.errors import RequestError
    from reports.spec import run_folder

    places: dict[Path, Path] = {}
    for source, runs in zip(given, found, strict=True):
        for run in runs:
            place, told = run_folder(Path(), run.spec), source if source.is_file() else run.path
            if place in places:
                raise RequestError(f"{told}: {place} is there, and in {places[place]} too; give one of them")
            places[place] = told


def add_verify(parser: argparse.ArgumentParser) -> None:
    """Add `bench verify`."""
    add = parser.add_argument
    add("file", type=a_path, metavar="FILE.zip", help="what `bench bundle` wrote")
    add("--rerun", type=int, default=0, metavar="K", help="make the K cheapest runs again and compare (default 0)")
    add("--out", type=a_path, default=Path("reruns"), metavar="DIR", help="folder for these (default reruns)")
    text = "points of mIoU by which a run that is made again may differ (default 1)"
    add("--tolerance", type=float, default=1.0, metavar="P", help=text)
    add_data_root(parser)
    parser.set_defaults(command=_verify)


def _verify(options: argparse.Namespace) -> int:
    from bench.screen.words import several
    from bench.settings.errors import RequestError
    from reports.verifying import verified

    if options.rerun < 0 or not options.tolerance >= 0:
        raise RequestError(f"--rerun {options.rerun} --tolerance {options.tolerance}: neither may be below 0")
    with verified(options.file) as found:
        for problem in found.problems:
            print(problem)
        runs, files = several(len(found.runs), "run"), several(len(found.manifest.files), "file")
        scenarios = several(len({run.spec["scenario"] for run in found.runs}), "scenario")
        faults = several(len(found.problems), "problem")
        told = faults if found.problems else "sound: every number follows from the records"
        print(f"{options.file}: {runs} of {scenarios}, {files}; {told}")
        if not found.runs or not options.rerun:
            return int(bool(found.problems or not found.runs))
        return max(int(bool(found.problems)), _rerun(options, found.runs))


def _rerun(options: argparse.Namespace, runs: list[Run]) -> int:
    from rich.console import Console

    from bench.launch.rerunning import cheapest, rerun
    from bench.plan.folders import require_writable

    require_writable(options.out)
    console = Console(width=None if sys.stdout.isatty() else 120)
    differ = False
    for run in cheapest(runs, options.rerun):
        compared = rerun(run, options.out, options.data_root, options.tolerance, console)
        console.print(compared.text, markup=False, highlight=False, soft_wrap=True)
        differ = differ or compared.differs
    return int(differ)
