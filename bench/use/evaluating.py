"""`bench evaluate`: kept networks evaluated by other settings or on other images, beside the run's own records."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from bench.plan.devices import resolved_device
from bench.plan.folders import finished_at
from bench.plan.spec import conventions_of, digest, told_in_hashes
from bench.plan.stale import method_of
from bench.screen.view import reading
from bench.settings.checking import Settings, checked
from bench.settings.errors import RequestError
from bench.settings.merging import assigned, by_protocol, preset_settings
from bench.settings.networks import config_of
from bench.settings.schema import Config
from bench.train.computing import computing
from bench.train.evaluating import count_pixels
from bench.train.keeping import evaluations_folder, kept_steps, network_path
from bench.train.network_file import read_kept
from bench.train.template import make_template
from bench.use.loading import KeptNetwork, kept_file, require_of_run
from benchmarks.augmentation import View
from benchmarks.scenarios import Scenario, load_scenario
from benchmarks.streams import SegmentationScenario, build_benchmark
from reports.metrics import mean_iou
from reports.run_writer import RunWriter
from reports.spec import Spec, read_spec
from reports.steps import own_confusion
from strategies.learning.evaluation import PixelMeter
from strategies.learning.registry import method_class

OF_EVALUATION = (
    *("evaluation.short_side", "evaluation.batch_size", "evaluation.future_classes", "evaluation.images"),
    *("evaluation.background_in_mean", "evaluation.stream", "data.size", "data.workers", "data.ram_gb"),
    *("data.train_list", "data.shared_ids", "data.max_megapixels", "runtime.threads", "runtime.tf32"),
)
"""Settings that a network which is trained can be evaluated by."""


@dataclass(frozen=True)
class Asked:
    """What is other than in the run: settings, the data root, the scenario."""

    assignments: Sequence[str] = ()
    data_root: Path | None = None
    scenario: str | None = None
    device: str = "auto"


@dataclass(frozen=True)
class Evaluation:
    """An evaluation that is planned: of a run, by settings, in a directory of its own."""

    run: Path
    spec: Spec
    config: Config
    scenario: Scenario
    device: str

    @property
    def folder(self) -> Path:
        """Where it is recorded."""
        return evaluations_folder(self.run) / str(self.spec["hash"])

    @property
    def made(self) -> bool:
        """Whether it is recorded already, of these networks."""
        return finished_at(self.folder) is not None and read_spec(self.folder) == self.spec


def planned(run: Path, asked: Asked) -> Evaluation:
    """Check what is asked for of a run and return it; raise `RequestError` or `DataError`."""
    kept_file(run)
    if not finished_at(run):
        raise RequestError(f"{run}: the run is not finished")
    spec = read_spec(run)
    config = _config(spec, asked.assignments)
    data = config.data
    root = asked.data_root or (Path(spec["data"]["root"]) if spec["data"]["root"] else None)
    name = asked.scenario or str(spec["asked"])
    scenario = load_scenario(name, root, data.train_list, data.shared_ids, max_megapixels=data.max_megapixels)
    _require_same_classes(scenario, spec, run)
    device = resolved_device(asked.device)
    return Evaluation(run, _spec(run, spec, config, scenario, device), config, scenario, device)


def evaluate(evaluation: Evaluation, console: Console) -> None:
    """Evaluate all networks that a run has kept and record it as runs are, `done` last, unless that is done already."""
    if evaluation.made:
        _say(console, f"{evaluation.folder}: evaluated already")
        return
    meter, writer = PixelMeter(), RunWriter(evaluation.folder)
    with computing(evaluation.config.runtime):
        benchmark = _benchmark(evaluation, console)
        writer.start(evaluation.spec)
        for step in kept_steps(evaluation.run):
            template = _template(evaluation, step, meter)
            started = time.perf_counter()
            counts, contours = count_pixels(template, benchmark, evaluation.config.evaluation.stream, step, meter)
            cost = {"step": step, "evaluation_seconds": time.perf_counter() - started}
            writer.add_step(counts, cost, contours)
            miou = mean_iou(own_confusion(evaluation.spec, counts))
            _say(console, f"{evaluation.folder}: step {step} mIoU {miou:.2f}")
    writer.finish()


def _config(spec: Spec, assignments: Sequence[str]) -> Config:
    """Return the settings of a run with others over them; raise `RequestError` for one that needs another training."""
    others = assigned(assignments)
    for section, settings in others.items():
        for key in settings if isinstance(settings, dict) else [""]:
            if f"{section}.{key}" not in OF_EVALUATION:
                told = f"{section}.{key}".rstrip(".")
                raise RequestError(f"--set {told}=...: a network that is trained is evaluated by {_listed()}")
    runtime = {key: value for key, value in spec["config"]["runtime"].items() if key != "device"}
    present = preset_settings("paper", str(spec["asked"]))  # has what runs had no setting for when this one was made
    settings = by_protocol([present, {**spec["config"], "runtime": runtime}, others])
    settings["network"] = {**settings["network"], "weights": "none"}  # the file that it started from may be gone
    config = config_of(settings)
    if config.data.size is not None and config.evaluation.short_side is not None:
        told = f"data.size={config.data.size} squeezes them; --set data.size=null too"
        raise RequestError(f"evaluation.short_side is for images as they are, and {told}")
    if config.data.size is config.evaluation.short_side is None and config.evaluation.batch_size > 1:
        raise RequestError("images as they are differ in size: --set evaluation.batch_size=1 too")
    return config


def _listed() -> str:
    return f"{', '.join(OF_EVALUATION[:-1])} or {OF_EVALUATION[-1]}"


def _require_same_classes(scenario: Scenario, spec: Spec, run: Path) -> None:
    steps = [len(step["classes"]) for step in spec["steps"]]
    if scenario.class_names != spec["class_names"] or [len(group) for group in scenario.groups] != steps:
        some = ", ".join(spec["class_names"][1:4])
        raise RequestError(f"scenario '{scenario.name}' has not the steps' classes of {run}: {some}, ...")


def _spec(run: Path, spec: Spec, config: Config, scenario: Scenario, device: str) -> Spec:
    """Return the spec of an evaluation: the run's, with what is other, and of which networks it is."""
    of_config: Settings = {section: dict(spec["config"][section]) for section in ("data", "evaluation", "runtime")}
    for section, settings in of_config.items():
        settings.update(json.loads(json.dumps(asdict(getattr(config, section)))))
    of_config["runtime"]["device"] = device
    described, imageset = scenario.as_dict(), scenario.imageset
    other: dict[str, Any] = {
        "scenario": described["name"],
        "asked": str(scenario.asked),
        "config": {**spec["config"], **of_config},
        "conventions": conventions_of(config),
        "steps": described["steps"],
        "split_hash": described["split_hash"],
        "division": described["division"],
        "data": {
            "name": scenario.asked.dataset,
            "root": str(imageset.root.resolve()) if imageset.root else None,
            "fingerprint": imageset.fingerprint,
        },
        "evaluates": {
            "hash": spec["hash"],
            "networks": {step: read_kept(network_path(run, step)).sha256 for step in kept_steps(run)},
        },
    }
    hashed = {section: _hashed(settings, getattr(config, section)) for section, settings in of_config.items()}
    told = {**other, "config": {**spec["config"], **hashed}, "data": imageset.fingerprint, "evaluates": spec["hash"]}
    return {**spec, **other, "hash": digest(told)[:12]}


def _hashed(settings: Settings, section: Any) -> Settings:
    """Return the settings of a section without those at their defaults that evaluations may be older than."""
    unset = asdict(section).keys() - told_in_hashes(section).keys()
    return {key: value for key, value in settings.items() if key not in unset}


def _benchmark(evaluation: Evaluation, console: Console) -> SegmentationScenario:
    config = evaluation.config
    with reading(console) as progress:
        return build_benchmark(
            evaluation.scenario,
            size=config.data.size,
            normalisation=read_kept(kept_file(evaluation.run)).normalisation,
            view=View(config.evaluation.short_side) if config.evaluation.short_side else None,
            future_classes="kept",
            valid_fraction=config.evaluation.valid_fraction,
            valid_seed=config.evaluation.valid_seed,
            ram_budget=config.data.ram_gb * 2**30,
            jpeg_draft=config.data.jpeg_draft,
            progress=progress,
        )


def _template(evaluation: Evaluation, step: int, meter: PixelMeter) -> Any:
    """Return the template of a run as it was after a step, to evaluate with."""
    spec, device = evaluation.spec, torch.device(evaluation.device)
    file = network_path(evaluation.run, step)
    network = KeptNetwork(file, device)
    require_of_run(network.kept, evaluation.run, file)
    method = method_class(method_of(spec))
    parameters = checked(method.Parameters, spec["method"]["parameters"], "method.parameters")
    given = network.network, method, parameters, evaluation.config, spec["scenario"], spec["seed"], device, [meter]
    template = make_template(*given)
    template.method.load_prediction_state(network.method_state)
    return template


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
