"""The run that a directory describes, as it is to be made: by what is here, or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.plan.devices import resolved_device
from bench.plan.folders import out_of
from bench.plan.plan import Plan
from bench.plan.planning import Asked, Wanted, plan_of
from bench.plan.request import Request
from bench.plan.spec import made_by
from bench.plan.stale import label_of, staleness
from bench.settings.errors import RequestError
from bench.settings.networks import config_of
from bench.settings.schema import Config
from bench.settings.strategies import StrategyRequest, parse_strategies
from reports.division import EARLIER_DIVISION, by_earlier_division
from reports.spec import Spec, read_spec, run_folder


def prepare_one(folder: Path, verbose: bool, loggers: Sequence[str], console: Console) -> Plan:
    """Return the job of the run that a directory's `spec.yaml` describes, and that of its base model if it is missing.

    Raises `RequestError` where the run would not be the one described: other code, versions, images.
    """
    folder = folder.resolve()
    spec = read_spec(folder)
    _require_todays(spec, folder)
    plan = _plan(spec, folder, out_of(folder), console, verbose=verbose, loggers=loggers)
    for job in plan.runs:
        _require_same(job.spec, spec, folder)
    if plan.folders != [folder]:
        raise RequestError(f"{folder}: the directory of this run ends with {'/'.join(plan.folders[0].parts[-3:])}")
    return plan


def described_plan(spec: Spec, out: Path, console: Console) -> tuple[Plan, list[str]]:
    """Return the job of the run that a spec describes as it is made here below `out`, and that of its base model.

    Beside it is what it was made by that it is not made by here, one text each. Raises `RequestError` where this
    version cannot make it, `DataError` where there are not the images.
    """
    place = run_folder(out, spec)
    _require_todays(spec, place)
    plan = _plan(spec, place, out, console)
    for job in plan.runs:
        if job.spec["split_hash"] != spec["split_hash"]:
            raise RequestError(f"{place}: its split_hash is {spec['split_hash']}, here it is {job.spec['split_hash']}")
    return plan, staleness(spec, made_by)


def _require_todays(spec: Spec, folder: Path) -> None:
    if by_earlier_division(spec):
        raise RequestError(f"{folder}: {EARLIER_DIVISION}; `bench run` makes another run by today's")
    if missing := {"asked", "code", "data", "network_plugins", "plugins", "versions"} - spec.keys():
        raise RequestError(f"{folder / 'spec.yaml'}: written by an older version, it lacks {min(missing)}")


def _plan(spec: Spec, folder: Path, out: Path, console: Console, **asked: Any) -> Plan:
    try:
        request, strategy, config = _described(spec)
    except (AttributeError, KeyError, TypeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise RequestError(f"{folder / 'spec.yaml'}: it does not describe a run ({reason})") from None
    request = replace(request, out=out, device=resolved_device(request.device), **asked)
    return plan_of(Asked(request, [Wanted(strategy, config)], config), console)


def _described(spec: dict[str, Any]) -> tuple[Request, StrategyRequest, Config]:
    """Return what to ask for to get the run that a spec describes."""
    label = label_of(spec)
    strategy = parse_strategies([label])[0]
    runtime = dict(spec["config"]["runtime"])
    device = str(runtime.pop("device"))
    settings = {**spec["config"], "runtime": runtime, "strategies": {strategy.title: spec["method"]["parameters"]}}
    root = spec["data"]["root"]
    request = Request(
        strategies=[label],
        scenario=str(spec["asked"]),
        data_root=Path(root) if root else None,
        seeds=[spec["seed"]],
        device=device,
        jobs=1,
    )
    if not isinstance(spec["versions"], dict):
        raise TypeError("versions is no mapping")
    return request, strategy, config_of(settings)


def _require_same(found: dict[str, Any], wanted: dict[str, Any], folder: Path) -> None:
    """Raise `RequestError` where this code, on this machine, would make another run than the directory's."""
    for key in ("split_hash", "versions", "code", "plugins", "network_plugins", "hash"):
        there, here = wanted[key], found[key]
        if there != here:
            if key == "versions":
                key = next(name for name in {**there, **here} if there.get(name) != here.get(name))
                there, here = there.get(key), here.get(key)
            raise RequestError(
                f"{folder}: its {key} is {there}, here it would be {here}; "
                f"`bench run` with the run's settings makes it by what is here"
            )
