"""Base models: trained once per recipe, kept under the hash of what determines them, shared by all."""

from __future__ import annotations

import json
from typing import Any

import torch
from torch import Tensor

from bench.plan.code import code_digest
from bench.plan.job import BaseJob
from bench.screen.events import Report
from bench.screen.log import log
from bench.train.checkpoint import CheckpointError
from bench.train.epochs import EpochTraining, train_epochs
from bench.train.kept import base_checkpoint, base_model
from benchmarks.streams import SegmentationScenario
from reports.atomic import write_atomic
from strategies.networks.network import SegmentationNetwork

Importance = dict[str, dict[str, dict[str, Tensor]]]
"""By measure and kind, the tensors of a base training's `BaseMeasures`."""


def make_base(job: BaseJob, benchmark: SegmentationScenario, report: Report) -> None:
    """Train the base model of a job on the first step of a benchmark, or go on with it, and keep it."""
    experience = benchmark.train_stream[0]
    classes = len(experience.classes_in_this_experience)
    checkpoint = base_checkpoint(job.base["hash"])
    held_out = benchmark.valid_stream[0].data
    task = EpochTraining(experience.data, classes, job.config, job.recipe, job.seed, job.key, checkpoint, held_out)
    trained = train_epochs(task, torch.device(job.device), report)
    importance = trained.measures.found() if trained.measures else {}
    save_base(trained.network, job.base, trained.seconds / job.units, importance)
    checkpoint.remove()


def save_base(
    network: SegmentationNetwork, base: dict[str, Any], seconds_per_update: float, importance: Importance | None = None
) -> None:
    """Keep a base model under its hash, and beside it what an update took; each file appears by one rename."""
    kept, inputs = base_model(base["hash"]), base["inputs"]
    kind = {
        "network": inputs["network"]["name"],
        "device": inputs["device"],
        "devices": inputs["protocol"]["devices"],
    }
    write_atomic(kept.path.with_suffix(".json"), json.dumps({**kind, "seconds_per_update": seconds_per_update}))
    state = {"inputs": inputs, "code": code_digest(), "network": network.state_dict()}
    kept.write({**state, "importance": importance or {}})


def load_base(base_hash: str, network: SegmentationNetwork) -> Importance:
    """Load a kept base model into a network of its form, in eval mode, and return what its training measured.

    The tensors of it are on the network's device. Raises RuntimeError where that cannot be done.
    """
    importance: Importance = {}

    def load(state: Any) -> None:
        network.load_state_dict(state["network"])
        importance.update(_moved(state["importance"], next(network.parameters()).device))
        log.info("base model %s, trained by code %s", base_hash[:12], state["code"])

    try:
        base_model(base_hash).restore(load)
    except CheckpointError as error:
        raise RuntimeError(f"{error}; the same command trains the base model again") from error
    network.eval()
    return importance


def _moved(importance: Importance, device: torch.device) -> Importance:
    return {
        name: {kind: {piece: tensor.to(device) for piece, tensor in of_kind.items()} for kind, of_kind in found.items()}
        for name, found in importance.items()
    }
