"""From requests to jobs: everything is checked and planned before the first file is written."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.plan.data_roots import data_root_of
from bench.plan.devices import gpus_of, require_devices, resolved_device, submitted_device
from bench.plan.folders import base_file, claim_of, finished_at, out_of, require_writable
from bench.plan.job import BaseJob, RunJob
from bench.plan.plan import Plan
from bench.plan.protocols import PROTOCOLS, epochs_updates
from bench.plan.request import OVERWRITE, Request
from bench.plan.services import parse_loggers, require_account, require_launcher
from bench.plan.spec import run_folder, run_spec
from bench.plan.stale import label_of, made_otherwise
from bench.screen.log import LOG_FILE
from bench.screen.view import reading
from bench.settings.checking import checked
from bench.settings.errors import RequestError
from bench.settings.merging import launcher_settings, resolve_config
from bench.settings.schema import Config
from bench.settings.slurm import SlurmSettings
from bench.settings.strategies import StrategyRequest, base_recipe, method_parameters, parse_strategies
from benchmarks.names import parse_name
from benchmarks.packing import readers
from benchmarks.scenarios import Scenario, load_scenario, require_training_images, training_parts
from reports.division import EARLIER_DIVISION, by_earlier_division
from reports.files import RecordError
from reports.spec import read_spec
from strategies.learning.registry import BrokenStrategyError, method_class


@dataclass(frozen=True)
class Asked:
    """A request that is checked, as far as that needs no image."""

    request: Request
    strategies: list[StrategyRequest]
    seeds: list[int]
    config: Config
    slurm: SlurmSettings | None
    """How its runs are submitted, if they are."""

    @property
    def starts_processes(self) -> bool:
        """Whether work goes on in processes that are started here."""
        return self.slurm is None and (self.request.jobs != 1 or self.config.base.devices > 1)


def asked(request: Request) -> Asked:
    """Check a request and read its settings; raise `RequestError` or `DataError`."""
    strategies = parse_strategies(request.strategies)
    request = replace(request, loggers=parse_loggers(request.loggers))
    seeds = _seeds(request.seeds)
    parsed = parse_name(request.scenario)
    name = str(parsed)
    config = resolve_config(name, request.preset, request.config, request.assignments, request.evaluate_on)
    _check_jobs(request.jobs)
    slurm = _slurm_settings(request, name)
    return Asked(request, strategies, seeds, config, slurm)


def plan_of(asked: Asked, console: Console) -> Plan:
    """Read the images of a request and return its jobs; raise `RequestError` or `DataError` before any work."""
    request = asked.request
    require_writable(request.out)
    dataset = parse_name(request.scenario).dataset
    request = replace(request, data_root=data_root_of(dataset, request.data_root))
    scenario = _checked_scenario(request, asked.config, console)
    _note_oddities(scenario, console)
    return _plan(request, asked.strategies, asked.seeds, asked.config, scenario, asked.slurm)


def _slurm_settings(request: Request, scenario: str) -> SlurmSettings | None:
    """Return how runs are submitted, None where they are made here; raise `RequestError` for what does not fit."""
    section = launcher_settings(scenario, request.preset, request.config, request.assignments)
    if request.launcher == "slurm":
        if request.jobs is not None:
            raise RequestError("--jobs is for --launcher local; slurm.array_parallelism bounds what runs at once")
        settings = checked(SlurmSettings, section, "slurm")
        require_launcher(settings)
        return settings
    if request.launcher != "local":
        raise RequestError(f"--launcher {request.launcher}: allowed are local, slurm")
    if any(given.lstrip().startswith("slurm.") for given in request.assignments):
        raise RequestError("--set slurm...: these settings are for --launcher slurm")
    return None


def prepare_one(folder: Path, verbose: bool, loggers: Sequence[str], console: Console) -> Plan:
    """Return the job of the run that a directory's `spec.yaml` describes, and that of its base model if it is missing.

    Raises `RequestError` where the run would not be the one described: other code, versions, images.
    """
    folder = folder.resolve()
    spec = read_spec(folder)
    if by_earlier_division(spec):
        raise RequestError(f"{folder}: {EARLIER_DIVISION}; `bench run` makes another run by today's")
    if missing := {"asked", "code", "data", "plugins", "versions"} - spec.keys():
        raise RequestError(f"{folder / 'spec.yaml'}: written by an older version, it lacks {min(missing)}")
    try:
        request, asked, config = _described(spec)
    except (AttributeError, KeyError, TypeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise RequestError(f"{folder / 'spec.yaml'}: it does not describe a run ({reason})") from None
    request = replace(request, out=out_of(folder), verbose=verbose, loggers=parse_loggers(loggers))
    scenario = _checked_scenario(request, config, console)
    plan = _plan(request, [asked], list(request.seeds), config, scenario)
    for job in plan.runs:
        _require_same(job.spec, spec, folder)
    if plan.folders != [folder]:
        raise RequestError(f"{folder}: the directory of this run ends with {'/'.join(plan.folders[0].parts[-3:])}")
    return plan


def _described(spec: dict[str, Any]) -> tuple[Request, StrategyRequest, Config]:
    """Return what to ask for to get the run that a spec describes."""
    label = label_of(spec)
    asked = parse_strategies([label])[0]
    runtime = dict(spec["config"]["runtime"])
    device = str(runtime.pop("device"))
    settings = {**spec["config"], "runtime": runtime, "strategies": {asked.title: spec["method"]["parameters"]}}
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
    return request, asked, checked(Config, settings)


def _require_same(found: dict[str, Any], wanted: dict[str, Any], folder: Path) -> None:
    """Raise `RequestError` where this code, on this machine, would make another run than the directory's."""
    for key in ("split_hash", "versions", "code", "plugins", "hash"):
        there, here = wanted[key], found[key]
        if there != here:
            if key == "versions":
                key = next(name for name in {**there, **here} if there.get(name) != here.get(name))
                there, here = there.get(key), here.get(key)
            raise RequestError(
                f"{folder}: its {key} is {there}, here it would be {here}; "
                f"`bench run` with the run's settings makes it by what is here"
            )


def _checked_scenario(request: Request, config: Config, console: Console) -> Scenario:
    """Load the scenario and read its images once."""
    data = config.data
    scenario = load_scenario(
        request.scenario, request.data_root, data.train_list, data.shared_ids, max_megapixels=data.max_megapixels
    )
    require_training_images(scenario, config.evaluation.valid_fraction, config.evaluation.valid_seed)
    with reading(console) as progress:
        size = data.size or scenario.imageset.uniform_side
        readers(scenario.imageset, size, data.ram_gb * 2**30, progress)
    return scenario


def _seeds(seeds: Sequence[int]) -> list[int]:
    if not seeds or len(set(seeds)) != len(seeds) or min(seeds) < 0:
        raise RequestError(f"seeds {list(seeds)}: they are different numbers from 0 on, at least one")
    return list(seeds)


def _overwrite(policy: str | bool) -> str:
    if isinstance(policy, bool):
        return "always" if policy else "never"
    if policy not in OVERWRITE:
        raise RequestError(f"overwrite {policy}: allowed are {', '.join(OVERWRITE)}")
    return policy


def _check_jobs(jobs: int | None) -> None:
    if jobs is not None and jobs < 1:
        raise RequestError(f"--jobs {jobs}: at least 1")


def _workers(jobs: int | None, config: Config, gpus: Sequence[str]) -> int:
    """Return how many runs go side by side: by default one a GPU, or as many as their threads fill the cores."""
    return jobs or len(gpus) or max(1, (os.cpu_count() or 1) // config.runtime.threads)


def _note_oddities(scenario: Scenario, console: Console) -> None:
    """Say which images are used, and what is allowed and recorded but not as published."""
    notes = scenario.remarks()
    sizes = tuple(len(step.train) for step in scenario.steps)
    if scenario.published_sizes and sizes != scenario.published_sizes:
        notes.append(f"{scenario.name} has {sizes} training images a step, published are {scenario.published_sizes}")
    for text in notes:
        console.print(f"note: {text}", markup=False, highlight=False, soft_wrap=True)


def _plan(
    request: Request,
    requests: list[StrategyRequest],
    seeds: list[int],
    config: Config,
    scenario: Scenario,
    slurm: SlurmSettings | None = None,
) -> Plan:
    """Return the jobs of a checked request."""
    device = submitted_device(request.device, slurm) if slurm else resolved_device(request.device)
    request = replace(request, device=device, overwrite=_overwrite(request.overwrite))
    gpus = () if slurm else gpus_of(device)
    if "wandb" in request.loggers:
        require_account()
    plan = Plan(_workers(request.jobs, config, gpus), slurm, gpus)
    for asked in requests:
        for seed in seeds:
            _add_run(plan, request, asked, seed, config, scenario)
    if slurm is None:
        require_devices(max((job.devices for job in plan.jobs), default=1), device)
    return plan


def _add_run(
    plan: Plan, request: Request, asked: StrategyRequest, seed: int, config: Config, scenario: Scenario
) -> None:
    """Add a run to a plan, if it is to be made with its job and that of its base model; imports the method."""
    try:
        parameters = method_parameters(asked, config)
        recipe = base_recipe(asked, parameters)
    except BrokenStrategyError as error:
        raise RequestError(str(error)) from error
    method = method_class(asked.name)
    protocol = PROTOCOLS[method.protocols[0]]
    spec = run_spec(scenario, asked, parameters, recipe, config, seed, request.device, protocol.from_base)
    folder = run_folder(request.out, spec)
    plan.folders.append(folder)
    finished = finished_at(folder)
    if finished and request.overwrite != "always":
        reasons = _staleness(folder, spec)
        if not reasons or request.overwrite != "stale":
            plan.stale += [reasons] if reasons else []
            return
    parts = training_parts(scenario, config.evaluation.valid_fraction, config.evaluation.valid_seed)
    common = {
        "scenario": str(scenario.asked),
        "split_hash": spec["split_hash"],
        "data_root": request.data_root,
        "config": config,
        "recipe": recipe,
        "seed": seed,
        "device": request.device,
        "verbose": request.verbose,
        "code": spec["code"],
    }
    units, weight = protocol.work(parameters, config, parts)
    run = RunJob(
        key=f"{request.prefix}{asked.label} seed {seed}",
        method=asked.name,
        parameters=parameters,
        spec=spec,
        folder=folder,
        claim=claim_of(folder),
        log=folder / LOG_FILE,
        devices=protocol.devices(config),
        anew=request.overwrite in ("failed", "always") or finished is not None,
        finished_before=finished,
        units=units,
        weight=weight,
        loggers=tuple(request.loggers),
        **common,
    )
    plan.runs.append(run)
    if base := spec["base"]:
        plan.add_base(run.key, base["hash"], lambda: _base_job(base, common, len(parts[0])))


def _staleness(folder: Path, spec: dict[str, Any]) -> list[str]:
    """Return why a finished run would not be made as it was any more; [] where its record is damaged, told later."""
    try:
        return made_otherwise(read_spec(folder), spec)
    except RecordError:
        return []


def _base_job(base: dict[str, Any], common: dict[str, Any], images: int) -> BaseJob:
    config, recipe = common["config"], common["recipe"]
    updates = epochs_updates(config, images)
    loss = {"cross-entropy": "CE", "sigmoid-bce": "BCE"}[recipe.loss]
    file = base_file(base["hash"])
    return BaseJob(
        key=f"base {recipe.head} {loss} {base['hash'][:8]} seed {common['seed']}",
        base=base,
        claim=file.with_suffix(".claim"),
        log=file.with_suffix(".log"),
        devices=config.base.devices,
        units=updates,
        weight=float(updates * config.base.batch_size),
        **common,
    )
