"""The commands that make results out of run directories: reproduce, curves, pictures, report."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.cli.arguments import (
    a_path,
    add_chosen_strategies,
    add_run_settings,
    add_runs_folder,
    require_formats,
    scenarios_of,
    words,
)
from bench.cli.chosen import add_convention, counted
from bench.cli.written import from_bundles, say, say_missing, write_results

if TYPE_CHECKING:
    from reports.records import Run, Unfinished

SETS = ("voc", "ade", "shapes", "scenes")
ON = "voc or ade: Tables 1, 2 on VOC and 3, 4 on ADE20K; shapes or scenes: the same on the embedded sets"
NUMBERS = ("1", "2", "3", "4")


def add_reproduce(parser: argparse.ArgumentParser) -> None:
    """Add `bench reproduce`."""
    add = parser.add_argument
    add("table", nargs="+", choices=[*NUMBERS, "offline"], help="numbers of the paper's tables, or offline")
    add("--on", default="voc", choices=SETS, help=f"{ON}; offline: the field's table on any of them (default voc)")
    add("--scenarios", type=words, metavar="NAMES", help="of the offline table, e.g. 15-5,15-1 (default all)")
    add_run_settings(parser)
    add(
        "--tables",
        type=a_path,
        default=Path("tables"),
        metavar="DIR",
        help="folder for the tables (default tables)",
    )
    add("--format", type=words, default=["csv", "latex"], help="csv,latex,markdown,html (default csv,latex)")
    add("--dry-run", action="store_true", help="say what is finished, what is missing and what it will cost")
    parser.set_defaults(command=_reproduce)


def _reproduce(options: argparse.Namespace) -> int:
    from rich.console import Console

    from bench.cli.arguments import request_of
    from bench.launch.execution import say_end
    from bench.launch.reproduce import offline_requests, reproduce, requests_for
    from bench.plan.folders import require_writable
    from bench.settings.errors import RequestError
    from reports.markup import FORMATS
    from reports.numbered import write_numbered
    from reports.offline_table import write_offline

    require_formats(options.format, FORMATS)
    require_writable(options.tables)
    console = Console(width=None if sys.stdout.isatty() else 120)
    common = request_of(options, strategies=[], scenario="")
    numbers = [int(name) for name in dict.fromkeys(options.table) if name in NUMBERS]
    offline = "offline" in options.table
    if offline and numbers:
        raise RequestError("the paper's tables are of the online protocol: ask for offline by itself")
    splits = options.scenarios
    if splits is not None and not offline:
        raise RequestError("--scenarios: the paper's tables have scenarios of their own; it is allowed with offline")

    def write(runs: Sequence[Run], unfinished: Sequence[Unfinished]) -> list[Path]:
        if offline:
            return write_offline(runs, options.tables, options.format, options.on, unfinished, splits)
        return write_numbered(numbers, runs, options.tables, options.format, on=options.on, unfinished=unfinished)

    requests = offline_requests(options.on, common, splits) if offline else requests_for(numbers, options.on, common)
    return say_end(reproduce(requests, common, write, options.dry_run, console), console)


FIGURES = ("curves", "forgetting", "classes", "cost")


def add_curves(parser: argparse.ArgumentParser) -> None:
    """Add `bench curves`."""
    add = parser.add_argument
    add("what", nargs="*", help=f"3 (Figure 3), {', '.join(FIGURES)}, or scenarios (default: all of each)")
    add_runs_folder(parser, "--runs", bundles=True)
    add_chosen_strategies(parser)
    add_convention(parser)
    add("--on", choices=SETS, help="of Figure 3: voc or ade the real sets, shapes or scenes the embedded ones")
    add("--out", type=a_path, default=Path("curves"), help="folder to write to (default curves)")
    add("--format", type=words, default=["png", "pdf"], help="png,pdf,svg (default png,pdf)")
    parser.set_defaults(command=from_bundles(_curves))


def _curves(options: argparse.Namespace) -> int:
    from reports.class_heatmap import write_class_heatmap
    from reports.cost_accuracy import write_cost_accuracy
    from reports.curves import write_curves, write_figure3
    from reports.forgetting import write_forgetting
    from reports.grids import MEMORY_SETTING
    from reports.lettering import fonts_notes
    from reports.notes import notes
    from reports.style import FORMATS

    require_formats(options.format, FORMATS)
    scenarios = scenarios_of(options.what, (*FIGURES, "3"))
    per_scenario = {
        "curves": write_curves,
        "forgetting": write_forgetting,
        "classes": write_class_heatmap,
        "cost": write_cost_accuracy,
    }
    asked = [name for name in FIGURES if name in options.what]
    figure3 = "3" in options.what or not options.what

    def write(runs: list[Run], out: Path, formats: Sequence[str]) -> list[Path]:
        written = write_figure3(runs, out, options.on, formats) if figure3 else []
        for name in asked or (() if options.what == ["3"] else FIGURES):
            written += per_scenario[name](runs, out, formats, scenarios or None)
        return written

    def told(runs: list[Run]) -> list[str]:
        named = "classes" in asked or not options.what
        return [*notes(runs, beside=[MEMORY_SETTING]), *(fonts_notes(runs) if named else ())]

    return write_results(options, write, told, gaps=bool(options.what))


def add_pictures(parser: argparse.ArgumentParser) -> None:
    """Add `bench pictures`."""
    add = parser.add_argument
    add("scenario", nargs="*", help="scenarios (default: all that have finished runs with predictions)")
    add_runs_folder(parser, "--runs", bundles=True)
    add_chosen_strategies(parser)
    add("--ids", type=words, help="image ids (default: those on which the methods disagree most)")
    add("--memory", type=int, metavar="N", help="runs with a memory of N images alone (default: of any size)")
    add("--count", type=int, help="how many images without --ids (default: as many as fit a page, 4 at most)")
    add("--out", type=a_path, default=Path("pictures"), help="folder to write to (default pictures)")
    add("--format", type=words, default=["png", "pdf"], help="png,pdf,svg (default png,pdf)")
    parser.set_defaults(command=from_bundles(_pictures))


def _pictures(options: argparse.Namespace) -> int:
    from bench.settings.errors import RequestError
    from benchmarks.names import parse_name
    from reports.grids import memory_of
    from reports.lettering import fonts_notes
    from reports.notes import notes
    from reports.pictures import write_pictures
    from reports.style import FORMATS

    require_formats(options.format, FORMATS)
    if options.count is not None and options.count < 1:
        raise RequestError(f"--count {options.count}: at least 1")
    for name in options.scenario:
        parse_name(name)

    def chosen(runs: Sequence[Run]) -> list[Run]:
        return [
            run
            for run in runs
            if (not options.scenario or run.spec["scenario"] in options.scenario)
            and options.memory in (None, memory_of(run))
        ]

    def write(runs: list[Run], out: Path, formats: Sequence[str]) -> list[Path]:
        return write_pictures(chosen(runs), out, options.ids, options.count, formats)

    def told(runs: list[Run]) -> list[str]:
        return [*notes(chosen(runs)), *fonts_notes(chosen(runs), pictures=True)]

    return write_results(options, write, told, gaps=False)


_PAGE = "report.html"


def add_report(parser: argparse.ArgumentParser) -> None:
    """Add `bench report`."""
    add = parser.add_argument
    add_runs_folder(parser, "--runs", bundles=True)
    add_convention(parser)
    add("--title", help="the page's title (default: made of the scenarios)")
    add("--study", type=a_path, metavar="DIR", help="a folder of `bench tune`, whose trials the page is to show too")
    text = f"folder to write {_PAGE} to, or the file itself, which then ends in .html (default {_PAGE})"
    add("--out", type=a_path, default=Path(_PAGE), metavar="PATH", help=text)
    parser.set_defaults(command=from_bundles(_report))


def _report(options: argparse.Namespace) -> int:
    from bench.plan.folders import require_writable
    from reports.lettering import fonts_notes
    from reports.notes import notes
    from reports.page.page import write_page
    from reports.records import find_runs, find_unfinished
    from reports.study import read_study

    is_file = options.out.suffix.lower() in (".html", ".htm") and not options.out.is_dir()
    page = options.out if is_file else options.out / _PAGE
    require_writable(page.parent)
    study = read_study(options.study) if options.study is not None else None
    runs, unfinished = counted(find_runs(options.runs), options.convention), find_unfinished(options.runs)
    say_missing(options.runs, runs, unfinished)
    if runs or study:
        print(write_page(runs, page, options.title, unfinished, study))
        say([*notes(runs), *fonts_notes(runs, pictures=True)])
    return 0
