"""The errors that stop a training because of its numbers; readable without torch."""

from __future__ import annotations


class NonFiniteLossError(RuntimeError):
    """An update's loss, or the weights it left, are infinite or no numbers: one line with the batch and its images."""
