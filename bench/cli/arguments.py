"""Arguments that several commands share."""

from __future__ import annotations

import argparse
import difflib
import json
from collections.abc import Sequence
from pathlib import Path

from bench.plan.request import OVERWRITE, Request


def a_path(text: str) -> Path:
    """Return a path with `~` expanded: the shell does so in `--out ~/runs`, not in `--out=~/runs`."""
    from benchmarks.errors import DataError
    from benchmarks.paths import user_path

    try:
        return user_path(text)
    except DataError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def add_data_root(parser: argparse.ArgumentParser) -> None:
    """Add `--data-root`."""
    parser.add_argument(
        "--data-root",
        type=a_path,
        metavar="DIR",
        help="the parent of VOCdevkit or ADEChallengeData2016, or a folder of your own images "
        "(default: BENCH_DATA_ROOT, or data_root in the user's config.yaml)",
    )


def add_lists(parser: argparse.ArgumentParser) -> None:
    """Add what is said of the lists of images below a data root."""
    add_train_list(parser)
    add_max_megapixels(parser)
    parser.add_argument(
        "--shared-ids",
        choices=["refuse", "allow"],
        help="images in the training and in the test list (default refuse); also --set data.shared_ids=...",
    )


def add_train_list(parser: argparse.ArgumentParser) -> None:
    """Add `--train-list`."""
    text = "ids of the training images, in place of the data root's own list; also --set data.train_list=FILE"
    parser.add_argument("--train-list", metavar="FILE", help=text)


def add_max_megapixels(parser: argparse.ArgumentParser) -> None:
    """Add `--max-megapixels`."""
    text = "read images of up to N million pixels (default 179); also --set data.max_megapixels=N"
    parser.add_argument("--max-megapixels", type=_megapixels, metavar="N", help=text)


def _megapixels(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number <= 1_000_000:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number above 0, at most 1000000")
    return number


def add_runs_folder(parser: argparse.ArgumentParser, flag: str, bundles: bool = False) -> None:
    """Add the folder of run directories under the name of `flag`; `bundles` may stand in its place."""
    metavar, text = (
        ("DIR|ZIP", "folder of run directories, or a bundle") if bundles else ("DIR", "folder of run directories")
    )
    parser.add_argument(flag, type=a_path, default=Path("runs"), metavar=metavar, help=f"{text} (default runs)")


def add_chosen_strategies(parser: argparse.ArgumentParser) -> None:
    """Add `--strategies` of a command that shows finished runs."""
    text = 'those alone, as in "er,ours(sampling=uniform)" (default: all that have finished runs)'
    parser.add_argument("--strategies", metavar="NAMES", help=text)


def add_loggers(parser: argparse.ArgumentParser) -> None:
    """Add `--loggers`."""
    text = "csv,tensorboard,wandb: into logs/ of each run (default none)"
    parser.add_argument("--loggers", default="", metavar="NAMES", help=text)


def add_run_settings(parser: argparse.ArgumentParser) -> None:
    """Add what determines how runs are made, whatever they are runs of."""
    add = parser.add_argument
    add_data_root(parser)
    add_lists(parser)
    add("--seeds", type=integers, default=[0], help="e.g. 0,1,2 (default 0)")
    add("--preset", help="paper, small (default for shapes, scenes) or laptop (default for photographs without a GPU)")
    add("--config", type=a_path, metavar="FILE", help="YAML with settings over the preset's")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="one setting, e.g. incremental.lr=0.002")
    add("--evaluate-on", choices=["test", "valid"], help="stream (default test); valid is held out from training")
    add("--device", default="auto", help="auto, cpu or cuda")
    add("--devices", type=int, metavar="N", help="train base models and increments on N devices (docs/devices.md)")
    add_runs_folder(parser, "--out")
    add_loggers(parser)
    add("--jobs", type=int, metavar="N", help="runs side by side (default: cores / threads per run)")
    add(
        "--launcher",
        default="local",
        choices=["local", "slurm"],
        help="slurm submits the runs to a cluster: --set slurm.partition=gpu,slurm.timeout_min=240",
    )
    add("--verbose", action="store_true", help="print what the logs of the runs say, and log every update")
    add(
        "--overwrite",
        nargs="?",
        const="always",
        default="never",
        choices=OVERWRITE,
        help="never (default): unfinished runs go on, finished ones stay; failed: unfinished ones start again; "
        "stale: finished ones that other code, packages or plug-ins made start again; always, or no value: all do",
    )


def integers(text: str) -> list[int]:
    """Parse `0,1,2`."""
    try:
        return [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a list of whole numbers such as 0,1,2") from None


def words(text: str) -> list[str]:
    """Parse `csv,latex`."""
    return [part.strip() for part in text.split(",") if part.strip()]


def require_formats(asked: Sequence[str], known: Sequence[str]) -> None:
    """Raise `RequestError` for an empty list of formats and for an unknown one."""
    from bench.settings.errors import RequestError

    for name in asked:
        if name not in known:
            raise RequestError(f"--format {name}: allowed are {', '.join(known)}")
    if not asked:
        raise RequestError(f"--format is empty: allowed are {', '.join(known)}")


def scenarios_of(asked: Sequence[str], kinds: Sequence[str]) -> list[str]:
    """Return what of the words asked for is no kind of table or figure; each must be a scenario's name."""
    from bench.settings.errors import RequestError
    from benchmarks.names import parse_name

    names = [name for name in asked if name not in kinds]
    for name in names:
        near = difflib.get_close_matches(name, kinds, n=1)
        if near and "-" not in name:
            raise RequestError(f"unknown '{name}'; did you mean {near[0]}?")
        parse_name(name)
    return names


def request_of(options: argparse.Namespace, strategies: str | Sequence[str], scenario: str) -> Request:
    """Return the request of a command line that has `add_run_settings`."""
    from bench.settings.assignments import with_own_option

    file = None if options.train_list is None else json.dumps(options.train_list)
    short = (
        ("base.devices", options.devices, "--devices"),
        ("protocols.online.incremental.devices", options.devices, "--devices"),
        ("data.train_list", file, "--train-list"),
        ("data.shared_ids", options.shared_ids, "--shared-ids"),
        ("data.max_megapixels", options.max_megapixels, "--max-megapixels"),
    )
    assignments = options.set
    for key, value, option in short:
        if value is not None:
            assignments = with_own_option(assignments, key, value, option)
    return Request(
        strategies=strategies,
        scenario=scenario,
        data_root=options.data_root,
        seeds=options.seeds,
        preset=options.preset,
        config=options.config,
        assignments=assignments,
        device=options.device,
        out=options.out,
        jobs=options.jobs,
        overwrite=options.overwrite,
        evaluate_on=options.evaluate_on,
        launcher=options.launcher,
        verbose=options.verbose,
        loggers=options.loggers,
    )
