"""The commands that use networks which runs have kept: predict, export, evaluate."""

from __future__ import annotations

import argparse
import sys

from bench.cli.arguments import a_path, add_data_root, add_max_megapixels

_RUN = "a run's directory, or the file of a network that it kept"
_SIDES = range(16, 4097)


def add_predict(parser: argparse.ArgumentParser) -> None:
    """Add `bench predict`."""
    add = parser.add_argument
    add("run", type=a_path, metavar="RUN_DIR", help=_RUN)
    add("images", nargs="+", type=a_path, metavar="IMAGE", help="photographs, and folders of them")
    add("--out", type=a_path, required=True, metavar="DIR", help="folder to write the label maps to")
    add("--overlay", action="store_true", help="also write DIR/overlays: the images under their labels' colours")
    _add_network(parser)
    add("--device", default="auto", help="auto, cpu or cuda")
    text = "scale the shorter side to N pixels first (default: as the run's evaluation does)"
    add("--short-side", type=int, metavar="N", help=text)
    add_max_megapixels(parser)
    parser.set_defaults(command=_predict)


def _predict(options: argparse.Namespace) -> int:
    from rich.console import Console

    from bench.plan.folders import require_writable
    from bench.settings.errors import RequestError
    from bench.use.photographs import photographs
    from benchmarks.decoding import MAX_MEGAPIXELS

    if options.short_side is not None and options.short_side not in _SIDES:
        raise RequestError(f"--short-side {options.short_side}: allowed are {_SIDES[0]} to {_SIDES[-1]}")
    require_writable(options.out)
    found = photographs(options.images, options.out)
    from bench.use.segmenter import load  # imports torch
    from bench.use.segmenting import Asked, segment

    segmenter = load(options.run, options.step, options.device)
    console = Console(width=None if sys.stdout.isatty() else 120)
    asked = Asked(options.overlay, options.short_side, options.max_megapixels or MAX_MEGAPIXELS)
    unread = segment(segmenter, found, asked, console)
    text = f"{len(found) - len(unread)} label maps in {options.out}"
    if unread:
        text += f", {len(unread)} images could not be read"
    console.print(text, markup=False, highlight=False, soft_wrap=True)
    return 2 if len(unread) == len(found) else int(bool(unread))


def add_export(parser: argparse.ArgumentParser) -> None:
    """Add `bench export`."""
    add = parser.add_argument
    add("run", type=a_path, metavar="RUN_DIR", help=_RUN)
    add("--format", choices=["onnx"], default="onnx", help="onnx (default)")
    add("--out", type=a_path, metavar="FILE", help="file to write (default: step-T.onnx beside the network)")
    _add_network(parser)
    parser.set_defaults(command=_export)


def _export(options: argparse.Namespace) -> int:
    from bench.plan.folders import require_writable
    from bench.use.loading import kept_file
    from bench.use.onnx_export import export_onnx, require_packages
    from bench.use.segmenter import load
    from reports.predictions import recorded_images

    require_packages()
    file = options.run if options.run.is_file() else kept_file(options.run, options.step)
    out = options.out or file.with_suffix(".onnx")
    require_writable(out.parent)
    segmenter = load(options.run, options.step, "cpu")
    print(out, export_onnx(segmenter, out, recorded_images(options.run)), sep=": ")
    return 0


def add_evaluate(parser: argparse.ArgumentParser) -> None:
    """Add `bench evaluate`."""
    add = parser.add_argument
    add("run", nargs="+", type=a_path, metavar="RUN_DIR", help="directories of finished runs, or folders of them")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="e.g. evaluation.short_side=512")
    add_data_root(parser)
    add("--scenario", metavar="NAME", help="on another data set with the same classes (default: the run's)")
    add("--device", default="auto", help="auto, cpu or cuda")
    parser.set_defaults(command=_evaluate)


def _evaluate(options: argparse.Namespace) -> int:
    from rich.console import Console

    from bench.plan.folders import run_folders
    from bench.settings.errors import RequestError
    from bench.use.evaluating import Asked, evaluate, planned

    runs = [run for folder in options.run for run in run_folders(folder)]
    if not runs:
        raise RequestError(f"{options.run[0]}: there is no run directory")
    asked = Asked(options.set, options.data_root, options.scenario, options.device)
    console = Console(width=None if sys.stdout.isatty() else 120)
    for evaluation in [planned(run, asked) for run in runs]:
        evaluate(evaluation, console)
        print(evaluation.folder)
    return 0


def _add_network(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--step", type=int, metavar="T", help="the network after step T (default: the last one kept)")
