"""Networks of a run that are kept after its steps: `networks/step-<t>.safetensors`, as the setting `keep` says."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

from bench.plan.job import RunJob
from bench.train.network_file import FORMAT, Kept, write_network
from bench.train.networks import normalisation
from reports.palettes import in_learning_order, palette_of
from reports.spec import known_after
from strategies.learning.method import Method
from strategies.learning.segmentation import SegmentationTemplate


def network_path(run: Path, step: int) -> Path:
    """Return the file of the network that a run's directory has after a step."""
    return run / "networks" / f"step-{step}.safetensors"


def kept_steps(run: Path) -> list[int]:
    """Return the steps after which a run's network was kept, in order."""
    names = (re.fullmatch(r"step-(\d+)\.safetensors", path.name) for path in (run / "networks").glob("step-*"))
    return sorted(int(name[1]) for name in names if name)


def evaluations_folder(run: Path) -> Path:
    """Return the folder of a run's directory with what `bench evaluate` has recorded of its networks."""
    return run / "evaluations"


def forget_networks(run: Path, next_step: int) -> None:
    """Delete the networks of a run from a step on, which are made again, and the evaluations of its last one."""
    shutil.rmtree(evaluations_folder(run), ignore_errors=True)
    for step in kept_steps(run):
        if step >= next_step:
            for file in (run / "networks").glob(f"step-{step}.*"):  # what it was exported as, too
                file.unlink(missing_ok=True)


def keep_network(job: RunJob, template: SegmentationTemplate, step: int) -> None:
    """Keep the network after a step, and what its method predicts by, where the job's settings ask for it."""
    keep = job.config.keep
    if keep == "all" or (keep == "last" and step == len(job.spec["steps"]) - 1):
        method = template.method.prediction_state()
        write_network(network_path(job.folder, step), _told(job, template, step), template.network.state_dict(), method)


def _told(job: RunJob, template: SegmentationTemplate, step: int) -> Kept:
    spec, config = job.spec, job.config
    settings: dict[str, Any] = spec["config"]
    known = known_after(spec)[step]
    groups = [len(one["classes"]) for one in spec["steps"][: step + 1]]
    classes = [0, *(number for one in spec["steps"] for number in one["classes"])][:known]
    colours = in_learning_order(palette_of(spec["data"]["name"]), classes[1:])[:known]
    return Kept(
        format=FORMAT,
        scenario=spec["scenario"],
        strategy=spec["strategy"],
        hash=spec["hash"],
        seed=job.seed,
        step=step,
        network=settings["network"],
        head=job.recipe.head,
        tau=job.recipe.tau,
        classes=classes,
        class_names=spec["class_names"][:known],
        palette=[(r, g, b) for r, g, b in colours.tolist()],
        normalisation=normalisation(config),
        size=config.data.size,
        short_side=config.evaluation.short_side,
        crop=config.data.crop,
        threads=config.runtime.threads,
        precision=config.runtime.precision,
        tf32=config.runtime.tf32,
        batch_size=config.evaluation.batch_size,
        method=spec["method"]["name"],
        parameters=spec["method"]["parameters"],
        memory=config.memory.size,
        predicts="logits" if type(template.method).predict is Method.predict else "method",
        versions=spec["versions"],
        groups=groups if job.recipe.head == "grouped" else None,
    )
