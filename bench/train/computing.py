"""How a process computes: with how many threads, in which precision on a GPU, and what it says where that fails."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from bench.settings.schema import RuntimeConfig
from strategies.learning.faults import NonFiniteLossError


def compute_as(runtime: RuntimeConfig) -> None:
    """Compute so from here on: equal numbers of threads give equal sums, and fp32 is TF32 on a GPU only where asked."""
    _set(runtime.threads, runtime.tf32, runtime.tf32)


@contextmanager
def computing(runtime: RuntimeConfig) -> Iterator[None]:
    """Compute so for a block, and after it as before."""
    before = torch.get_num_threads(), torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    compute_as(runtime)
    try:
        yield
    finally:
        _set(*before)


@contextmanager
def told_of_losses(before: str, after: str) -> Iterator[None]:
    """Put words around those of a `NonFiniteLossError`."""
    try:
        yield
    except NonFiniteLossError as error:
        raise NonFiniteLossError(f"{before}{error}{after}") from None


def _set(threads: int, matmul_tf32: bool, convolution_tf32: bool) -> None:
    torch.set_num_threads(threads)
    torch.backends.cuda.matmul.allow_tf32 = matmul_tf32
    torch.backends.cudnn.allow_tf32 = convolution_tf32
