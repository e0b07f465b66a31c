"""The command line. Exit status: 0 done; 1 a run failed; 2 the request was wrong (one line says how)."""

from __future__ import annotations

import argparse
import io
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TextIO

from bench.cli.arguments import (
    a_path,
    add_data_root,
    add_lists,
    add_loggers,
    add_max_megapixels,
    add_run_settings,
    add_train_list,
)
from bench.cli.queue import add_cancel, add_status
from bench.cli.reports import add_curves, add_pictures, add_report, add_reproduce, add_tables
from bench.homes import give_homes
from bench.interrupted import say_interrupted
from bench.screen.stopping import Interrupted, ends_interrupt

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from rich.console import Console

    from bench.launch.execution import Result

EXAMPLE = "bench run --strategies ours,er,mib --scenario shapes-15-1-disjoint"


class _Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *args: object, **kwargs: object) -> NoReturn:
        from importlib.metadata import version

        parser.exit(0, f"bench {version('continual-seg-bench')}\n")


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command and exit with its status."""
    _mend_streams()
    options = _parser().parse_args(arguments)
    try:
        with ends_interrupt():
            give_homes()
            sys.exit(options.command(options))
    except ValueError as error:
        if not _is_ours(error):
            raise
        sys.exit(_refused(str(error)))
    except KeyboardInterrupt as error:
        number = error.number if isinstance(error, Interrupted) else signal.SIGINT
        say_interrupted(number)
        sys.exit(128 + number)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (OSError, MemoryError, RuntimeError) as error:
        from bench.screen.faults import explained

        line = explained(error)
        if line is None and not isinstance(error, OSError):
            raise
        print(f"bench: {line or error}", file=sys.stderr)
        sys.exit(1)


def _mend_streams() -> None:
    """Have a stream that is closed take what is printed, and one of a poor encoding replace what it does not know."""

    def nowhere() -> TextIO:
        return os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8")

    while (file := os.open(os.devnull, os.O_RDWR)) <= 2:  # else the next file that is opened takes the stream's place
        pass
    os.close(file)
    sys.stdout, sys.stderr = sys.stdout or nowhere(), sys.stderr or nowhere()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _is_ours(error: ValueError) -> bool:
    """Whether the error is one of those whose message is the one line a user needs."""
    from bench.settings.errors import RequestError
    from benchmarks.errors import DataError
    from reports.files import RecordError

    return isinstance(error, (RequestError, DataError, RecordError))


def _refused(message: str) -> int:
    from benchmarks.errors import printable

    print(f"bench: {printable(' '.join(message.split()))}", file=sys.stderr)
    return 2


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="bench",
        description="Compare continual-learning strategies on class-incremental semantic segmentation.",
        epilog=f"example: {EXAMPLE}. Exit status: 0 done; 1 a run failed; 2 the request was wrong.",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_run(commands.add_parser("run", help="make runs: strategies on a scenario", epilog=f"example: {EXAMPLE}"))
    _add_run_one(commands.add_parser("run-one", help="make the one run that a directory describes, or go on with it"))
    add_status(commands.add_parser("status", help="tell what is done, running, waiting and failed"))
    add_cancel(commands.add_parser("cancel", help="take submitted runs out of the queue"))
    _add_strategies(commands.add_parser("strategies", help="list the strategies that are installed"))
    _add_scenarios(commands.add_parser("scenarios", help="list the scenarios of the paper's tables"))
    _add_scenario(commands.add_parser("scenario", help="show a scenario's steps, classes and image counts"))
    _add_data(commands.add_parser("data", help="get a data set, or check one"))
    add_reproduce(commands.add_parser("reproduce", help="make the runs of the paper's tables that are missing"))
    add_tables(commands.add_parser("tables", help="write tables from finished runs"))
    add_curves(commands.add_parser("curves", help="plot finished runs: Figure 3, mIoU, forgetting, classes, cost"))
    add_pictures(commands.add_parser("pictures", help="show images, truth and predictions over the steps: Figure 4"))
    add_report(commands.add_parser("report", help="write one HTML page with everything that finished runs tell"))
    _add_speed(commands.add_parser("speed", help="measure what this machine does, as ratios"))
    return parser


def _add_run(parser: argparse.ArgumentParser) -> None:
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


def _add_run_one(parser: argparse.ArgumentParser) -> None:
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
    from bench.cli.summary import results_table

    console.print(results_table(result.runs, console.width))
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


def _add_strategies(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--check", action="store_true", help="import each one and say what is wrong with it")
    parser.set_defaults(command=_strategies)


def _strategies(options: argparse.Namespace) -> int:
    from bench.settings.strategies import GRIDS
    from strategies.learning.registry import strategy_entry_points, unreadable_packages

    broken = 0
    points = strategy_entry_points()
    width = max(12, *map(len, points))
    for name, point in points.items():
        package = f"{point.dist.name} {point.dist.version}" if point.dist else ""
        state = _state(name) if options.check else ""
        broken += state.startswith("BROKEN")
        print(f"{name:<{width}} {point.value:<32} {package}  {state}  {_note(point)}".rstrip(), flush=options.check)
    for name, strategies in GRIDS.items():
        print(f"{name:<{width}} a grid of {len(strategies)}: {', '.join(strategies)}")
    for place, reason in unreadable_packages().items():
        print(f"{place}: BROKEN: the metadata of a package there cannot be read: {reason}")
    return 1 if broken or (options.check and unreadable_packages()) else 0


def _state(name: str) -> str:
    from bench.plan.strategy_check import problem_of

    problem = problem_of(name)
    return f"BROKEN: {problem}" if problem else "ok"


def _note(point: EntryPoint) -> str:
    """Return in brackets what else has the name of a strategy."""
    from bench.settings.strategies import GRIDS
    from strategies.learning.registry import full_name, packages_declaring

    several = packages_declaring(point.name)
    if len(several) > 1:
        return f"('{point.name}' is declared by {' and by '.join(several)})"
    return f"('{point.name}' is a grid; ask for {full_name(point)})" if point.name in GRIDS else ""


def _add_scenarios(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command=_scenarios)


def _scenarios(options: argparse.Namespace) -> int:
    from benchmarks.names import parse_name, scenario_names, step_sizes
    from benchmarks.sets.registry import image_set_class

    for name in scenario_names():
        parsed = parse_name(name)
        class_names = image_set_class(parsed.dataset).fixed_class_names or ()
        print(f"{name:<24} {' + '.join(map(str, step_sizes(parsed, len(class_names) - 1)))} classes")
    print("any BASE-INCREMENT that comes out even, 10+6+4, sequential, and your own images: see README, Scenarios")
    return 0


def _add_scenario(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", help="e.g. voc-15-1-disjoint")
    add_data_root(parser)
    text = "from the classes that each image shows instead (id and class numbers a line; test list: val for train)"
    parser.add_argument("--class-list", type=a_path, metavar="FILE", help=text)
    add_lists(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(command=_scenario)


def _scenario(options: argparse.Namespace) -> int:
    from bench.plan.folders import data_root_of
    from benchmarks.class_list import ClassList
    from benchmarks.decoding import MAX_MEGAPIXELS
    from benchmarks.names import parse_name
    from benchmarks.scenarios import SharedIds, load_scenario

    shared: SharedIds = "allow" if options.shared_ids == "allow" else "refuse"
    root = options.data_root
    if options.class_list is None:
        root = data_root_of(parse_name(options.name).dataset, root)
    most = options.max_megapixels or MAX_MEGAPIXELS
    scenario = load_scenario(options.name, root, options.train_list, shared, options.class_list, most)
    described = scenario.as_dict()
    if options.json:
        print(json.dumps(described, indent=2))
        return 0
    print(described["name"])
    if isinstance(scenario.imageset, ClassList):
        print(f"classes of {scenario.imageset.told()}")
    print(f"division {described['division']}")
    names = scenario.imageset.class_names
    published = scenario.published_sizes
    for step in described["steps"]:
        t = step["step"]
        note = ""
        if published:
            note = "as published" if published[t] == step["train_images"] else f"published: {published[t]}"
        tested = "unknown" if step["test_images"] is None else f"{step['test_images']:>5}"
        print(f"step {t}: {step['train_images']:>6} training, {tested} test images  {note}".rstrip())
        if foreign := scenario.images_without_own_class[t]:
            print(f"        {foreign} of the training images show none of the step's classes")
        print(f"        classes {', '.join(f'{c} {names[c]}' for c in step['classes'])}")
        print(f"        train_sha256 {step['train_sha256']}")
    print(f"split_hash {described['split_hash'] or 'unknown'}")
    for remark in scenario.remarks():
        print(f"note: {remark}")
    return 0


def _add_data(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_data_get(commands.add_parser("get", help="download, verify and unpack what a data root lacks"))
    _add_data_check(commands.add_parser("check", help="say exactly what is missing or damaged"))


def _add_data_get(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("name", help="voc (VOC 2012 and SBD) or ade (ADEChallengeData2016)")
    add_data_root(parser)
    add(
        "--sources",
        type=a_path,
        metavar="FILE",
        help="YAML, archive name: {url, checksum}, over the published ones",
    )
    add("--keep-archives", action="store_true", help="keep the archives in DIR/downloads once they are unpacked")
    add("--tries", type=int, default=8, metavar="N", help="tries in a row without a new byte (default 8)")
    parser.set_defaults(command=_data_get)


def _data_get(options: argparse.Namespace) -> int:
    from rich.console import Console

    from bench.plan.folders import usual_data_root
    from bench.screen.view import reading
    from bench.settings.plain_yaml import read_yaml
    from benchmarks.errors import FetchError
    from benchmarks.obtain.obtain import obtain
    from benchmarks.obtain.sources import with_mirrors

    console = Console(width=None if sys.stdout.isatty() else 120)
    mirrors = read_yaml(options.sources) if options.sources else {}
    try:
        with reading(console) as progress:
            obtain(
                options.name,
                options.data_root or usual_data_root(),
                archives=with_mirrors(mirrors, str(options.sources)),
                keep_archives=options.keep_archives,
                tries=options.tries,
                note=lambda text: console.print(text, markup=False, highlight=False, soft_wrap=True),
                progress=progress,
            )
    except FetchError as error:
        print(f"bench: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0


def _add_data_check(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", help="voc, ade or folder")
    add_data_root(parser)
    add_train_list(parser)
    add_max_megapixels(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(command=_data_check)


def _data_check(options: argparse.Namespace) -> int:
    from rich.console import Console

    from bench.cli.data_check import print_report
    from bench.plan.folders import usual_data_root
    from bench.screen.view import reading
    from benchmarks.decoding import MAX_MEGAPIXELS
    from benchmarks.obtain.checking import check

    width = None if sys.stdout.isatty() else 120
    console = Console(width=width)
    with reading(Console(width=width, stderr=True) if options.json else console) as progress:
        root, most = options.data_root or usual_data_root(), options.max_megapixels or MAX_MEGAPIXELS
        report = check(options.name, root, progress, options.train_list, most)
    if options.json:
        print(json.dumps(report.as_dict(), indent=2))
    else:
        print_report(report, console)
    return 1 if report.faults else 0


def _add_speed(parser: argparse.ArgumentParser) -> None:
    what = "update, scan, remap, loader, memory, pool (default: all that can be measured, less pool)"
    parser.add_argument("what", nargs="*", help=what)
    add_data_root(parser)
    parser.set_defaults(command=_speed)


def _speed(options: argparse.Namespace) -> int:
    from bench.plan.folders import usual_data_root
    from bench.speed.ratios import measure

    return measure(options.what, options.data_root or (usual_data_root() if "scan" in options.what else None))
