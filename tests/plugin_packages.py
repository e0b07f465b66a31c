"""Packages that declare strategies or networks, as they lie on a disk: for the tests."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench.plan.plugins import plugins_of
from strategies.plugins.registry import forget_metadata

METHOD = """
    from typing import ClassVar
    from pydantic.dataclasses import dataclass
    from strategies.er import Er
    from strategies.networks.settings import STRICT

    @dataclass(frozen=True, config=STRICT)
    class Parameters:
        every: int = 1

    class Method(Er):
        Parameters = Parameters
"""
Install = Callable[..., Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Puts the metadata of a package that declares plug-ins onto the path, and its module where it is said to be."""

    def put(
        package: str,
        points: dict[str, str],
        code: str = METHOD,
        module: str = "",
        site: str = "site",
        group: str = "bench.strategies",
    ) -> Path:
        place = tmp_path / site
        lines = [f"{name} = {value}" for name, value in points.items()]
        put_metadata(place, package, "\n".join([f"[{group}]", *lines, ""]))
        file = place / (module or f"{package.replace('-', '_')}.py")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(code))
        monkeypatch.syspath_prepend(str(place))
        forget(tmp_path)
        return file

    yield put
    monkeypatch.undo()
    forget(tmp_path)


def put_metadata(site: Path, package: str, entry_points: str) -> None:
    """Put a package's name and its entry points where it is installed."""
    info = site / f"{package.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(entry_points)


def forget(installed: Path) -> None:
    """Have it all looked up anew, as another process would."""
    forget_metadata()
    plugins_of.cache_clear()
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", "")).startswith(str(installed)):
            del sys.modules[name]
