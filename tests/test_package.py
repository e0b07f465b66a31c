"""What is installed: no file of a package is left out, and it has one version."""

import re
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("bench", "benchmarks", "reports", "strategies")


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    tomllib = pytest.importorskip("tomllib")  # since Python 3.11
    return dict(tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8")))


@pytest.mark.parametrize("package", PACKAGES)
def test_every_file_beside_the_modules_is_package_data(package: str, project: dict[str, Any]) -> None:
    data = project["tool"]["setuptools"]["package-data"]
    files = [path for path in (ROOT / package).rglob("*.*") if path.is_file() and path.suffix not in (".py", ".pyc")]
    assert ROOT / package / "py.typed" in files
    for path in files:
        folder = next(parent for parent in path.parents if (parent / "__init__.py").is_file())
        patterns = [*data["*"], *data.get(".".join(folder.relative_to(ROOT).parts), ())]
        assert any(fnmatch(path.relative_to(folder).as_posix(), pattern) for pattern in patterns), path


def test_the_version_is_one_everywhere(project: dict[str, Any]) -> None:
    version = project["project"]["version"]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert next(name for name in re.findall(r"^## (\S+)", changes, re.M) if name != "Unreleased") == version
