"""Dilated depthwise convolutions: the gradients are those of torch's own convolution."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from strategies.networks.dilated import DilatedDepthwise, with_quick_gradients
from strategies.networks.timm_models import Timm, TimmSettings


@pytest.mark.parametrize(
    ("size", "kernel", "padding", "dilation", "batch"),
    [
        ((6, 6), 5, 4, 2, 3),
        ((7, 5), 3, 2, 2, 2),
        ((9, 4), 3, 6, 6, 1),  # the outer taps see padding alone
        ((8, 11), (3, 5), (0, 4), (3, 2), 2),
        ((9, 9), 3, 1, 2, 2),
        ((5, 6), (1, 3), (0, 3), (1, 3), 2),
    ],
)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_gradients_are_those_of_torch(
    size: tuple[int, int], kernel: Any, padding: Any, dilation: Any, batch: int, layout: torch.memory_format
) -> None:
    generator = torch.Generator().manual_seed(3)
    module = nn.Sequential(nn.Conv2d(8, 8, kernel, padding=padding, dilation=dilation, groups=8, bias=False)).double()
    with_quick_gradients(module)
    (convolution,) = module
    assert type(convolution) is DilatedDepthwise
    maps = torch.randn(batch, 8, *size, generator=generator, dtype=torch.float64).to(memory_format=layout)
    maps.requires_grad_()
    output = module(maps)
    plain = F.conv2d(maps, convolution.weight, None, 1, padding, dilation, 8)
    torch.testing.assert_close(output, plain, rtol=1e-12, atol=1e-12)
    above = torch.randn(output.shape, generator=generator, dtype=torch.float64)
    expected = torch.autograd.grad(plain, (maps, convolution.weight), above)
    for mine, theirs in zip(torch.autograd.grad(output, (maps, convolution.weight), above), expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)


def test_frozen_parts_get_no_gradient() -> None:
    convolution = DilatedDepthwise(4, 4, 3, padding=2, dilation=2, groups=4, bias=False)
    maps = torch.randn(1, 4, 5, 5)
    convolution.weight.requires_grad_(False)
    assert not convolution(maps).requires_grad
    maps.requires_grad_()
    convolution(maps).sum().backward()
    assert convolution.weight.grad is None and maps.grad is not None


def test_without_gradients_and_in_half_precision_it_is_torchs() -> None:
    convolution = DilatedDepthwise(4, 4, 3, padding=2, dilation=2, groups=4, bias=False)
    maps = torch.randn(1, 4, 5, 5)
    with torch.no_grad():
        assert torch.equal(convolution(maps), F.conv2d(maps, convolution.weight, None, 1, 2, 2, 4))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = convolution(maps)
    assert output.dtype == torch.bfloat16
    output.float().sum().backward()
    assert convolution.weight.grad.dtype == torch.float32


@pytest.mark.parametrize(
    "other",
    [
        nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=False),
        nn.Conv2d(4, 4, 3, padding=2, dilation=2, bias=False),
        nn.Conv2d(4, 8, 3, padding=2, dilation=2, groups=4, bias=False),
        nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=4),
        nn.Conv2d(4, 4, 3, 2, padding=2, dilation=2, groups=4, bias=False),
        nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=4, bias=False, padding_mode="reflect"),
        nn.Conv2d(4, 4, 3, padding="same", dilation=2, groups=4, bias=False),
        nn.Conv2d(4, 4, 3, padding=5, dilation=2, groups=4, bias=False),
    ],
)
def test_other_convolutions_stay(other: nn.Conv2d) -> None:
    with_quick_gradients(nn.Sequential(other))
    assert type(other) is nn.Conv2d


def test_the_networks_of_timm_have_them() -> None:
    pytest.importorskip("timm")
    network = Timm(TimmSettings("timm", "none", "tf_efficientnet_lite0", "light"))
    dilated = [m for m in network.modules() if isinstance(m, nn.Conv2d) and m.groups > 1 and max(m.dilation) > 1]
    assert len(dilated) == 7 and all(type(m) is DilatedDepthwise for m in dilated)
