"""The streams that a job trains on and is evaluated on."""

from __future__ import annotations

from bench.plan.job import BaseJob, RunJob
from bench.train.networks import normalisation
from benchmarks.augmentation import View
from benchmarks.scenarios import load_scenario
from benchmarks.streams import SegmentationScenario, build_benchmark


def benchmark_of(job: BaseJob | RunJob) -> SegmentationScenario:
    """Return the streams of a job; raise RuntimeError where they are not those that it was planned with."""
    evaluation, data = job.config.evaluation, job.config.data
    scenario = load_scenario(
        job.scenario, job.data_root, data.train_list, data.shared_ids, max_megapixels=data.max_megapixels
    )
    if scenario.split_hash != job.split_hash:
        raise RuntimeError(f"the images or lists of {job.scenario} have changed since the run was planned")
    return build_benchmark(
        scenario,
        size=data.size,
        normalisation=normalisation(job.config),
        view=View(evaluation.short_side) if evaluation.short_side else None,
        future_classes="kept",
        void=data.void,
        saliency=job.recipe.saliency,
        valid_fraction=evaluation.valid_fraction,
        valid_seed=evaluation.valid_seed,
        ram_budget=data.ram_gb * 2**30,
        jpeg_draft=data.jpeg_draft,
    )
