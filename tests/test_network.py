"""Networks grow without touching what they know, classify every pixel of the image, and count their passes."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from reference import HAND_CASES, cosine_logits, mib_init, softmax
from torch import Tensor, nn
from torch.nn import functional as F

from strategies.mib import share_background
from strategies.networks.batchnorm import PooledBatchNorm
from strategies.networks.build import build_network
from strategies.networks.heads import CosineHead, LinearHead
from strategies.networks.network import SegmentationNetwork, batch_statistics, evaluation_mode
from strategies.networks.settings import HeadName
from strategies.networks.small import SmallBackbone

every_head = pytest.mark.parametrize("head", ["linear", "cosine"])


@pytest.fixture(autouse=True)
def one_seed() -> None:
    torch.manual_seed(0)


def images(count: int = 2, height: int = 32, width: int = 32, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(seed))


# ---------------------------------------------------------------------------------------------------- growing


@every_head
def test_growing_keeps_the_old_outputs_logits_bit_for_bit(head: HeadName) -> None:
    network = build_network("small", 3, head).eval()
    before = network(images())
    network.grow(2)
    after = network(images())
    assert (before.shape[1], after.shape[1], network.outputs) == (4, 6, 6)
    assert torch.equal(after[:, :4], before)


@every_head
def test_growing_twice_by_one_appends_in_the_order_of_learning(head: HeadName) -> None:
    network = build_network("small", 2, head).eval()
    network.grow(1)
    between = network(images())
    network.grow(1)
    assert torch.equal(network(images())[:, :4], between)


@every_head
def test_new_outputs_have_the_layers_default_initialisation(head: HeadName) -> None:
    network = build_network("small", 1, head)
    torch.manual_seed(3)
    network.grow(500)
    torch.manual_seed(3)
    fresh = nn.Linear(64, 500, bias=head == "linear")
    assert torch.equal(network.head.weight[2:], fresh.weight)
    if isinstance(network.head, LinearHead):
        assert torch.equal(network.head.bias[2:], fresh.bias)
    bound = 1 / 8  # uniform in +-1/sqrt(64)
    assert network.head.weight[2:].abs().max() <= bound
    assert network.head.weight[2:].std().item() == pytest.approx(bound / 3**0.5, rel=0.02)


@every_head
def test_grown_outputs_are_parameters_that_get_a_gradient(head: HeadName) -> None:
    network = build_network("small", 3, head)
    network.grow(2)
    torch.autograd.backward(network(images())[:, -1].sum())
    assert any(p is network.head.weight for p in network.parameters())
    assert network.head.weight.grad is not None
    assert network.head.weight.grad[-1].any()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_growing_keeps_the_dtype(dtype: torch.dtype) -> None:
    for head in (LinearHead(4, 2).to(dtype), CosineHead(4, 2).to(dtype)):
        head.grow(1)
        assert {p.dtype for p in head.parameters()} == {dtype}


# ------------------------------------------------------------------------------------------------------ heads


def test_linear_head_is_an_affine_map_of_each_pixels_feature() -> None:
    head = LinearHead(5, 3).double()
    features = torch.randn(2, 5, 3, 4, dtype=torch.float64)
    expected = np.einsum("cd,bdhw->bchw", head.weight.detach().numpy(), features.numpy())
    expected += head.bias.detach().numpy()[:, None, None]
    np.testing.assert_allclose(head(features).detach().numpy(), expected, rtol=1e-12)


def cosine_head(weights: np.ndarray, tau: float) -> CosineHead:
    head = CosineHead(weights.shape[1], weights.shape[0], tau).double()
    head.weight.data = torch.from_numpy(weights)
    return head


def test_cosine_logits_by_hand() -> None:
    case = HAND_CASES["cosine_logits"]
    logits = cosine_head(case["weights"], case["tau"])(torch.from_numpy(case["features"]))
    np.testing.assert_allclose(logits.detach().numpy(), case["expected"], atol=1e-12)


@pytest.mark.parametrize("tau", [1.0, 12.0, 30.0])
def test_cosine_logits_equal_the_reference(tau: float) -> None:
    rng = np.random.default_rng(0)
    features, weights = rng.normal(0, 3, (2, 6, 3, 4)), rng.normal(0, 2, (4, 6))
    logits = cosine_head(weights, tau)(torch.from_numpy(features)).detach().numpy()
    np.testing.assert_allclose(logits, cosine_logits(features, weights, tau), rtol=1e-10)


def test_cosine_head_has_no_bias_and_temperature_12_unless_told() -> None:
    head = build_network("small", 3, "cosine").head
    assert [name for name, _ in head.named_parameters()] == ["weight"]
    assert isinstance(head, CosineHead) and head.tau == 12.0
    assert CosineHead(4, 2).tau == 12.0
    other = build_network("small", 3, "cosine", tau=20.0).head
    assert isinstance(other, CosineHead) and other.tau == 20.0


def test_a_pixel_without_a_feature_has_finite_cosine_logits_and_gradients() -> None:
    head = CosineHead(4, 3)
    features = torch.zeros(1, 4, 2, 2, requires_grad=True)
    logits = head(features)
    torch.autograd.backward(logits.log_softmax(1)[:, 0].sum())
    assert features.grad is not None and head.weight.grad is not None
    assert torch.equal(logits, torch.zeros_like(logits))
    assert features.grad.isfinite().all() and head.weight.grad.isfinite().all()


# ----------------------------------------------------------------------------------------------------- passes


@pytest.mark.parametrize(("height", "width"), [(32, 32), (33, 47), (17, 64), (5, 7)])
@every_head
def test_logits_have_the_images_size(head: HeadName, height: int, width: int) -> None:
    network = build_network("small", 3, head)
    for mode in (True, False):
        assert network.train(mode)(images(2, height, width)).shape == (2, 4, height, width)


def test_logits_are_the_heads_upsampled_bilinearly() -> None:
    """On paper, from 2 x 1 to 4 x 1 with half-pixel centres: a, 3/4 a + 1/4 b, 1/4 a + 3/4 b, b."""

    class Features(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.tensor([[[[0.0], [8.0]]]])

    head = LinearHead(1, 1)
    head.weight.data, head.bias.data = torch.tensor([[1.0]]), torch.tensor([1.0])
    logits = SegmentationNetwork(Features(), head)(torch.zeros(1, 3, 4, 1))
    assert logits.flatten().tolist() == pytest.approx([1.0, 3.0, 7.0, 9.0])


def test_the_small_network_has_stride_4_and_015_million_parameters() -> None:
    assert SmallBackbone()(images(2, 64, 64)).shape == (2, 64, 16, 16)
    count = sum(p.numel() for p in build_network("small", 20).parameters())
    assert count == 152_720 + 21 * (64 + 1)


def test_the_small_network_computes_what_its_layers_written_out_compute() -> None:
    """Stem, residual blocks of dilation 1, 2 and 4, a pyramid with an image-level branch, in eval mode."""
    backbone = SmallBackbone().double().eval()
    state = backbone.state_dict()
    for name, value in state.items():
        if value.dim() == 1:  # BatchNorm's, so that its place in a layer shows
            value.copy_(
                torch.rand_like(value) + 0.5 if name.endswith(("var", "weight")) else torch.randn_like(value) / 4
            )

    def normal(x: Tensor, name: str) -> Tensor:
        mean, variance, weight, bias = (
            state[f"{name}.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (variance + 1e-5).sqrt() * weight + bias

    def layer(x: Tensor, name: str, stride: int = 1, dilation: int = 1) -> Tensor:
        weight = state[f"{name}.0.weight"]
        padding = dilation if weight.shape[-1] == 3 else 0
        return normal(F.conv2d(x, weight, None, stride, padding, dilation), f"{name}.1")

    x = images(2, 64, 64).double()
    wanted = layer(layer(x, "stem.0", 2).clamp(min=0), "stem.1", 2).clamp(min=0)
    for i, dilation in enumerate((1, 2, 4)):
        name = f"blocks.{i}"
        inner = layer(layer(wanted, f"{name}.first", 1, dilation).clamp(min=0), f"{name}.second", 1, dilation)
        skip = wanted if i else F.conv2d(wanted, state[f"{name}.skip.weight"], state[f"{name}.skip.bias"])
        wanted = (inner + skip).clamp(min=0)
    image = wanted.mean((2, 3)) @ state["pooled.weight"].T + state["pooled.bias"]
    near, wide = layer(wanted, "near").clamp(min=0), layer(wanted, "wide", 1, 6).clamp(min=0)
    wanted = (layer(torch.cat([near, wide], 1), "joined").clamp(min=0) + image[:, :, None, None]).clamp(min=0)
    torch.testing.assert_close(backbone(x), wanted, rtol=1e-9, atol=1e-12)
    assert 0.1 < (wanted > 0).double().mean() < 1 and wanted.shape == (2, 64, 16, 16)


def test_the_tally_counts_the_passes_of_a_network_and_of_all_its_copies() -> None:
    network = build_network("small", 3)
    network(images(2))
    copied = copy.deepcopy(network)
    copied(images(3))
    copy.deepcopy(copied).features(images(4))
    network.grow(1)
    network(images(1))
    assert (network.tally.passes, network.tally.images) == (4, 10)
    assert (copied.tally.passes, copied.tally.images) == (4, 10)


def test_two_networks_count_apart() -> None:
    first, second = build_network("small", 3), build_network("small", 3)
    first(images())
    assert (first.tally.passes, second.tally.passes) == (1, 0)


def test_evaluation_mode_moves_no_statistics_and_gives_every_module_its_own_mode_back() -> None:
    network = build_network("small", 3).train()
    network.backbone.stem.eval()
    modes = [m.training for m in network.modules()]
    state = copy.deepcopy(network.state_dict())
    with evaluation_mode(network):
        assert not any(m.training for m in network.modules())
        network(images())
    assert [m.training for m in network.modules()] == modes
    assert len(set(modes)) == 2
    with pytest.raises(RuntimeError), evaluation_mode(network):
        network(torch.zeros(2, 1, 32, 32))
    assert [m.training for m in network.modules()] == modes
    for name, value in network.state_dict().items():
        assert torch.equal(value, state[name]), name


# -------------------------------------------------------------------------------------------- MiB's initialisation


def linear_head(weight: np.ndarray, bias: np.ndarray) -> LinearHead:
    head = LinearHead(weight.shape[1], weight.shape[0]).double()
    head.weight.data, head.bias.data = torch.from_numpy(weight.copy()), torch.from_numpy(bias.copy())
    return head


def test_mib_initialisation_by_hand() -> None:
    case = HAND_CASES["mib_init"]
    head = linear_head(case["weight"], case["bias"])
    head.grow(case["n_new"])
    share_background(head, case["n_new"])
    weight, bias = case["expected"]
    np.testing.assert_allclose(head.weight.detach().numpy(), weight, atol=1e-7)
    np.testing.assert_allclose(head.bias.detach().numpy(), bias, atol=1e-7)


@pytest.mark.parametrize("new", [1, 2, 5])
def test_mib_initialisation_equals_the_reference(new: int) -> None:
    rng = np.random.default_rng(new)
    weight, bias = rng.normal(size=(4, 6)), rng.normal(size=4)
    head = linear_head(weight, bias)
    head.grow(new)
    share_background(head, new)
    for got, expected in zip((head.weight, head.bias), mib_init(weight, bias, new), strict=True):
        assert got.requires_grad
        np.testing.assert_allclose(got.detach().numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("new", [1, 5])
def test_mib_initialisation_keeps_the_backgrounds_probability_and_every_old_classs(new: int) -> None:
    network = build_network("small", 3).eval().double()
    x = images().double()
    before = softmax(network.head(network.features(x)).detach().numpy())
    network.grow(new)
    assert isinstance(network.head, LinearHead)
    share_background(network.head, new)
    after = softmax(network.head(network.features(x)).detach().numpy())
    mass = after[:, 0] + after[:, 4:].sum(1)
    np.testing.assert_allclose(mass, before[:, 0], rtol=1e-10)
    np.testing.assert_allclose(after[:, 1:4], before[:, 1:4], rtol=1e-10)
    for c in range(4, 4 + new):  # shared equally
        np.testing.assert_allclose(after[:, c], after[:, 0], rtol=1e-10)


def test_batch_statistics_normalise_by_the_batch_and_leave_no_trace() -> None:
    network = nn.Sequential(nn.BatchNorm2d(2), nn.BatchNorm2d(2))
    layer, evaluating = network[0], network[1].eval()
    before = copy.deepcopy(network.state_dict())
    x = torch.randn(3, 2, 4, 4) * 5 + 2
    with batch_statistics(network):
        normalised = layer(x)
        torch.testing.assert_close(evaluating(x), x / (1 + 1e-5) ** 0.5)  # goes on by its running statistics
    assert normalised.mean((0, 2, 3)).tolist() == pytest.approx([0, 0], abs=1e-6)
    assert normalised.var((0, 2, 3), unbiased=False).tolist() == pytest.approx([1, 1], abs=1e-4)
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    layer(x)
    assert not torch.equal(before["0.running_mean"], layer.running_mean)  # tracked as before the block


def test_pooled_batchnorm_takes_its_running_statistics_for_a_single_value_alone() -> None:
    layer = PooledBatchNorm(2, eps=5.0).train()
    layer.running_mean.copy_(torch.tensor([1.0, 2.0]))
    layer.running_var.copy_(torch.tensor([4.0, 11.0]))
    layer.weight.data, layer.bias.data = torch.tensor([3.0, 2.0]), torch.tensor([0.5, -1.0])
    single = layer(torch.tensor([5.0, 5.0]).view(1, 2, 1, 1)).flatten().tolist()
    assert single == pytest.approx([3 * 4 / 3 + 0.5, 2 * 3 / 4 - 1], rel=1e-6)
    assert layer.running_mean.tolist() == [1.0, 2.0]
    for pair in (torch.tensor([[1.0, 1.0], [3.0, 5.0]]).view(2, 2, 1, 1), torch.rand(1, 2, 1, 2)):
        assert layer(pair).mean((0, 2, 3)).tolist() == pytest.approx([0.5, -1.0], abs=1e-4)
    assert layer.running_mean.tolist() != [1.0, 2.0]


# ------------------------------------------------------------------------------------- DeepLab-v3 ResNet-101


def torchvision_name(name: str) -> str:
    """The name torchvision's deeplabv3_resnet101 gives a backbone parameter or buffer of ours."""
    for ours, theirs in (("trunk.", "backbone."), ("pyramid.", "classifier.")):
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    raise AssertionError(f"{name} belongs to neither part")


def test_deeplab_is_torchvisions_at_stride_16_and_trains_on_a_single_image(monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.models.segmentation import deeplabv3_resnet101

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("weights are not to be downloaded")

    monkeypatch.setattr("strategies.networks.sources.urlopen", refuse)
    network = build_network("deeplabv3-resnet101", 15)

    with torch.device("meta"):
        theirs = deeplabv3_resnet101(weights=None, weights_backbone=None, num_classes=16).state_dict()
    shapes = {name: v.shape for name, v in theirs.items() if not name.startswith("classifier.4.")}
    assert {torchvision_name(n): v.shape for n, v in network.backbone.state_dict().items()} == shapes
    assert network.head.weight.shape == theirs["classifier.4.weight"].shape[:2]
    assert network.head.bias.shape == theirs["classifier.4.bias"].shape
    rates = [
        m.dilation[0] for m in network.backbone.pyramid.modules() if isinstance(m, nn.Conv2d) and m.dilation[0] > 1
    ]
    assert rates == [6, 12, 18]  # DeepLab-v3's for stride 16; twice these are for stride 8

    seen: list[torch.Size] = []

    def look(module: nn.Module, inputs: tuple[Tensor, ...], features: Tensor) -> None:
        assert (features >= 0).all()  # what torchvision's classifier gets: behind the last ReLU
        seen.append(features.shape)

    network.backbone.register_forward_hook(look)
    network.train()
    logits = network(images(1, 64, 64))
    assert logits.shape == (1, 16, 64, 64)
    assert seen == [(1, 256, 4, 4)]
    torch.autograd.backward(F.cross_entropy(logits, torch.zeros(1, 64, 64, dtype=torch.long)))
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    assert all(b.isfinite().all() for b in network.buffers())
