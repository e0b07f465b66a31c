"""The way from strategies and a scenario to run directories: command line, settings, runner.

`bench.run(strategies=["er", "ours"], scenario="shapes-15-1-disjoint")` is the command line as a function.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:  # a command imports this package before it can say anything about Ctrl-C
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from typing import Any

    from bench.launch.execution import Result
    from bench.use.segmenter import Segmenter

__all__ = ["load", "run"]


def load(run_dir: str | Path, step: int | None = None, device: str = "auto") -> Segmenter:
    """Return the network that a run has kept, by default after its last step: `.predict(image)` is a label map.

    An image is one of Pillow's, an array, a tensor or a path; see `bench.use.segmenter.Segmenter`. Raises
    `bench.settings.errors.RequestError` where there is no network, or it is damaged.
    """
    from bench.homes import give_homes
    from bench.use.segmenter import load

    give_homes()
    return load(run_dir, step, device)


def run(
    strategies: str | Sequence[str],
    scenario: str,
    *,
    data_root: str | Path | None = None,
    train_list: str | Path | None = None,
    seeds: Sequence[int] = (0,),
    memory: int | None = None,
    preset: str | None = None,
    config: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    device: str = "auto",
    out: str | Path = "runs",
    jobs: int | None = 1,
    overwrite: str | bool = "never",
    evaluate_on: str | None = None,
    launcher: str = "local",
    verbose: bool = False,
    loggers: str | Sequence[str] = (),
) -> Result:
    """Make every run that is not finished yet and return all of them; `.frame` is a tidy DataFrame.

    Unfinished runs go on from their last checkpoint; `overwrite="failed"` starts these again, `"stale"` finished ones
    that other code, packages or plug-ins made, `"always"` (or True) all.
    `train_list` names the training images in place of the data root's own list.
    `settings` are the dotted keys of `--set` with Python's values, e.g. `{"incremental.lr": 0.002, "data.crop": None}`:
    a tuple is a list, a text is taken as it is; `evaluate_on` is `test` (the
    default) or `valid`, held out from the training images; `loggers` are of csv, tensorboard and wandb. With `jobs`
    above 1 runs go side by side in processes of their own, and so do the parts of a training with `base.devices`
    above 1; none of them imports the calling script. A failed run stands in `.failures`. The first Ctrl-C raises
    KeyboardInterrupt when the runs under way have written their next checkpoints. Raises
    `bench.settings.errors.RequestError` or `benchmarks.DataError`, both `ValueError`, before any work where the request
    is wrong.
    """
    import json

    from rich.console import Console

    from bench.homes import give_homes
    from bench.launch.session import run as run_request
    from bench.plan.request import Request
    from bench.screen.stopping import Interrupted
    from bench.settings.assignments import python_assignments, with_own_option
    from benchmarks.paths import user_path

    give_homes()
    assignments = python_assignments(settings or {})
    if memory is not None:
        assignments = with_own_option(assignments, "memory.size", memory, "memory")
    if train_list is not None:
        assignments = with_own_option(assignments, "data.train_list", json.dumps(str(train_list)), "train_list")
    request = Request(
        strategies=strategies,
        scenario=scenario,
        data_root=user_path(data_root) if data_root is not None else None,
        seeds=list(seeds),
        preset=preset,
        config=user_path(config) if config is not None else None,
        assignments=assignments,
        device=device,
        out=user_path(out),
        jobs=jobs,
        overwrite=overwrite,
        evaluate_on=evaluate_on,
        launcher=launcher,
        verbose=verbose,
        loggers=loggers,
    )
    result = run_request(request, Console())
    if result.interrupted:
        raise Interrupted(result.stopped_by)
    return result
