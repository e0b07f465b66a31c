"""Which preset a request gets, and what is said of it."""

from __future__ import annotations

import importlib.resources
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest

from bench.cli.entry import main
from bench.plan.planning import asked
from bench.plan.request import Request
from bench.settings import usual
from bench.settings.merging import resolve_config
from bench.settings.plain_yaml import read_yaml
from bench.settings.usual import LINEAGES, PRESETS, told_of_preset, usual_preset

VOC = "voc-15-5-disjoint"


@pytest.fixture
def laptop(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the extra [laptop] seems to be installed, as the test says."""
    installed = request.param

    def version(name: str) -> str:
        if name == "timm" and not installed:
            raise PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr(usual, "version", version)


@pytest.mark.parametrize("laptop", [True], indirect=True)
@pytest.mark.usefixtures("laptop")
@pytest.mark.parametrize(
    ("dataset", "device", "preset"),
    [
        *((dataset, "cpu", "laptop") for dataset in ("voc", "ade", "folder")),
        *((dataset, "cuda", "paper") for dataset in ("voc", "ade", "folder")),
        *((dataset, device, "small") for dataset in ("shapes", "scenes") for device in ("cpu", "cuda")),
    ],
)
def test_photographs_without_a_gpu_are_a_laptops(dataset: str, device: str, preset: str) -> None:
    assert usual_preset(dataset, device) == preset
    assert bool(told_of_preset(dataset, device)) == (preset == "laptop")


@pytest.mark.parametrize("laptop", [False], indirect=True)
@pytest.mark.usefixtures("laptop")
def test_without_the_extra_the_papers_is_taken_and_the_way_to_the_other_is_said() -> None:
    assert usual_preset("voc", "cpu") == "paper"
    assert 'pip install "continual-seg-bench[laptop]"' in str(told_of_preset("voc", "cpu"))


@pytest.mark.parametrize("laptop", [True], indirect=True)
@pytest.mark.usefixtures("laptop")
@pytest.mark.parametrize(
    ("given", "network", "said"),
    [
        ({}, "timm", True),
        ({"preset": "small"}, "small", False),
        ({"assignments": ["network.name=small,network.weights=none"]}, "small", True),
        (
            {"launcher": "slurm", "assignments": ["slurm.cluster=local,slurm.gpus_per_node=1"]},
            "deeplabv3-resnet101",
            False,
        ),
    ],
)
def test_a_request_says_which_preset_it_took_by_itself(
    given: dict[str, Any], network: str, said: bool, data_root: Path, tmp_path: Path
) -> None:
    """A cluster's GPUs count where it makes the runs, whatever this machine has."""
    pytest.importorskip("timm", reason="the extra [timm] is not installed")
    request = Request(["er"], VOC, data_root, out=tmp_path, device="auto", **given)
    found = asked(request)
    assert found.config.network.name == network
    assert [note.partition(":")[0] for note in found.notes] == (["preset laptop"] if said else [])


def test_presets_set_the_same_things() -> None:
    """A network's own settings and what belongs to a kind of scenario apart."""

    def keys(preset: str) -> set[str]:
        content = read_yaml(importlib.resources.files("bench.settings") / "presets" / f"{preset}.yaml")
        pairs = {f"{section}.{key}" for section, values in content.items() for key in values}
        return {pair for pair in pairs if not pair.startswith(("network.", "scenarios."))}

    first, *others = (keys(preset) for preset in PRESETS if preset not in LINEAGES)
    assert all(other == first for other in others)


@pytest.mark.parametrize(
    ("preset", "told"), [("labtop", "'labtop'; did you mean laptop?"), ("", "''"), ("small,", "''")]
)
def test_an_unknown_preset_is_one_line(preset: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["run", "--strategies", "er", "--scenario", "shapes-15-1-disjoint", "--preset", preset])
    assert ended.value.code == 2
    assert f"unknown preset {told} (known: paper, small, laptop, mib, " in capsys.readouterr().err


def test_a_laptops_numbers_are_those_of_the_paper_but_for_the_network_the_images_and_the_training() -> None:
    laptop, paper = (resolve_config(VOC, preset) for preset in ("laptop", "paper"))
    assert laptop.strategies == paper.strategies and laptop.memory == paper.memory
    assert laptop.incremental.batch_size == paper.incremental.batch_size == 4
    assert laptop.data.size == laptop.data.crop == 160
