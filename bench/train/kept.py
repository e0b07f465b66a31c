"""What is kept of base models and runs, and where; whoever looks there imports nothing that trains."""

from __future__ import annotations

from bench.plan.code import code_digest
from bench.plan.folders import base_file
from bench.plan.job import RunJob
from bench.train.checkpoint import Checkpoint, StepCheckpoints


def base_model(base_hash: str) -> Checkpoint:
    """Return the file in which the base model of a hash is kept: what determines it, and its network."""
    return Checkpoint(base_file(base_hash), {"base": base_hash})


def base_checkpoint(base_hash: str) -> Checkpoint:
    """Return the checkpoint of the training of a base model."""
    return Checkpoint(base_file(base_hash).with_suffix(".ckpt"), {"base": base_hash, "code": code_digest()})


def run_checkpoints(job: RunJob) -> StepCheckpoints:
    """Return the checkpoints of a run."""
    return StepCheckpoints(job.folder / "checkpoint", job.spec)
