"""The commands about a data root: data get, data check."""

from __future__ import annotations

import argparse
import json
import sys

from bench.cli.arguments import a_path, add_data_root, add_max_megapixels, add_train_list


def add_data(parser: argparse.ArgumentParser) -> None:
    """Add `bench data`."""
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
