"""The errors that stop a training, and how any error is told; readable without torch."""

from __future__ import annotations


class NonFiniteLossError(RuntimeError):
    """An update's loss, or the weights it left, are infinite or no numbers: one line with the batch and its images."""


class PredictionError(RuntimeError):
    """A method's scores are of another shape than the images, or decide nothing: one line with step and method."""


class OnlineContractError(RuntimeError):
    """A method left the online protocol: it updated more or less than once per incoming batch, kept incoming images
    outside its memory, or read images that had not come by or that its memory cannot have held.
    """
