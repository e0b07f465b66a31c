"""Copies that go to the device and come from it while it goes on."""

from __future__ import annotations

import torch
from torch import Tensor


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor of the CPU on a device; to a GPU it is on its way, from pinned memory."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


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
