"""The command that measures: speed."""

from __future__ import annotations

import argparse

from bench.cli.arguments import add_data_root


def add_speed(parser: argparse.ArgumentParser) -> None:
    """Add `bench speed`."""
    what = (
        "update, offline, laptop, losses, evaluation, scan, remap, loader, memory, pool (default: those that are quick)"
    )
    parser.add_argument("what", nargs="*", help=what)
    add_data_root(parser)
    parser.set_defaults(command=_speed)


def _speed(options: argparse.Namespace) -> int:
    from bench.plan.folders import usual_data_root
    from bench.speed.ratios import measure

    return measure(options.what, options.data_root or (usual_data_root() if "scan" in options.what else None))
