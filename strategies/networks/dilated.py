"""Dilated depthwise convolutions whose gradients are convolutions too.

On a CPU torch takes far longer for their gradients than for themselves; `bench speed laptop` prints what that makes of
an update. Both gradients are depthwise convolutions: that of the maps with the mirrored kernels; that of the kernels of
each image with its output's gradient, stride and dilation having changed places.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


def with_quick_gradients(network: nn.Module) -> None:
    """Turn a network's dilated depthwise convolutions into `DilatedDepthwise`; names and parameters stay."""
    for module in network.modules():
        if type(module) is nn.Conv2d and _is_dilated_depthwise(module):
            module.__class__ = DilatedDepthwise


class DilatedDepthwise(nn.Conv2d):
    """A dilated depthwise convolution of stride 1 without bias, trained quickly on the CPU."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        output: Tensor
        if not torch.is_grad_enabled() or input.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
            output = super()._conv_forward(input, weight, bias)
        else:
            output = _Convolution.apply(input, weight, self.padding, self.dilation)
        return output


class _Convolution(torch.autograd.Function):
    """Of maps (B, C, H, W) with kernels (C, 1, k, l), and its gradients."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, kernels: Tensor, padding: tuple[int, int], dilation: tuple[int, int]) -> Tensor:
        ctx.save_for_backward(maps, kernels)
        ctx.padding, ctx.dilation = padding, dilation
        return F.conv2d(maps, kernels, padding=padding, dilation=dilation, groups=len(kernels))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        maps, kernels = ctx.saved_tensors
        of_maps = of_kernels = None
        if ctx.needs_input_grad[0]:
            opposite = [d * (k - 1) - p for d, k, p in zip(ctx.dilation, kernels.shape[2:], ctx.padding, strict=True)]
            of_maps = F.conv2d(
                gradient, kernels.flip(2, 3), padding=opposite, dilation=ctx.dilation, groups=len(kernels)
            )
        if ctx.needs_input_grad[1]:
            of_kernels = torch.zeros_like(kernels)
            for image, its_gradient in zip(maps.split(1), gradient, strict=True):
                of_kernels += F.conv2d(
                    image, its_gradient.unsqueeze(1), padding=ctx.padding, stride=ctx.dilation, groups=len(kernels)
                ).transpose(0, 1)[..., : kernels.shape[2], : kernels.shape[3]]
        return of_maps, of_kernels, None, None


def _is_dilated_depthwise(module: nn.Conv2d) -> bool:
    """Return whether a convolution is what `DilatedDepthwise` does, padded with zeros and no wider than its kernel."""
    return (
        module.groups == module.in_channels == module.out_channels
        and module.bias is None
        and module.stride == (1, 1)
        and max(module.dilation) > 1
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
        and all(p <= d * (k - 1) for p, d, k in zip(module.padding, module.dilation, module.kernel_size, strict=True))
    )
