"""From requests to jobs: everything is checked and planned before the first file is written."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console

from bench.arguments import OVERWRITE
from bench.config import (
    Config,
    RequestError,
    StrategyRequest,
    base_recipe,
    checked,
    launcher_settings,
    method_parameters,
    parse_loggers,
    parse_strategies,
    resolve_config,
    with_own_option,
)
from bench.data_roots import data_root_of
from bench.devices import gpus_of, require_devices, resolved_device, submitted_device
from bench.folders import finished_at, out_of, require_writable
from bench.forkserver import warm_up
from bench.slurm import SlurmSettings, require_launcher
from bench.spec import run_folder, run_spec
from bench.stale import label_of, made_otherwise
from bench.view import reading
from benchmarks.cache import cache_folder
from benchmarks.packing import readers
from benchmarks.scenarios import Scenario, load_scenario, parse_name, require_training_images, training_parts
from reports.division import EARLIER_DIVISION, by_earlier_division
from reports.records import RecordError, read_spec
from strategies.registry import BrokenStrategyError, method_class

if TYPE_CHECKING:
    from bench.jobs import BaseJob, RunJob


@dataclass(frozen=True)
class Request:
    """What `bench run` was asked for."""

    strategies: str | Sequence[str]
    scenario: str
    data_root: Path | None = None
    seeds: Sequence[int] = (0,)
    preset: str | None = None
    config: Path | None = None
    assignments: Sequence[str] = ()
    device: str = "auto"
    out: Path = Path("runs")
    jobs: int | None = None
    overwrite: str | bool = "never"
    """Which runs start again: `never` none, `failed` those that are not finished, `stale` finished ones that other code
    or packages made, `always` (True) all."""
    evaluate_on: str | None = None
    """`test` or `valid`, over what the settings say."""
    launcher: str = "local"
    """`local` makes the runs, `slurm` submits them."""
    verbose: bool = False
    """Whether the logs have a line per update, and what they say is printed."""
    loggers: str | Sequence[str] = ()
    """Of csv, tensorboard, wandb; none changes a number, so no spec tells of them."""
    prefix: str = ""
    """What the names of its jobs begin with, where several requests are executed together."""


def request_of(options: argparse.Namespace, strategies: str | Sequence[str], scenario: str) -> Request:
    """Return the request of a command line that has `bench.arguments.add_run_settings`."""
    file = None if options.train_list is None else json.dumps(options.train_list)
    short = (
        ("base.devices", options.devices, "--devices"),
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


@dataclass
class Plan:
    """The jobs of requests: base models not yet kept, runs not yet finished, and every run's directory."""

    workers: int
    slurm: SlurmSettings | None = None
    """How its runs are submitted, if they are."""
    gpus: tuple[str, ...] = ()
    """Where there are any: their names in CUDA_VISIBLE_DEVICES."""
    bases: dict[str, BaseJob] = field(default_factory=dict)
    """By hash."""
    runs: list[RunJob] = field(default_factory=list)
    needs: dict[str, str] = field(default_factory=dict)
    """By a run's key the base model it waits for."""
    folders: list[Path] = field(default_factory=list)
    kept_bases: set[str] = field(default_factory=set)
    """Hashes of the base models that are in the cache."""
    stale: list[list[str]] = field(default_factory=list)
    """Of each finished run that stays and that would not be made so any more: why."""

    @property
    def jobs(self) -> list[BaseJob | RunJob]:
        """All of them."""
        return [*self.bases.values(), *self.runs]

    def add_base(self, run: str, base_hash: str, make: Callable[[], BaseJob]) -> None:
        """Have a run wait for its base model, if that is not kept: its job is made once."""
        if base_hash not in self.bases and base_hash not in self.kept_bases:
            job = make()
            if job.made():
                self.kept_bases.add(base_hash)
            else:
                cache_folder("bases", write=True)
                self.bases[base_hash] = job
        if base_hash in self.bases:
            self.needs[run] = self.bases[base_hash].key

    def __add__(self, other: Plan) -> Plan:
        """Return a plan of both's jobs; a base model that both need is trained once."""
        return Plan(
            min(self.workers, other.workers),
            self.slurm,
            self.gpus,
            {**other.bases, **self.bases},
            [*self.runs, *other.runs],
            {**self.needs, **{run: self._key_of(base, other) for run, base in other.needs.items()}},
            [*self.folders, *other.folders],
            self.kept_bases | other.kept_bases,
            [*self.stale, *other.stale],
        )

    def _key_of(self, key: str, other: Plan) -> str:
        """Return the key here of a base job of another plan."""
        base_hash = next(h for h, job in other.bases.items() if job.key == key)
        return self.bases[base_hash].key if base_hash in self.bases else key


def prepare(request: Request, console: Console) -> Plan:
    """Check a request, read its images and return its jobs; raise `RequestError` or `DataError` before any work."""
    requests = parse_strategies(request.strategies)
    request = replace(request, loggers=parse_loggers(request.loggers))
    seeds = _seeds(request.seeds)
    parsed = parse_name(request.scenario)
    name = str(parsed)
    config = resolve_config(name, request.preset, request.config, request.assignments, request.evaluate_on)
    _check_jobs(request.jobs)
    slurm = _slurm_settings(request, name)
    if (request.jobs != 1 or config.base.devices > 1) and slurm is None:
        warm_up(asked.name for asked in requests)
    require_writable(request.out)
    request = replace(request, data_root=data_root_of(parsed.dataset, request.data_root))
    scenario = _checked_scenario(request, config, console)
    _note_oddities(scenario, console)
    return _plan(request, requests, seeds, config, scenario, slurm)


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
        from bench.loggers import require_account

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
    from bench.jobs import RunJob

    try:
        parameters = method_parameters(asked, config)
        recipe = base_recipe(asked, parameters)
    except BrokenStrategyError as error:
        raise RequestError(str(error)) from error
    method = method_class(asked.name)
    spec = run_spec(scenario, asked, parameters, recipe, config, seed, request.device, method.offline)
    folder = run_folder(request.out, spec)
    plan.folders.append(folder)
    finished = finished_at(folder)
    if finished and request.overwrite != "always":
        reasons = _staleness(folder, spec)
        if not reasons or request.overwrite != "stale":
            plan.stale += [reasons] if reasons else []
            return
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
    units, weight = _work(method, parameters, config, scenario)
    run = RunJob(
        key=f"{request.prefix}{asked.label} seed {seed}",
        method=asked.name,
        parameters=parameters,
        spec=spec,
        folder=folder,
        anew=request.overwrite in ("failed", "always") or finished is not None,
        finished_before=finished,
        units=units,
        weight=weight,
        loggers=tuple(request.loggers),
        **common,
    )
    plan.runs.append(run)
    if base := spec["base"]:
        plan.add_base(run.key, base["hash"], lambda: _base_job(base, common, scenario))


def _staleness(folder: Path, spec: dict[str, Any]) -> list[str]:
    """Return why a finished run would not be made as it was any more; [] where its record is damaged, told later."""
    try:
        return made_otherwise(read_spec(folder), spec)
    except RecordError:
        return []


def _base_job(base: dict[str, Any], common: dict[str, Any], scenario: Scenario) -> BaseJob:
    from bench.base import iterations
    from bench.jobs import BaseJob

    config, recipe = common["config"], common["recipe"]
    updates = iterations(config, len(_training_parts(scenario, config)[0]))
    loss = {"cross-entropy": "CE", "sigmoid-bce": "BCE"}[recipe.loss]
    key = f"base {recipe.head} {loss} {base['hash'][:8]} seed {common['seed']}"
    return BaseJob(key=key, base=base, units=updates, weight=float(updates * config.base.batch_size), **common)


def _training_parts(scenario: Scenario, config: Config) -> list[np.ndarray]:
    return training_parts(scenario, config.evaluation.valid_fraction, config.evaluation.valid_seed)


def _work(method: Any, parameters: Any, config: Config, scenario: Scenario) -> tuple[int, float]:
    """Return a run's number of updates and its expected work, in images trained on."""
    from bench.base import iterations
    from bench.runner import offline_steps

    parts = _training_parts(scenario, config)
    if method.offline:
        trained = offline_steps(parameters, len(scenario.steps))
        unions = [set[int]().union(*(part.tolist() for part in parts[: t + 1])) for t in trained]
        updates = sum(iterations(config, len(union)) for union in unions)
        return updates, float(updates * config.base.batch_size)
    batch = config.incremental.batch_size
    updates = sum(-(-len(part) // batch) for part in parts[1:])
    return updates, 3.0 * updates * batch
