"""The command line. Exit status: 0 done; 1 a run failed; 2 the request was wrong (one line says how)."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from rich.console import Console

    from bench.session import Result

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
    options = _parser().parse_args(arguments)
    try:
        if getattr(options, "data_root", False) is None:
            options.data_root = _usual_data_root()
        sys.exit(options.command(options))
    except ValueError as error:
        if not _is_ours(error):
            raise
        sys.exit(_refused(str(error)))
    except KeyboardInterrupt:
        print("bench: interrupted", file=sys.stderr)
        sys.exit(130)
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        else:
            print(f"bench: {error}", file=sys.stderr)
        sys.exit(1)


def _usual_data_root() -> Path | None:
    """The environment's data root, or that of `XDG_CONFIG_HOME/continual-seg-bench/config.yaml`."""
    chosen = os.environ.get("BENCH_DATA_ROOT")
    if chosen:
        return Path(chosen)
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    file = home / "continual-seg-bench" / "config.yaml"
    if not file.is_file():
        return None
    from bench.config import RequestError, read_yaml

    root = read_yaml(file).get("data_root")
    if not isinstance(root, str):
        raise RequestError(f"{file}: data_root is {root!r}, it is the path of a folder")
    return Path(root)


def _is_ours(error: ValueError) -> bool:
    """Whether the error is one of those whose message is the one line a user needs."""
    from bench.config import RequestError
    from benchmarks.errors import DataError
    from reports.records import RecordError

    return isinstance(error, (RequestError, DataError, RecordError))


def _refused(message: str) -> int:
    print(f"bench: {' '.join(message.split())}", file=sys.stderr)
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
    _add_strategies(commands.add_parser("strategies", help="list the strategies that are installed"))
    _add_scenarios(commands.add_parser("scenarios", help="list the scenarios of the paper's tables"))
    _add_scenario(commands.add_parser("scenario", help="show a scenario's steps, classes and image counts"))
    _add_tables(commands.add_parser("tables", help="write tables from finished runs"))
    _add_curves(commands.add_parser("curves", help="plot mIoU per step from finished runs"))
    _add_speed(commands.add_parser("speed", help="measure what this machine does, as ratios"))
    return parser


def _add_run(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--strategies", required=True, help='names, with parameters if wanted: "er,ours(sampling=uniform)"')
    add("--scenario", required=True, help="e.g. shapes-15-1-disjoint; `bench scenarios` lists them")
    _add_data_root(parser)
    add("--seeds", type=_integers, default=[0], help="e.g. 0,1,2 (default 0)")
    add("--memory", type=int, help="images in memory, the same as --set memory.size=N")
    add("--preset", help="paper (default for voc) or small (default for shapes)")
    add("--config", type=Path, metavar="FILE", help="YAML with settings over the preset's")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="one setting, e.g. incremental.lr=0.002")
    add("--evaluate-on", choices=["test", "valid"], help="stream (default test); valid is held out from training")
    add("--device", default="auto", help="auto, cpu or cuda")
    _add_runs_folder(parser, "--out")
    add("--jobs", type=int, metavar="N", help="runs side by side (default: cores / threads per run)")
    add("--overwrite", action="store_true", help="make finished runs again")
    parser.set_defaults(command=_run)


def _run(options: argparse.Namespace) -> int:
    from rich.console import Console

    from bench.session import Request, run
    from bench.view import last_line

    console = Console(width=None if sys.stdout.isatty() else 120)
    memory = [] if options.memory is None else [f"memory.size={options.memory}"]
    result = run(
        Request(
            strategies=options.strategies,
            scenario=options.scenario,
            data_root=options.data_root,
            seeds=options.seeds,
            preset=options.preset,
            config=options.config,
            assignments=[*options.set, *memory],
            device=options.device,
            out=options.out,
            jobs=options.jobs,
            overwrite=options.overwrite,
            evaluate_on=options.evaluate_on,
        ),
        console,
    )
    if result.runs:
        _show(result, options.out, console)
    for job, failure in result.failures.items():
        console.print(
            f"failed: {job}: {last_line(failure)}", style="red", markup=False, highlight=False, soft_wrap=True
        )
    return 1 if result.failures else 0


def _show(result: Result, out: Path, console: Console) -> None:
    """Print the table of this command's runs, and write the tables and curves of all runs in the folder."""
    from bench.summary import results_table
    from reports.curves import write_curves
    from reports.records import find_runs
    from reports.tables import write_tables

    console.print(results_table(result.frame))
    runs = find_runs(out / result.runs[0].spec["scenario"])
    written = [*write_tables(runs, out / "tables"), *write_curves(runs, out / "curves")]
    for path in [*(run.path for run in result.runs), *written]:
        console.print(str(path), markup=False, highlight=False, soft_wrap=True)


def _add_strategies(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--check", action="store_true", help="import each one and name the broken ones")
    parser.set_defaults(command=_strategies)


def _strategies(options: argparse.Namespace) -> int:
    from bench.config import GRIDS
    from strategies.registry import strategy_entry_points

    broken = 0
    for name, point in strategy_entry_points().items():
        package = f"{point.dist.name} {point.dist.version}" if point.dist else ""
        state = _import_problem(point.load) if options.check else ""
        broken += bool(state and state != "ok")
        print(f"{name:<12} {point.value:<32} {package}  {state}".rstrip())
    for name, strategies in GRIDS.items():
        print(f"{name:<12} a grid of {len(strategies)}: {', '.join(strategies)}")
    return 1 if broken else 0


def _import_problem(load: Callable[[], object]) -> str:
    try:
        load()
    except Exception as error:
        return f"BROKEN: {type(error).__name__}: {error}"
    return "ok"


def _add_scenarios(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command=_scenarios)


def _scenarios(options: argparse.Namespace) -> int:
    from benchmarks.names import parse_name, scenario_names, step_sizes
    from benchmarks.registry import image_set_class

    for name in scenario_names():
        parsed = parse_name(name)
        class_names = image_set_class(parsed.dataset).fixed_class_names or ()
        print(f"{name:<24} {' + '.join(map(str, step_sizes(parsed, len(class_names) - 1)))} classes")
    print("any BASE-INCREMENT that comes out even, 10+6+4, sequential, and your own images: see README, Scenarios")
    return 0


def _add_scenario(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", help="e.g. voc-15-1-disjoint")
    _add_data_root(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(command=_scenario)


def _scenario(options: argparse.Namespace) -> int:
    from benchmarks.scenarios import load_scenario

    scenario = load_scenario(options.name, options.data_root)
    described = scenario.as_dict()
    if options.json:
        print(json.dumps(described, indent=2))
        return 0
    print(described["name"])
    names = scenario.imageset.class_names
    published = scenario.published_sizes
    for step in described["steps"]:
        t = step["step"]
        note = ""
        if published:
            note = "as published" if published[t] == step["train_images"] else f"published: {published[t]}"
        print(f"step {t}: {step['train_images']:>6} training, {step['test_images']:>5} test images  {note}".rstrip())
        foreign = scenario.images_without_own_class(t)
        if foreign:
            print(f"        {foreign} of the training images show none of the step's classes")
        print(f"        classes {', '.join(f'{c} {names[c]}' for c in step['classes'])}")
        print(f"        train_sha256 {step['train_sha256']}")
    print(f"split_hash {described['split_hash']}")
    return 0


def _add_tables(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("table", nargs="*", help="`costs` or scenarios (default: all that have finished runs)")
    _add_runs_folder(parser, "--runs")
    parser.add_argument("--out", type=Path, default=Path("tables"), help="folder to write to (default tables)")
    parser.add_argument(
        "--format", type=_words, default=["csv", "latex"], help="csv,latex,markdown (default csv,latex)"
    )
    parser.set_defaults(command=_tables)


def _tables(options: argparse.Namespace) -> int:
    from reports.costs import write_costs
    from reports.tables import FORMATS, write_tables

    scenarios = [name for name in options.table if name != "costs"]
    return _write(options, scenarios, FORMATS, write_costs if "costs" in options.table else write_tables)


def _add_curves(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("scenario", nargs="*", help="scenarios (default: all that have finished runs)")
    _add_runs_folder(parser, "--runs")
    parser.add_argument("--out", type=Path, default=Path("curves"), help="folder to write to (default curves)")
    parser.add_argument("--format", type=_words, default=["png", "pdf"], help="png,pdf (default png,pdf)")
    parser.set_defaults(command=_curves)


def _curves(options: argparse.Namespace) -> int:
    from reports.curves import FORMATS, write_curves

    return _write(options, options.scenario, FORMATS, write_curves)


def _write(
    options: argparse.Namespace, scenarios: list[str], formats: Sequence[str], write: Callable[..., list[Path]]
) -> int:
    from bench.config import RequestError
    from bench.folders import require_writable
    from benchmarks.scenarios import parse_name
    from reports.records import find_runs

    for name in options.format:
        if name not in formats:
            raise RequestError(f"--format {name}: allowed are {', '.join(formats)}")
    for name in scenarios:
        parse_name(name)
    if not options.format:
        raise RequestError(f"--format is empty: allowed are {', '.join(formats)}")
    require_writable(options.out)
    runs = find_runs(options.runs) if options.runs.is_dir() else []
    if not runs:
        print(f"no finished run in {options.runs}", file=sys.stderr)
        if not scenarios:
            return 0
    written = write(runs, options.out, formats=options.format, scenarios=scenarios or None)
    for path in written:
        print(path)
    return 0


def _add_speed(parser: argparse.ArgumentParser) -> None:
    from bench.speed import MEASUREMENTS

    parser.add_argument("what", nargs="*", help=f"{', '.join(MEASUREMENTS)} (default: all that can be measured)")
    _add_data_root(parser)
    parser.set_defaults(command=_speed)


def _speed(options: argparse.Namespace) -> int:
    from bench.speed import measure

    return measure(options.what, options.data_root)


def _add_data_root(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data-root",
        type=Path,
        metavar="DIR",
        help="the parent of VOCdevkit (default: BENCH_DATA_ROOT, or data_root in the user's config.yaml)",
    )


def _add_runs_folder(parser: argparse.ArgumentParser, flag: str) -> None:
    parser.add_argument(
        flag, type=Path, default=Path("runs"), metavar="DIR", help="folder of run directories (default runs)"
    )


def _integers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a list of whole numbers such as 0,1,2") from None


def _words(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
