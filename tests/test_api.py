"""What plug-ins import from: one place, and the modules of before."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest
from toy import make, train

import bench.plan.protocols
import bench.train.run
import strategies.api
from strategies.learning.method import StreamReplay
from strategies.learning.protocol import PROTOCOLS


def test_every_name_of_the_public_place_is_there_once() -> None:
    assert sorted(set(strategies.api.__all__)) == sorted(strategies.api.__all__)
    assert all(hasattr(strategies.api, name) for name in strategies.api.__all__)


@pytest.mark.parametrize("name", ["losses", "memory", "method", "network", "protocol", "template"])
def test_the_modules_of_before_are_the_public_place(name: str) -> None:
    assert importlib.import_module(f"strategies.{name}") is strategies.api
    assert strategies.api.StreamReplay is StreamReplay


def test_another_module_that_is_not_there_is_told_as_ever() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'strategies\.nothing'"):
        importlib.import_module("strategies.nothing")


def test_every_protocol_is_planned_and_trained() -> None:
    assert set(PROTOCOLS) == set(bench.plan.protocols.PROTOCOLS) == set(bench.train.run.TRAININGS)


def test_the_example_works_with_the_public_place_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = (Path(__file__).parent / "example_plugin" / "latest_replay.py").read_text()
    here = re.sub(r"from strategies\.\w+ import", "from strategies.api import", source)
    assert here.count("from strategies.api import") == source.count("from strategies.") == 3
    (tmp_path / "public_replay.py").write_text(here)
    monkeypatch.syspath_prepend(str(tmp_path))
    method = importlib.import_module("public_replay").Latest
    assert issubclass(method, StreamReplay)
    assert train(make(method)).method.kept() > 0
