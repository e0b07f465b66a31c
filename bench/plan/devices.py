"""What runs are computed on: the CPU, or which GPUs."""

from __future__ import annotations

import os

from bench.settings.errors import RequestError
from bench.settings.slurm import SlurmSettings


def gpus_of(device: str) -> tuple[str, ...]:
    """Return the GPUs that runs are spread over, by their names in CUDA_VISIBLE_DEVICES; none for `cuda:1`."""
    if device != "cuda":
        return ()
    import torch

    visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    count = torch.cuda.device_count()  # CUDA stops at the first name that is none
    return tuple(visible[:count] or map(str, range(count)))


def submitted_device(device: str, slurm: SlurmSettings) -> str:
    """Return the device of runs that other machines make: `auto` is a GPU where the jobs ask for one."""
    if device not in ("auto", "cpu", "cuda"):
        raise RequestError(f"--device {device}: with --launcher slurm allowed are auto, cpu, cuda")
    if device == "auto":
        return "cuda" if slurm.gpus_per_node else "cpu"
    return device


def resolved_device(device: str) -> str:
    """Return `cpu` or `cuda`; `auto` takes a GPU where there is one."""
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(device).type
    except RuntimeError:
        kind = ""
    if kind not in ("cpu", "cuda") or (kind == "cuda" and not torch.cuda.is_available()):
        available = "auto, cpu, cuda" if torch.cuda.is_available() else "auto, cpu (no GPU is available)"
        raise RequestError(f"--device {device}: allowed are {available}")
    return device


def require_compiler(device: str) -> None:
    """Raise `RequestError` where this machine has nothing that torch.compile makes code for a device with."""
    import torch
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch.utils._triton import has_triton

    on_gpu = torch.device(device).type == "cuda"
    try:
        get_cpp_compiler()
    except Exception:
        raise RequestError("runtime.compile=true: no C++ compiler (g++, or what CXX names) is found here") from None
    if on_gpu and not has_triton():
        raise RequestError("runtime.compile=true: Triton, which compiles for GPUs, is not found here")


def require_devices(count: int, device: str, section: str) -> None:
    """Raise `RequestError` where a job cannot be computed on so many devices of this machine, as a section asks."""
    import torch

    asked = torch.device(device)
    if count == 1 or asked.type == "cpu":
        return
    if asked.index is not None:
        raise RequestError(f"{section}.devices={count}: --device {device} is one GPU; allowed are auto, cpu, cuda")
    visible = torch.cuda.device_count()
    if visible < count:
        raise RequestError(f"{section}.devices={count}: {visible} GPU{' is' if visible == 1 else 's are'} visible")
