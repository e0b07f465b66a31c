"""Copies that come from the device while it goes on."""

from __future__ import annotations

import torch
from torch import Tensor


class ArrivingCopy:
    """A tensor on its way from the device: reading it waits for the copy, not for what was launched since."""

    def __init__(self, tensor: Tensor) -> None:
        self._copy = tensor.detach().to("cpu", non_blocking=True)
        self._copied = torch.cuda.current_stream(tensor.device).record_event() if tensor.is_cuda else None

    def value(self) -> Tensor:
        """Return the tensor, on the CPU."""
        if self._copied is not None:
            self._copied.synchronize()
        return self._copy
