"""The command that chooses settings on held-out training images: tune."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bench.cli.arguments import a_path, add_run_settings

if TYPE_CHECKING:
    from rich.table import Table

    from reports.study import Study


def add_tune(parser: argparse.ArgumentParser) -> None:
    """Add `bench tune`."""
    add = parser.add_argument
    add("--strategies", help='names, with parameters that are to stay: "er,ours(sampling=uniform)"')
    add("--scenario", help="e.g. shapes-15-1-disjoint")
    add("--trials", type=int, default=20, metavar="N", help="settings tried of each strategy (default 20)")
    add("--first-steps", type=_steps, default=2, metavar="N", help="steps of the scenario, or all (default 2)")
    add("--wall-time", type=float, metavar="MIN", help="begin no further round of a strategy that had so many minutes")
    add("--sampler", default="sobol", help="sobol (default), or tpe, which learns from round to round")
    add("--no-prune", action="store_true", help="end no run early (those of two steps never are)")
    add("--study-seed", type=int, default=0, metavar="N", help="of the sequence of trials (default 0)")
    add("--apply", type=a_path, metavar="DIR", help="write the best settings of a study for `bench run --config`")
    add("--to", type=a_path, metavar="FILE", help="the file that --apply writes (default: best.yaml in DIR)")
    add_run_settings(parser)
    parser.set_defaults(command=_tune, out=Path("study"))


def _steps(text: str) -> int | None:
    if text == "all":
        return None
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of steps, nor all") from None


def _tune(options: argparse.Namespace) -> int:
    from rich.console import Console

    from bench.settings.errors import RequestError

    if options.apply is not None:
        return _apply(options)
    if options.to is not None:
        raise RequestError("--to FILE is for --apply DIR")
    if missing := [name for name in ("strategies", "scenario") if getattr(options, name) is None]:
        raise RequestError(f"bench tune needs --{' and --'.join(missing)}, or --apply DIR")

    from bench.cli.arguments import request_of
    from bench.launch.execution import say_end
    from bench.tune.asked import Tuning, study_of
    from bench.tune.rounds import tune
    from reports.study import read_study

    console = Console(width=None if sys.stdout.isatty() else 120)
    tuning = Tuning(
        request=request_of(options, strategies=options.strategies, scenario=options.scenario),
        trials=options.trials,
        first_steps=options.first_steps,
        wall_time=options.wall_time,
        sampler=options.sampler,
        prune=not options.no_prune,
        seed=options.study_seed,
    )
    study = study_of(tuning)
    _, result = tune(study, console)
    written = read_study(study.folder)
    console.print(_table(written))
    console.print(f"study {written.digest[:12]} in {study.folder}", markup=False, highlight=False, soft_wrap=True)
    return say_end(result, console)


def _apply(options: argparse.Namespace) -> int:
    import shlex

    from bench.tune.applying import apply_study

    print(path := apply_study(options.apply, options.to))
    print(f"bench run --strategies ... --scenario ... --config {shlex.quote(str(path))}   takes them")
    return 0


def _table(study: Study) -> Table:
    """Return a row for each strategy: its trials, what they took, and the best of them beside the default."""
    from rich.box import SIMPLE
    from rich.table import Table

    table = Table(box=SIMPLE, pad_edge=False, title=f"{study.steps_told}: mIoU in per cent, valid stream")
    for name in ("strategy", "trials", "pruned", "failed", "minutes", "default", "best", "settings"):
        table.add_column(name, justify="left" if name in ("strategy", "settings") else "right")
    for label in study.asked["strategies"]:
        trials, best = study.of(label), study.best(label)
        counts = (sum(trial.state == state for trial in trials) for state in ("pruned", "failed"))
        default = next((trial.miou for trial in trials if trial.number == 0), None)
        told = ", ".join(f"{name}={value}" for name, value in best.settings.items()) if best else ""
        table.add_row(
            label,
            f"{len(trials)} of {study.asked['trials']}",
            *map(str, counts),
            f"{sum(trial.seconds for trial in trials) / 60:.1f}",
            *("--" if miou is None else f"{miou:.1f}" for miou in (default, best.miou if best else None)),
            told,
        )
    return table
