"""What jobs ask a cluster for: the section `slurm` of the settings."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from strategies.networks.settings import STRICT


@dataclass(frozen=True, config=STRICT)
class SlurmSettings:
    """What each job asks for, in Slurm's words; what is None is left to the cluster."""

    cluster: Literal["slurm", "local"] = "slurm"
    """`local`: submitit's processes on this machine, all at once, to try a submission out."""
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    nodelist: str | None = None
    exclude: str | None = None
    timeout_min: Annotated[int, Field(ge=1)] = 240
    """A job that reaches it goes on in a new one."""
    array_parallelism: Annotated[int, Field(ge=1)] = 16
    """Jobs of an array that run at once."""
    gpus_per_node: Annotated[int, Field(ge=0)] | None = None
    """By default as many as the run's devices, where it is computed on GPUs."""
    cpus_per_task: Annotated[int, Field(ge=1)] | None = None
    """By default the run's threads and the workers that read its images, as often as it has devices."""
    mem_gb: Annotated[float, Field(gt=0)] | None = None
    signal_delay_s: Annotated[int, Field(ge=1)] = 90
    """So long before its time is up a job is told; it is put back into the queue behind its next checkpoint."""
    max_num_timeout: Annotated[int, Field(ge=0)] = 100
    """How often a job may reach its time limit."""
    setup: list[str] = Field(default_factory=list)
    """Shell commands before the run, such as `module load cuda`."""
    additional_parameters: dict[str, Any] = Field(default_factory=dict)
    """Any other option of sbatch, by its long name."""
