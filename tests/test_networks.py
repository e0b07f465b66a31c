"""Networks are plug-ins: found by their metadata, checked, trained by all methods, and told what is wrong with them."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
from plugin_packages import Install

from bench.cli.entry import main
from bench.plan.network_check import Measured, look_at
from bench.plan.plugins import plugins_of
from bench.settings.errors import RequestError
from bench.settings.merging import resolve_config
from strategies.learning.registry import method_class
from strategies.networks.build import build_network, default_settings
from strategies.networks.registry import NETWORKS, network_class
from strategies.networks.settings import NetworkSettings

SCENARIO = "voc-15-5-disjoint"

TINY = """
    from typing import Annotated
    from pydantic import Field
    from pydantic.dataclasses import dataclass
    from torch import nn
    from strategies.api import STRICT, Backbone, NetworkSettings, Normalisation, Stage

    @dataclass(frozen=True, config=STRICT)
    class Settings(NetworkSettings):
        width: Annotated[int, Field(ge=1, le=64)] = 6

    class Tiny(Backbone):
        Settings = Settings
        stride, usual_side = 4, 32

        def __init__(self, settings):
            super().__init__()
            self.channels = settings.width
            self.first = nn.Conv2d(3, settings.width, 4, 4)
            self.norm = nn.BatchNorm2d(settings.width)
            self.stages = (Stage("first", settings.width, 4),)

        @classmethod
        def normalisation(cls, settings):
            return Normalisation((0.5, 0.25, 0.75), (0.5, 0.25, 0.125))

        def forward(self, images):
            return self.norm(self.first(images)).relu()
"""


@pytest.fixture
def tiny(install: Install) -> Path:
    return install("acme", {"tiny": "acme:Tiny"}, TINY, group="bench.networks")


# ------------------------------------------------------------------------------------------------ another package's


def test_a_network_of_another_package_trains_with_all_ten_methods(
    tiny: Path, data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = "network.name=tiny,network.width=5,data.size=16,base.epochs=1,base.batch_size=64,memory.size=8"
    online = [name for name in _built_in_methods() if {"online", "joint"} & set(method_class(name).protocols)]
    names = [name.rpartition(":")[2] for name in online]
    assert len(names) == 10
    command = ["run", "--strategies", ",".join(names), "--scenario", "voc-19-1-disjoint", "--data-root", str(data_root)]
    command += ["--preset", "small", "--set", settings, "--jobs", "1", "--out", str(tmp_path)]
    with pytest.raises(SystemExit) as ended:
        main(command)
    assert not ended.value.code, capsys.readouterr().out[-2000:]
    runs = {path.parent.parent.name: list(csv.DictReader(path.open())) for path in tmp_path.rglob("steps.csv")}
    assert runs.keys() == set(names)
    assert all(rows[-1]["step"] == "1" and 0 <= float(rows[-1]["miou"]) <= 100 for rows in runs.values())


def _built_in_methods() -> list[str]:
    from strategies.learning.registry import STRATEGIES

    return STRATEGIES.built_in_names()


def test_images_come_as_the_network_takes_them(tiny: Path, data_root: Path) -> None:
    from bench.train.networks import augmentation, normalisation
    from benchmarks.streams import load_benchmark

    config = resolve_config(SCENARIO, "small", assignments=["network.name=tiny"])
    given = load_benchmark(SCENARIO, data_root, normalisation=normalisation(config))
    plain = load_benchmark(SCENARIO, data_root)
    mean, deviation = torch.tensor([0.5, 0.25, 0.75]), torch.tensor([0.5, 0.25, 0.125])
    for seen, known in ((given.test_stream[0], plain.test_stream[0]), (given.train_stream[1], plain.train_stream[1])):
        wanted = (known.data[0][0] - mean[:, None, None]) / deviation[:, None, None]
        torch.testing.assert_close(seen.data[0][0], wanted, rtol=1e-5, atol=1e-6)
    rows = given.train_stream[1].data, plain.train_stream[1].data
    batch, plain_batch = (next(iter(each.batches(1)))[0] for each in rows)
    torch.testing.assert_close(batch[0], (plain_batch[0] - mean[:, None, None]) / deviation[:, None, None])
    assert augmentation(config).outside == (0.5, 0.25, 0.75)


def test_its_settings_are_checked_and_its_code_is_recorded(tiny: Path) -> None:
    config = resolve_config(SCENARIO, "small", assignments=["network.name=tiny,network.width=7"])
    assert build_network(config.network, 3).backbone.channels == 7
    with pytest.raises(RequestError, match=r"network\.width=65: input should be less than or equal to 64"):
        resolve_config(SCENARIO, "small", assignments=["network.name=tiny,network.width=65"])
    with pytest.raises(RequestError, match=r"unknown setting network\.widht; did you mean width\?"):
        resolve_config(SCENARIO, "small", assignments=["network.name=tiny,network.widht=5"])
    before = plugins_of("tiny", NETWORKS)
    assert [plugin["distribution"] for plugin in before] == ["acme"]
    tiny.write_text(tiny.read_text() + "\nedited = True\n")
    plugins_of.cache_clear()
    assert plugins_of("tiny", NETWORKS)[0]["code"] != before[0]["code"]


def test_settings_of_another_network_do_not_outlive_its_name(tiny: Path, tmp_path: Path) -> None:
    """Those of the name's own assignments do, in whatever order they stand; the weights are every network's."""
    file = tmp_path / "mine.yaml"
    file.write_text("network: {name: tiny, width: 9}")
    assert resolve_config(SCENARIO, "small", file).network.width == 9
    back = resolve_config(SCENARIO, "small", file, ["network.name=small"]).network
    assert back == NetworkSettings("small", "none")
    late = resolve_config(SCENARIO, "small", None, ["network.width=9", "network.name=tiny"]).network
    assert late.width == 9
    with pytest.raises(RequestError, match=r"network\.weights=IMAGENET1K_V1: for network\.name=tiny there are a file"):
        resolve_config(SCENARIO, "paper", file)


# ------------------------------------------------------------------------------------------------ listed and checked


def test_the_listing_names_the_installed_ones_and_the_check_measures_them(
    tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["networks"])
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert not ended.value.code
    assert {"small", "deeplabv3-resnet50", "deeplabv3-resnet101", "timm", "tiny"} <= lines.keys()
    assert lines["tiny"].split()[1:] == ["acme:Tiny", "acme", "1.0"]
    found = look_at("tiny")
    assert isinstance(found, Measured)
    # 6 filters of 3 x 4 x 4 weights, each at 8 x 8 places; a bias each; BatchNorm's two
    assert (found.parameters, found.macs) == (6 * 48 + 6 + 12, 6 * 48 * 64)
    assert (found.channels, found.stride, found.side) == (6, 4, 32) and found.seconds > 0


WIDTH = "width: Annotated[int, Field(ge=1, le=64)] = 6"
BROKEN = {
    "class Tiny: pass": "is no class derived from strategies.api.Backbone",
    TINY.replace(WIDTH, "width: int"): "has a setting without a default: width",
    TINY.replace('"first", settings.width', '"first", 5'): "says that first is (1, 5, 8, 8), it is (1, 6, 8, 8)",
    TINY.replace("stride, usual_side = 4", "stride, usual_side = 8"): "says that its features is (1, 6, 4, 4), it is",
    TINY.replace("self.norm(self.first", "self.nrm(self.first"): "computes no features: AttributeError",
    TINY.replace("self.channels = settings.width", "raise OSError('no')"): "cannot be built: OSError: no",
    TINY.replace("from typing", "import os; os._exit(3)\n    from typing"): "cannot be built: ",
}


@pytest.mark.parametrize("code", list(BROKEN))
def test_a_broken_network_is_told_in_one_line(code: str, install: Install) -> None:
    install("acme", {"tiny": "acme:Tiny"}, code, group="bench.networks")
    told = str(look_at("tiny"))
    assert told.startswith("BROKEN: ") and BROKEN[code] in told and "\n" not in told


def test_a_name_of_two_packages_is_refused_with_both_named(install: Install) -> None:
    install("acme", {"small": "acme:Tiny"}, TINY, group="bench.networks")
    with pytest.raises(RequestError) as refused:
        resolve_config(SCENARIO, "small")
    told = "is declared by acme and by continual-seg-bench; ask for acme:small or continual-seg-bench:small"
    assert str(refused.value) == f"network.name=small: network 'small' {told}"
    chosen = resolve_config(SCENARIO, "small", assignments=["network.name=continual-seg-bench:small"])
    assert network_class(chosen.network.name).__module__ == "strategies.networks.small"
    with pytest.raises(RequestError, match=r"network\.name=smal: unknown network 'smal'"):
        resolve_config(SCENARIO, "small", assignments=["network.name=smal"])


# ------------------------------------------------------------------------------------------------ built in


@pytest.mark.parametrize("name", ["small", "deeplabv3-resnet50", "deeplabv3-resnet101"])
def test_a_built_in_network_trains_on_one_image_whose_image_level_branch_is_1_x_1(name: str) -> None:
    network = build_network(name, 3).train()
    torch.autograd.backward(network(torch.randn(1, 3, 64, 64)).square().mean())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    assert all(buffer.isfinite().all() for buffer in network.buffers())


@pytest.mark.parametrize("name", ["small", "deeplabv3-resnet50"])
def test_its_stages_and_features_are_what_it_says(name: str) -> None:
    backbone = network_class(name)(default_settings(name)).eval()
    backbone.usual_side = 64
    from bench.plan.network_check import _measured

    assert isinstance(_measured(backbone, ()), Measured)


def test_state_dicts_of_the_built_in_networks_have_the_keys_of_runs_that_are_there() -> None:
    keys = list(build_network("small", 2, "cosine").state_dict())
    assert keys[0] == "backbone.stem.0.0.weight" and keys[-1] == "head.weight"
    with torch.device("meta"):
        deep = list(build_network("deeplabv3-resnet101", 2).state_dict())
    assert deep[0] == "backbone.trunk.conv1.weight" and "backbone.pyramid.0.convs.4.2.running_var" in deep
