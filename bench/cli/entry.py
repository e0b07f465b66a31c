"""The command line. Exit status: 0 done; 1 a run failed; 2 the request was wrong (one line says how)."""

from __future__ import annotations

import argparse
import io
import os
import signal
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn, TextIO

from bench.cli.bundling import add_bundle, add_verify
from bench.cli.data import add_data
from bench.cli.listing import add_networks, add_scenario, add_scenarios, add_strategies
from bench.cli.making import add_run, add_run_one
from bench.cli.measuring import add_speed
from bench.cli.queue import add_cancel, add_status
from bench.cli.reports import add_curves, add_pictures, add_report, add_reproduce
from bench.cli.tables import add_tables
from bench.cli.tuning import add_tune
from bench.cli.using import add_evaluate, add_export, add_predict
from bench.homes import give_homes
from bench.interrupted import say_interrupted
from bench.screen.stopping import Interrupted, ends_interrupt

if TYPE_CHECKING:
    pass

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
    add_run(commands.add_parser("run", help="make runs: strategies on a scenario", epilog=f"example: {EXAMPLE}"))
    add_run_one(commands.add_parser("run-one", help="make the one run that a directory describes, or go on with it"))
    add_tune(commands.add_parser("tune", help="choose strategies' settings on held-out training images"))
    add_status(commands.add_parser("status", help="tell what is done, running, waiting and failed"))
    add_cancel(commands.add_parser("cancel", help="take submitted runs out of the queue"))
    add_strategies(commands.add_parser("strategies", help="list the strategies that are installed"))
    add_networks(commands.add_parser("networks", help="list the networks that are installed"))
    add_scenarios(commands.add_parser("scenarios", help="list the scenarios of the paper's tables"))
    add_scenario(commands.add_parser("scenario", help="show a scenario's steps, classes and image counts"))
    add_data(commands.add_parser("data", help="get a data set, or check one"))
    add_reproduce(commands.add_parser("reproduce", help="make the runs of the paper's tables that are missing"))
    add_tables(commands.add_parser("tables", help="write tables from finished runs"))
    add_curves(commands.add_parser("curves", help="plot finished runs: Figure 3, mIoU, forgetting, classes, cost"))
    add_pictures(commands.add_parser("pictures", help="show images, truth and predictions over the steps: Figure 4"))
    add_report(commands.add_parser("report", help="write one HTML page with everything that finished runs tell"))
    add_predict(commands.add_parser("predict", help="segment images with a network that a run has kept"))
    add_export(commands.add_parser("export", help="write a network that a run has kept as ONNX"))
    add_evaluate(commands.add_parser("evaluate", help="evaluate kept networks by other settings or images"))
    add_bundle(commands.add_parser("bundle", help="put the records of finished runs into one file to hand over"))
    add_verify(commands.add_parser("verify", help="check a bundle: every number from its records, what is missing"))
    add_speed(commands.add_parser("speed", help="measure what this machine does, as ratios"))
    return parser
