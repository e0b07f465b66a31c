"""What of a network is frozen in training: BatchNorm's statistics, its affine parameters, dropout."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd


def set_modes(network: nn.Module, batchnorm: str, dropout: bool) -> None:
    """Set a network in train mode to normalise and to drop out as `EpochProtocol.batchnorm` and `dropout` say.

    With `statistics` BatchNorm normalises by its running statistics, which stay; with `frozen` its affine parameters
    get no gradient either.
    """
    for module in network.modules():
        if isinstance(module, _BatchNorm) and batchnorm != "train":
            module.eval()
        if isinstance(module, _DropoutNd) and not dropout:
            module.eval()


def freeze_affine(network: nn.Module) -> None:
    """Take the gradient from BatchNorm's affine parameters."""
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            for parameter in module.parameters():
                parameter.requires_grad_(False)
