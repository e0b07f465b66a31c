"""The command that measures: speed."""

from __future__ import annotations

import argparse
import os

from bench.cli.arguments import a_path, add_data_root


def add_speed(parser: argparse.ArgumentParser) -> None:
    """Add `bench speed`."""
    what = "update, offline, offline-laptop, laptop, losses, large, evaluation, scan, remap, loader, memory, index"
    parser.add_argument("what", nargs="*", help=f"{what}, scale, pool (default: those that are quick); or gpu alone")
    add_data_root(parser)
    parser.add_argument("--device", default="auto", help="of gpu: auto (default), cpu (tiny), cuda, cuda:N")
    parser.add_argument("--out", type=a_path, metavar="FILE", help="of gpu: a JSON file of what was measured")
    parser.set_defaults(command=_speed)


def _speed(options: argparse.Namespace) -> int:
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # torch's profiler else says when it begins and what it misses
    if options.what == ["gpu"]:
        from bench.speed.gpu import gpu

        return gpu(options.device, options.out)
    from bench.plan.folders import usual_data_root
    from bench.speed.ratios import measure

    return measure(options.what, options.data_root or (usual_data_root() if "scan" in options.what else None))
