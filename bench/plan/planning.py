"""From requests to jobs: everything is checked and planned before the first file is written."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.plan.devices import gpus_of, require_compiler, require_devices, resolved_device, submitted_device
from bench.plan.folders import data_root_of, finished_at, require_writable
from bench.plan.job import Bars, base_job, run_job
from bench.plan.plan import Plan
from bench.plan.protocols import PROTOCOLS, Protocol, protocol_of
from bench.plan.request import Request
from bench.plan.services import require_account, require_launcher
from bench.plan.spec import run_spec
from bench.plan.stale import made_otherwise
from bench.screen.view import reading
from bench.settings.checking import checked
from bench.settings.errors import RequestError
from bench.settings.merging import (
    METHODS_SECTION,
    by_protocol,
    launcher_section,
    network_name,
    resolve,
    settings_said,
)
from bench.settings.schema import Config
from bench.settings.slurm import SlurmSettings
from bench.settings.strategies import (
    StrategyRequest,
    base_recipe,
    memory_notes,
    method_parameters,
    parse_strategies,
    require_void_known,
    setting_sections,
)
from bench.settings.usual import told_of_preset, usual_preset
from benchmarks.names import parse_name
from benchmarks.packing import readers
from benchmarks.scenarios import Scenario, load_scenario, require_training_images, training_parts, valid_parts
from reports.files import RecordError
from reports.spec import read_spec, run_folder
from strategies.learning.protocol import OfflineProtocol
from strategies.learning.registry import STRATEGIES, method_class
from strategies.networks.registry import NETWORKS, network_class
from strategies.plugins.registry import BrokenPluginError


@dataclass(frozen=True)
class Wanted:
    """A strategy whose runs are asked for, one for each seed, and their settings."""

    strategy: StrategyRequest
    config: Config
    prefix: str = ""
    """What the names of its jobs begin with."""
    bars: Mapping[int, Bars] = field(default_factory=dict)
    """By seed; see `bench.plan.job.RunJob`."""


@dataclass(frozen=True)
class Asked:
    """A request that is checked, as far as that needs no image: with its device and the folder of its data."""

    request: Request
    wanted: list[Wanted]
    config: Config
    """What all have in common: of images, evaluation and runtime."""
    slurm: SlurmSettings | None = None
    """How its runs are submitted, if they are."""
    notes: tuple[str, ...] = ()
    """What to say before its images are read."""


def plugins_named(request: Request) -> list[str]:
    """Return the plug-ins that a request names, `GROUP=NAME`, without importing one; raise `RequestError`."""
    names = [f"{STRATEGIES.group}={each.name}" for each in parse_strategies(request.strategies)]
    network = network_name(settings_said(str(parse_name(request.scenario)), request.config, request.assignments))
    return [*names, f"{NETWORKS.group}={network}"] if network else names


def asked(request: Request) -> Asked:
    """Check a request and read its settings; raise `RequestError` or `DataError`."""
    strategies = parse_strategies(request.strategies)
    scenario = parse_name(request.scenario)
    said = settings_said(str(scenario), request.config, request.assignments)
    slurm = checked(SlurmSettings, launcher_section(said), "slurm") if request.launcher == "slurm" else None
    if slurm:
        require_launcher(slurm)
    device = submitted_device(request.device, slurm) if slurm else resolved_device(request.device)
    preset = usual_preset(scenario.dataset, device) if request.preset is None else request.preset
    config = resolve(str(scenario), preset, said, request.evaluate_on)
    wanted = [Wanted(each, config) for each in strategies]
    if METHODS_SECTION in by_protocol(said):
        names = [setting_sections(each.name) for each in strategies]
        own = [resolve(str(scenario), preset, said, request.evaluate_on, each) for each in names]
        wanted = [Wanted(*pair) for pair in zip(strategies, own, strict=True)]
    if not slurm and any(each.config.runtime.compile for each in wanted):
        require_compiler(device)
    note = told_of_preset(scenario.dataset, device) if request.preset is None else None
    if "wandb" in request.loggers:
        require_account()
    require_writable(request.out)
    root = data_root_of(scenario.dataset, request.data_root)
    request = replace(request, preset=preset, device=device, data_root=root)
    return Asked(request, wanted, config, slurm, (note,) if note else ())


def plan_of(asked: Asked, console: Console) -> Plan:
    """Read the images of a request and return its jobs; raise `RequestError` or `DataError` before any work."""
    request, config = asked.request, asked.config
    _say(asked.notes, console)
    scenario = _read_scenario(request, config, console)
    gpus = () if asked.slurm else gpus_of(request.device)
    # by default one run a GPU, or as many as their threads fill the cores
    workers = request.jobs or len(gpus) or max(1, (os.cpu_count() or 1) // config.runtime.threads)
    plan = Plan(workers, asked.slurm, gpus)
    for wanted in asked.wanted:
        for seed in request.seeds:
            _add_run(plan, request, wanted, seed, scenario)
        _say(memory_notes(wanted.strategy, wanted.config), console)
    if asked.slurm is None:
        most = max((job.devices for job in plan.jobs), default=1)
        require_devices(most, request.device, "base" if config.base.devices == most else "incremental")
    return plan


def _read_scenario(request: Request, config: Config, console: Console) -> Scenario:
    """Load the scenario, read its images once, and say what is allowed and recorded but not as published."""
    data = config.data
    scenario = load_scenario(
        request.scenario, request.data_root, data.train_list, data.shared_ids, max_megapixels=data.max_megapixels
    )
    require_training_images(scenario, config.evaluation.valid_fraction, config.evaluation.valid_seed)
    with reading(console) as progress:
        size = data.size or scenario.imageset.uniform_side
        readers(scenario.imageset, size, data.ram_gb * 2**30, progress, data.jpeg_draft)
    notes = scenario.remarks()
    sizes = tuple(len(step.train) for step in scenario.steps)
    if scenario.published_sizes and sizes != scenario.published_sizes:
        notes.append(f"{scenario.name} has {sizes} training images a step, published are {scenario.published_sizes}")
    _say(notes, console)
    return scenario


def _say(notes: Iterable[str], console: Console) -> None:
    for text in notes:
        console.print(f"note: {text}", markup=False, highlight=False, soft_wrap=True)


def _add_run(plan: Plan, request: Request, wanted: Wanted, seed: int, scenario: Scenario) -> None:
    """Add a run to a plan, if it is to be made with its job and that of its base model; imports the method."""
    from strategies.networks.weights import weights_file

    asked, config = wanted.strategy, wanted.config
    try:
        parameters = method_parameters(asked, config)
        require_void_known(asked, config)
        recipe = base_recipe(asked, parameters)
    except BrokenPluginError as error:
        raise RequestError(str(error)) from error
    protocol = PROTOCOLS[_protocol(asked, config)]
    if isinstance(config.incremental, OfflineProtocol) and recipe.head == "cosine" and config.incremental.tells_new:
        raise RequestError(f"strategy {asked.label}: a cosine head has no part `new` with a rate or decay of its own")
    determining = (scenario, asked, parameters, recipe, config, seed, request.device, protocol.from_base)
    _require_shared_increments(asked, config)
    with _weights_told():
        spec, older = run_spec(*determining), run_spec(*determining, older_hash=True)
    if older["hash"] != spec["hash"] and finished_at(run_folder(request.out, older)):
        spec = older
    folder = run_folder(request.out, spec)
    plan.folders.append(folder)
    plan.conventions[folder] = spec["conventions"]
    finished = finished_at(folder)
    if finished and request.overwrite != "always":
        reasons = _staleness(folder, spec)
        if not reasons or request.overwrite != "stale":
            plan.stale += [reasons] if reasons else []
            return
    _require_held_out_images(config, scenario, protocol, parameters)
    with _weights_told():
        weights_file(network_class(config.network.name), config.network)  # jobs may have no way to a server
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
    run = run_job(
        f"{request.prefix}{wanted.prefix}{asked.label} seed {seed}",
        protocol.extent(parameters, config, parts),
        method=asked.name,
        parameters=parameters,
        spec=spec,
        folder=folder,
        anew=request.overwrite in ("failed", "always") or finished is not None,
        finished_before=finished,
        loggers=tuple(request.loggers),
        bars=wanted.bars.get(seed, ()),
        **common,
    )
    plan.runs.append(run)
    if base := spec["base"]:
        plan.add_base(run.key, base["hash"], lambda: base_job(base, len(parts[0]), **common))


def _require_held_out_images(config: Config, scenario: Scenario, protocol: Protocol, parameters: Any) -> None:
    """Raise `RequestError` where held-out images are looked at after a step, and there is none."""
    e = config.evaluation
    parts = valid_parts(scenario, e.valid_fraction, e.valid_seed)
    for t in protocol.steps(parameters, len(parts)):
        part, section = parts[t], "incremental" if t and protocol.from_base else "base"
        chooses = getattr(getattr(config, section), "weights", "last") == "best"
        if not len(part) and (chooses or e.stream == "valid"):
            looks = f"{section}.weights=best" if chooses else "evaluation.stream=valid"
            raise RequestError(
                f"evaluation.valid_fraction={e.valid_fraction} holds out no image with a class known after step {t}; "
                f"{looks} needs one"
            )


def _require_shared_increments(asked: StrategyRequest, config: Config) -> None:
    """Raise `RequestError` where a strategy's increments are to be trained on several devices and cannot be."""
    method, incremental = method_class(asked.name), config.incremental
    if config.base.devices > 1 and method.on_one_device:
        raise RequestError(
            f"strategy {asked.label}: its increments replay images, which is done on one device, not on "
            f"base.devices={config.base.devices}"
        )
    if isinstance(incremental, OfflineProtocol):
        if config.base.devices > incremental.batch_size and "offline" in method.protocols:
            raise RequestError(
                f"base.devices={config.base.devices}: offline increments are shared too, and incremental.batch_size "
                f"is {incremental.batch_size}"
            )
        return
    if incremental.devices == 1 or "online" not in method.protocols:
        return
    if not (method.shares_batches and method.resumable):
        raise RequestError(
            f"strategy {asked.label}: its online increments are trained on one device, not on "
            f"incremental.devices={incremental.devices}; base.devices alone shares the base training"
        )


def _protocol(asked: StrategyRequest, config: Config) -> str:
    """Return how a strategy's runs are trained; raise `RequestError` where it is not defined for what is chosen."""
    try:
        return protocol_of(method_class(asked.name).protocols, config.protocol)
    except ValueError as error:
        raise RequestError(f"strategy {asked.label} is {error}") from None


@contextmanager
def _weights_told() -> Iterator[None]:
    """Tell weights that cannot be got or read as what is wrong with the request."""
    from strategies.networks.sources import WeightsError

    try:
        yield
    except WeightsError as error:
        raise RequestError(str(error)) from error


def _staleness(folder: Path, spec: dict[str, Any]) -> list[str]:
    """Return why a finished run would not be made as it was any more; [] where its record is damaged, told later."""
    try:
        return made_otherwise(read_spec(folder), spec)
    except RecordError:
        return []
