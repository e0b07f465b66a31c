"""What runs need beside this code: an account, a cluster."""

from __future__ import annotations

import shutil
from typing import Any

from bench.settings.errors import RequestError
from bench.settings.slurm import SlurmSettings
from strategies.plugins.faults import in_a_line


def require_launcher(settings: SlurmSettings) -> None:
    """Raise `RequestError` where nothing can be submitted from here."""
    submitit_module()
    if settings.cluster == "slurm" and not (shutil.which("sbatch") and shutil.which("srun")):
        raise RequestError("--launcher slurm: no sbatch and srun on this machine; slurm.cluster=local does without")


def submitit_module() -> Any:
    """Return submitit; raise `RequestError` where it is not installed."""
    try:
        import submitit
    except ImportError:
        raise RequestError("--launcher slurm needs submitit: pip install 'continual-seg-bench[slurm]'") from None
    return submitit


def require_account() -> None:
    """Have Weights & Biases find its account, or ask for it on a terminal; raise `RequestError` if there is none."""
    try:
        import wandb
    except Exception as error:
        raise RequestError(f"--loggers wandb: the package cannot be imported: {in_a_line(error)}") from None
    try:
        if wandb.setup().settings.mode not in ("offline", "dryrun", "disabled"):
            wandb.login(verify=False)
    except (wandb.Error, ValueError) as error:
        reason = " ".join(str(error).split())
        raise RequestError(f"--loggers wandb: {reason} WANDB_MODE=offline needs no account.") from None
