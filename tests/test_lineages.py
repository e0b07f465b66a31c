"""The lineages' DeepLab: each pyramid against its definition written out, parameters by hand, parts and stages."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable
from typing import Literal

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from strategies.learning.protocol import OfflineProtocol
from strategies.learning.schedule import make_optimizer
from strategies.mib import share_background
from strategies.networks.backbone import Backbone
from strategies.networks.build import build_network
from strategies.networks.deeplab import DeepLabResNet50
from strategies.networks.heads import LinearHead, StepwiseHead
from strategies.networks.lineages import (
    DkdDeepLab,
    LineageSettings,
    MibDeepLab,
    MibPyramid,
    MibSettings,
    SsulDeepLab,
    _Lineage,
)
from strategies.networks.modes import set_modes
from strategies.networks.network import SegmentationNetwork
from strategies.networks.small import SmallBackbone
from strategies.networks.stage_maps import StageMaps, last_activations

KINDS: tuple[tuple[type[_Lineage], type[LineageSettings]], ...] = (
    (MibDeepLab, MibSettings),
    (SsulDeepLab, LineageSettings),
    (DkdDeepLab, LineageSettings),
)


def of_trunk(kind: type[_Lineage], settings: type[LineageSettings], trunk: str) -> _Lineage:
    return kind(settings(name="x", weights="none", trunk=trunk))


def norm(layer: nn.BatchNorm2d, x: Tensor, training: bool) -> Tensor:
    mean, variance = layer.running_mean, layer.running_var
    if training and x[:, 0].numel() > 1:
        mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)
    assert mean is not None and variance is not None
    scale = layer.weight / (variance + layer.eps).sqrt()
    return x * scale[:, None, None] + (layer.bias - mean * scale)[:, None, None]


def windows(x: Tensor) -> Tensor:
    """Averages over 32 x 32 cells around each cell, the window moved inside where it would leave the map."""
    height, width = x.shape[2:]
    high, wide = min(32, height), min(32, width)
    out = torch.zeros_like(x)
    for i in range(height):
        for j in range(width):
            top = min(max(i - (high - 1) // 2, 0), height - high)
            left = min(max(j - (wide - 1) // 2, 0), width - wide)
            out[:, :, i, j] = x[:, :, top : top + high, left : left + wide].mean((2, 3))
    return out


def mib_by_hand(p: MibPyramid, x: Tensor, training: bool, slope: float) -> Tensor:
    def active(y: Tensor) -> Tensor:
        return torch.where(y > 0, y, slope * y)

    near, *wide = (branch.weight for branch in p.branches)
    maps = [F.conv2d(x, near), *(F.conv2d(x, w, padding=r, dilation=r) for w, r in zip(wide, (2, 4, 6), strict=True))]
    joined = F.conv2d(active(norm(p.norm[0], torch.cat(maps, 1), training)), p.joined.weight)
    pooled = x.mean((2, 3), keepdim=True) if training else windows(x)
    image = active(norm(p.image[1], F.conv2d(pooled, p.image[0].weight), training))
    return active(norm(p.out[0], joined + F.conv2d(image, p.image[3].weight), training))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("shape", "activation"), [((2, 5, 7, 9), "leaky_relu"), ((2, 5, 35, 40), "relu")])
def test_mibs_pyramid_is_its_definition(training: bool, shape: tuple[int, ...], activation: str) -> None:
    torch.manual_seed(0)
    pyramid = MibPyramid(5, 6, (2, 4, 6), activation).double()
    for layer in pyramid.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean, layer.running_var = torch.randn(layer.num_features), 1 + torch.rand(layer.num_features)
            layer.double()
    x = torch.randn(shape, dtype=torch.float64)
    expected = mib_by_hand(copy.deepcopy(pyramid), x, training, 0.01 if activation == "leaky_relu" else 0.0)
    torch.testing.assert_close(pyramid.train(training)(x), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("kind", "settings"), KINDS)
def test_one_image_with_an_image_level_value_alone_trains(
    kind: type[_Lineage], settings: type[LineageSettings]
) -> None:
    network = of_trunk(kind, settings, "small").train()
    assert network(torch.randn(1, 3, 33, 47)).shape == (1, 64, 9, 12)


def test_parameters_are_those_counted_by_hand() -> None:
    """Convolutions have no bias; of a ResNet-50 without its classifier there are 23,508,032."""
    near, wide, norms = 2048 * 256, 3 * 9 * 2048 * 256, 2 * (4 * 256 + 256 + 256)
    mib = near + wide + 4 * 256 * 256 + near + 256 * 256 + norms
    ssul = near + wide + near + 5 * 256 * 256 + 2 * 256 * 6
    for (kind, settings), pyramid in zip(KINDS, (mib, ssul, mib), strict=True):
        with torch.device("meta"):
            network = of_trunk(kind, settings, "resnet50")
        assert sum(p.numel() for p in network.parameters()) == 23_508_032 + pyramid


def test_the_lineages_differ_as_they_are_said_to() -> None:
    with torch.device("meta"):
        mib, ssul, dkd = (of_trunk(kind, settings, "resnet50") for kind, settings in KINDS)
    assert [{m.momentum for m in one.trunk.modules() if isinstance(m, nn.BatchNorm2d)} for one in (mib, ssul, dkd)] == [
        *({0.1}, {0.01}, {0.01})
    ]
    dilations = [[block.conv2.dilation for block in one.trunk["layer4"]] for one in (mib, ssul)]
    assert dilations == [[(2, 2)] * 3, [(1, 1), (2, 2), (2, 2)]]
    kinds = [{type(m) for m in one.modules()} & {nn.ReLU, nn.LeakyReLU} for one in (mib, ssul, dkd)]
    assert kinds == [{nn.LeakyReLU}, {nn.ReLU}, {nn.ReLU}]
    assert [m.p for m in ssul.modules() if isinstance(m, nn.Dropout)] == [0.1]


def test_torchvisions_weights_load_by_name() -> None:
    from torchvision.models import resnet50

    torch.manual_seed(1)
    published = resnet50(weights=None).state_dict()
    for kind, settings in KINDS:
        network = of_trunk(kind, settings, "resnet50")
        network.load(published)
        state = network.trunk.state_dict()
        assert state and all(torch.equal(tensor, published[name]) for name, tensor in state.items())


# ---------------------------------------------------------------------------------------- parts, heads, modes, stages


def networks() -> Iterable[Backbone]:
    yield SmallBackbone()
    with torch.device("meta"):
        yield DeepLabResNet50()
        for kind, settings in KINDS:
            yield of_trunk(kind, settings, "resnet50")


def test_every_parameter_is_of_one_part() -> None:
    for backbone in networks():
        network = SegmentationNetwork(backbone, StepwiseHead(LinearHead(backbone.channels, 4)))
        parts = network.parts()
        found = [id(parameter) for part in parts.values() for parameter in part]
        assert sorted(found) == sorted(map(id, network.parameters())) and len(found) == len(set(found))
        assert all(parts[name] for name in ("backbone", "pyramid", "classifier", "new"))


def test_a_stepwise_head_computes_grows_and_is_saved_as_a_linear_one() -> None:
    torch.manual_seed(2)
    linear = LinearHead(6, 3)
    stepwise, features = StepwiseHead(copy.deepcopy(linear)), torch.randn(2, 6, 4, 5)
    for outputs in (2, 1):
        states = []
        for head in (linear, stepwise):
            torch.manual_seed(outputs)
            head.grow(outputs)
            share_background(head, outputs)
            states.append(head.state_dict())
        assert torch.equal(linear(features), stepwise(features))
        assert list(states[0]) == list(states[1]) == ["weight", "bias"]
        assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
        assert len(stepwise.new_weight) == outputs == len(stepwise.new_bias)
    other = LinearHead(6, 6)
    other.load_state_dict(stepwise.state_dict())
    again = StepwiseHead(LinearHead(6, 6))
    again.load_state_dict(other.state_dict())
    assert torch.equal(again(features), linear(features))
    with pytest.raises(RuntimeError, match="weight"):
        again.load_state_dict(LinearHead(6, 5).state_dict())


@pytest.mark.parametrize("batchnorm", ["train", "statistics", "frozen"])
def test_frozen_batchnorm_stays_bit_for_bit(batchnorm: Literal["train", "statistics", "frozen"]) -> None:
    torch.manual_seed(3)
    network = SegmentationNetwork(SmallBackbone(), LinearHead(64, 3)).train()
    p = OfflineProtocol(1, 2, "sgd", 0.1, 0.9, 0.1, 0, 0.9, batchnorm=batchnorm)
    optimizer = make_optimizer(network, p)
    set_modes(network, batchnorm, dropout=True)
    before = copy.deepcopy(network.state_dict())
    for _ in range(3):
        optimizer.zero_grad()
        network(torch.randn(2, 3, 16, 16)).square().mean().backward()
        optimizer.step()
    layers = {name for name, m in network.named_modules() if isinstance(m, nn.BatchNorm2d)}
    moved = {name for name, tensor in network.state_dict().items() if not torch.equal(before[name], tensor)}
    kinds = {name.rpartition(".")[2] for name in moved if name.rpartition(".")[0] in layers}
    statistics = {"running_mean", "running_var", "num_batches_tracked"}
    assert (
        kinds
        == {"train": {"weight", "bias", *statistics}, "statistics": {"weight", "bias"}, "frozen": set()}[batchnorm]
    )
    assert "backbone.stem.0.0.weight" in moved


@pytest.mark.parametrize(("name", "settings"), [("ssul-deeplabv3", LineageSettings), ("mib-deeplabv3", MibSettings)])
def test_ssuls_layers_above_the_trunk_start_with_hes_normal_weights(name: str, settings: type[LineageSettings]) -> None:
    """torch's default draws uniformly with a deviation of sqrt(1/3) over that of fan-in, He's has sqrt(2)."""
    torch.manual_seed(0)
    network = build_network(settings(name=name, weights="none", trunk="small"), 4, head="grouped")
    pyramid = [m for m in network.backbone.get_submodule("pyramid").modules() if isinstance(m, nn.Conv2d)]
    heads = [m for m in network.head.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    assert len(pyramid) == (6 if name == "ssul-deeplabv3" else 7) and len(heads) == 3
    for layer in [*heads, *(pyramid if name == "ssul-deeplabv3" else [])]:
        fan_in = layer.weight[0].numel()
        expected = math.sqrt((2 if name == "ssul-deeplabv3" else 1 / 3) / fan_in)
        assert layer.weight.std().item() == pytest.approx(expected, rel=0.05)
        assert (layer.weight.abs().max() > 2 * expected) == (name == "ssul-deeplabv3")


def test_dropout_can_be_off_in_training() -> None:
    network = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm2d(3)).train()
    set_modes(network, "train", dropout=False)
    assert [module.training for module in network] == [False, True]


@pytest.mark.parametrize("backbone", [SmallBackbone(), of_trunk(MibDeepLab, MibSettings, "small")])
def test_the_maps_of_stages_are_those_that_the_next_module_gets(backbone: Backbone) -> None:
    network = SegmentationNetwork(backbone, LinearHead(backbone.channels, 3)).eval()
    seen: list[Tensor] = []
    last = backbone.get_submodule(backbone.stages[-1].name)
    hook = last.register_forward_hook(lambda module, inputs, output: seen.append(output))
    images = torch.randn(2, 3, 32, 40)
    with StageMaps(network) as maps:
        twin = copy.deepcopy(network)
        network(images)
        twin(torch.zeros(1, 3, 16, 16))
        assert maps.names == tuple(stage.name for stage in backbone.stages)
        for stage in backbone.stages:
            assert maps[stage.name].shape == (2, stage.channels, 32 // stage.stride, 40 // stage.stride)
        assert torch.equal(maps[backbone.stages[-1].name], seen[0])
    hook.remove()
    with pytest.raises(LookupError, match="no map of it yet"):
        maps[backbone.stages[-1].name]
    with pytest.raises(LookupError, match="the network's stages are"):
        StageMaps(network, ["neck"])


def leaky(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.01)


@pytest.mark.parametrize(
    ("backbone", "activations_of"),
    [
        (SmallBackbone(), [torch.relu] * 4),
        (of_trunk(MibDeepLab, MibSettings, "small"), [leaky, *[torch.relu] * 3]),
        (of_trunk(MibDeepLab, MibSettings, "resnet50"), [leaky] * 4),
    ],
    ids=["small", "mib on small", "mib"],
)
def test_maps_before_the_last_activation_are_what_it_gets_and_the_network_computes_as_without(
    backbone: Backbone, activations_of: list[Callable[[Tensor], Tensor]]
) -> None:
    """Of torchvision's bottleneck, which calls one activation behind each of three convolutions, the last call counts.

    Leaky ReLU tells the map before it from any other.
    """
    backbone.usual_side = 64
    network, images = SegmentationNetwork(backbone, LinearHead(backbone.channels, 3)), torch.randn(2, 3, 64, 64)
    first = next(network.parameters())

    def passed() -> tuple[Tensor, Tensor]:
        logits = network(images)
        return logits, torch.autograd.grad(logits.square().mean(), first)[0]

    activations = last_activations(network)
    assert [*activations] == [stage.name for stage in backbone.stages]
    in_place = [module for module in network.modules() if getattr(module, "inplace", False)]
    with StageMaps(network) as maps:
        expected = passed()
        behind = [maps[name] for name in maps.names]
    with StageMaps(network, None, activations) as maps:
        found = passed()
        before = [maps[name] for name in maps.names]
    assert [module for module in network.modules() if getattr(module, "inplace", False)] == in_place
    assert all(torch.equal(one, other) for one, other in zip(expected, found, strict=True))
    for activate, one, other in zip(activations_of, before, behind, strict=True):
        assert torch.equal(activate(one), other) and (one < 0).any()
