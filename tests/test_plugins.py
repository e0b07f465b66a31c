"""A strategy of another package is listed, run and tabulated without a change here, beside one that is broken."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from plugin_packages import forget
from test_run import QUICK, SCENARIO
from voc_root import make_voc_root

from bench.cli.entry import main

EXAMPLE = Path(__file__).parent / "example_plugin"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the example installed, and a second package that ends the process at import and leaves a file."""
    folder = tmp_path_factory.mktemp("site")
    source = tmp_path_factory.mktemp("source") / "example"
    source.mkdir()
    for file in EXAMPLE.glob("*.*"):
        (source / file.name).write_bytes(file.read_bytes())
    install = ["install", "-q", "--no-index", "--no-deps", "--no-build-isolation", "--target", str(folder), str(source)]
    subprocess.run([sys.executable, "-m", "pip", *install], check=True, timeout=120)
    broken = folder / "broken-1.0.dist-info"
    broken.mkdir()
    (broken / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (broken / "entry_points.txt").write_text("[bench.strategies]\nhopeless = hopeless_module:Hopeless\n")
    imported = f"open({str(folder / 'imported')!r}, 'w').close()\n"
    (folder / "hopeless_module.py").write_text(f"import sys\n{imported}print('no licence')\nsys.exit(3)\n")
    return folder


def bench(site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(site)}
    command = [sys.executable, "-m", "bench", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)


def test_strategies_lists_it_from_its_metadata(site: Path) -> None:
    listed = bench(site, "strategies")
    assert listed.returncode == 0
    line = next(line for line in listed.stdout.splitlines() if line.startswith("latest"))
    assert "latest_replay:Latest" in line
    assert "bench-example-plugin 1.0" in line
    assert "hopeless" in listed.stdout


def test_neither_listing_nor_what_begins_a_run_imports_what_trains(site: Path) -> None:
    script = "import sys, bench.launch.session\nfrom bench.cli.entry import main\n"
    script += "try: main(['strategies'])\nexcept SystemExit: pass\n"
    script += "sys.exit(any(name in sys.modules for name in ('torch', 'avalanche', 'strategies.er', 'latest_replay')))"
    environment = {**os.environ, "PYTHONPATH": str(site)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, timeout=60)
    assert done.returncode == 0


@pytest.fixture(scope="module")
def runs(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output folder with a run of the example and one of er, made side by side."""
    (site / "imported").unlink(missing_ok=True)
    folder = tmp_path_factory.mktemp("made")
    root = make_voc_root(folder / "voc")
    settings = [
        argument
        for setting in (*QUICK, "base.epochs=1", "strategies.latest.every=2")
        for argument in ("--set", setting)
    ]
    common = ["--scenario", SCENARIO, "--data-root", str(root), "--preset", "small", "--jobs", "1", *settings]
    done = bench(site, "run", "--strategies", "latest,er", *common, "--out", str(folder / "runs"))
    assert done.returncode == 0, done.stderr
    return folder / "runs"


def test_it_runs_and_has_its_row(site: Path, runs: Path, tmp_path: Path) -> None:
    assert len(list((runs / SCENARIO / "latest").rglob("steps.csv"))) == 1
    bench(site, "tables", "--runs", str(runs), "--out", str(tmp_path / "tables"))
    table = (tmp_path / "tables" / f"{SCENARIO}.csv").read_text()
    assert [line.split(",")[1] for line in table.splitlines()[1:]] == ["er", "latest"]


def test_no_process_imports_a_strategy_that_was_not_asked_for(site: Path, runs: Path) -> None:
    assert not (site / "imported").exists()


def test_its_runs_name_its_code_and_are_told_when_that_was_edited(site: Path, runs: Path, tmp_path: Path) -> None:
    spec = yaml.safe_load(next((runs / SCENARIO / "latest").rglob("spec.yaml")).read_text())
    content = (site / "latest_replay.py").read_bytes()
    code = hashlib.sha256(f"latest_replay.py {len(content)}\n".encode() + content).hexdigest()
    assert spec["plugins"] == [{"distribution": "bench-example-plugin", "version": "1.0", "code": code}]
    edited = Path(shutil.copytree(site, tmp_path / "site"))
    (edited / "latest_replay.py").write_bytes(content + b"# edited\n")
    told = f"1 of 2 finished runs were made by bench-example-plugin 1.0 ({code[:12]}): `--overwrite stale` makes"
    assert told not in bench(site, "status", "--runs", str(runs)).stdout
    assert told in bench(edited, "status", "--runs", str(runs)).stdout


def test_its_parameters_are_checked(
    site: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(site)
    forget(site)
    with pytest.raises(SystemExit, match="2"):
        main(["run", "--strategies", "latest(every=0)", "--scenario", "shapes-15-1-disjoint"])
    [line] = capsys.readouterr().err.splitlines()
    monkeypatch.undo()
    forget(site)
    assert "strategies.latest.every=0" in line
