"""Code and packages decide numbers: what other ones made is told, made again if asked for, and never gone on with."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from test_resume import SCENARIO, TINY, execute, plan

import bench.plan.deciding
import bench.plan.plugins
from bench.launch.execution import say_stale
from bench.launch.session import prepare
from bench.launch.status import print_states, run_states
from bench.plan.deciding import (
    BASE_TRAINING,
    PACKAGES,
    RUN,
    TELLING,
    deciding_digest,
    deciding_modules,
    imported_modules,
)
from bench.plan.plan import Plan
from bench.plan.plugins import plugins_of
from bench.plan.request import Request
from bench.plan.spec import made_by
from bench.plan.stale import SHOWN_REASONS, stale_text
from bench.train.checkpoint import CheckpointError
from bench.train.kept import base_checkpoint, base_model, run_checkpoints
from bench.train.work import made
from reports.spec import read_spec, write_spec
from strategies.learning.registry import STRATEGIES
from strategies.networks.registry import NETWORKS

ROOT = Path(__file__).resolve().parent.parent

Edit = Callable[[str], None]


@pytest.fixture
def edit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Edit]:
    """Adds a line to a file of a copy of the code, which is what is looked at from then on."""
    copy = tmp_path / "copy"
    for package in PACKAGES:
        shutil.copytree(ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))

    def add_line(file: str) -> None:
        with (copy / file).open("a") as source:
            source.write("\nedited = True\n")
        monkeypatch.setattr(bench.plan.deciding, "TOP", copy)
        forget()

    yield add_line
    monkeypatch.undo()
    forget()


def forget() -> None:
    """Have the digests computed anew."""
    for known in (deciding_digest, plugins_of):
        known.cache_clear()


# ------------------------------------------------------------------------------------------------ the code that decides


def test_the_base_training_is_decided_by_these() -> None:
    found = set(deciding_modules(BASE_TRAINING))
    data = ("augmentation", "division", "files", "imageset", "labels", "names", "scenarios", "streams")
    assert {f"benchmarks.{name}" for name in data} <= found
    assert {f"benchmarks.sets.{name}" for name in ("shapes", "voc")} <= found
    assert {f"strategies.learning.{name}" for name in ("losses", "protocol", "randomness")} <= found
    assert {f"strategies.networks.{name}" for name in ("backbone", "build", "heads", "network", "settings")} <= found
    assert {"bench.train.base", "bench.train.distributed", "bench.train.seeds"} <= found
    assert not {
        name for name in found if name.startswith(("reports", "bench.cli.entry", "strategies.learning.template"))
    }
    assert not found & {
        "strategies.er",
        "strategies.networks.deeplab",
        "strategies.networks.small",
        "strategies.learning.memory",
        "benchmarks.obtain.checking",
        "benchmarks.obtain.download",
        "bench.launch.slurm",
    }


def test_a_run_is_decided_by_more() -> None:
    more = set(deciding_modules(RUN)) - set(deciding_modules(BASE_TRAINING))
    assert {
        "bench.train.run",
        "strategies.learning.template",
        "strategies.learning.memory",
    } <= more
    assert not {name for name in more if name.startswith("bench.cli.entry")}


def test_what_only_tells_is_imported_on_the_way() -> None:
    """A name in `TELLING` that nothing imports would be out of date."""
    imported = {name for module in deciding_modules(RUN) for name in bench.plan.deciding._imports_of(module)}
    assert imported >= TELLING


def test_imports_are_found_wherever_they_stand() -> None:
    source = b"""
import a, b.c as d
from e.f import g
if TYPE_CHECKING:
    from h import i
else:
    import j
def late():
    try:
        import k
    except ImportError:
        from l import m
    match 1:
        case 1:
            import n
"""
    found = set(imported_modules(source))
    assert found == {"a", "b.c", "e.f", "e.f.g", "j", "k", "l", "l.m", "n"}


DECIDES = {
    "strategies/learning/losses.py": {"base", "run"},
    "strategies/networks/network.py": {"base", "run"},
    "benchmarks/augmentation.py": {"base", "run"},
    "benchmarks/sets/voc.py": {"base", "run"},
    "bench/train/seeds.py": {"base", "run"},
    "bench/train/base.py": {"base", "run"},
    "strategies/learning/template.py": {"run"},
    "strategies/learning/memory.py": {"run"},
    "bench/train/run.py": {"run"},
    "strategies/mir.py": {"mir"},
    "strategies/networks/small.py": {"small"},
    "strategies/networks/decoders.py": {"deeplabv3-resnet50", "timm"},
    "strategies/lwf_mc.py": {"lwf-mc", "icarl"},
    "bench/cli/entry.py": set(),
    "bench/settings/schema.py": set(),
    "bench/screen/log.py": set(),
    "bench/launch/slurm.py": set(),
    "bench/settings/presets/small.yaml": set(),
    "benchmarks/obtain/checking.py": set(),
}


def test_an_edit_changes_the_digests_of_what_it_decides(edit: Edit) -> None:
    def digests() -> dict[str, Any]:
        methods = {name: plugins_of(name, STRATEGIES) for name in ("er", "mir", "lwf-mc", "icarl")}
        networks = {name: plugins_of(name, NETWORKS) for name in ("small", "deeplabv3-resnet50", "timm")}
        return {"base": deciding_digest(BASE_TRAINING), "run": deciding_digest(RUN), **methods, **networks}

    found, before = {}, digests()
    for file in DECIDES:
        edit(file)
        after = digests()
        found[file] = {name for name in before if before[name] != after[name]}
        before = after
    assert found == DECIDES


# ------------------------------------------------------------------------------------------------ base models and runs


def planned(data_root: Path, out: Path, strategies: str = "er", **changes: Any) -> Plan:
    """A plan whose base models nobody trains."""
    common = {"scenario": SCENARIO, "data_root": data_root, "preset": "small", "assignments": TINY, "jobs": 1}
    return prepare(Request(**{**common, "strategies": strategies, "out": out, **changes}), Console(quiet=True))


@pytest.fixture(scope="module")
def made_once(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output folder with a finished run of er and one of finetune that died after its second step."""
    out = tmp_path_factory.mktemp("made")
    execute(plan(data_root, out, "er").runs[0])
    execute(plan(data_root, out, "finetune").runs[0], last=1)
    return out


@pytest.fixture
def finished(made_once: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(made_once, tmp_path / "out"))


def test_a_base_model_of_other_code_is_not_taken(finished: Path, data_root: Path, edit: Edit) -> None:
    assert not planned(data_root, finished, "er,finetune").bases
    edit("strategies/learning/losses.py")
    [base] = planned(data_root, finished, "er,finetune").bases.values()
    assert not made(base)


def test_a_base_model_of_other_packages_is_not_taken(
    finished: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("torch", "torchvision", "numpy", "pillow"):
        with monkeypatch.context() as patch:
            patch.setattr("bench.plan.spec._version", lambda name, other=package: "9" if name == other else "1")
            first = planned(data_root, finished, "finetune").bases
            patch.setattr("bench.plan.spec._version", lambda name: "1")
            assert first.keys() != planned(data_root, finished, "finetune").bases.keys()


def test_a_base_model_outlives_an_edit_of_a_report(finished: Path, data_root: Path, edit: Edit) -> None:
    edit("bench/cli/entry.py")
    made = planned(data_root, finished, "er,finetune")
    assert not made.bases and not made.stale


def test_finished_runs_of_other_code_stay_and_are_told(finished: Path, data_root: Path, edit: Edit) -> None:
    there = made_by("er")["numbers_code"][:12]
    edit("strategies/learning/losses.py")
    made = planned(data_root, finished, "er,finetune")
    assert made.stale == [[f"other code ({there})"]]
    assert [run.method for run in made.runs] == ["finetune"]
    console = Console(width=200)
    with console.capture() as said:
        say_stale(made, console)
        print_states(run_states(finished, lambda jobs: {}), console)
    line = f"1 of 1 finished runs were made by other code ({there}): `--overwrite stale` makes them again"
    assert said.get().splitlines().count(line) == 2


def test_overwrite_stale_makes_exactly_these_again(finished: Path, data_root: Path, edit: Edit) -> None:
    assert [run.method for run in planned(data_root, finished, "er,finetune", overwrite="stale").runs] == ["finetune"]
    there = plugins_of("er", STRATEGIES)[0]["code"][:12]
    edit("strategies/er.py")
    made = {run.method: run for run in planned(data_root, finished, "er,finetune", overwrite="stale").runs}
    assert (made["er"].anew, made["finetune"].anew) == (True, False)
    assert planned(data_root, finished, "er,finetune", overwrite="failed").stale == [
        [f"other code of the method ({there})"]
    ]


def test_other_packages_make_a_run_stale(finished: Path, data_root: Path) -> None:
    folder = planned(data_root, finished).folders[0]
    spec = read_spec(folder)
    for package, old in (("torch", "2.0"), ("python", "3.9"), ("continual-seg-bench", "0.0")):
        write_spec(folder, {**spec, "versions": {**spec["versions"], package: old}})
        expected = [["torch 2.0"]] if package == "torch" else []
        assert planned(data_root, finished).stale == expected


@pytest.mark.parametrize("change", [{"plugins": "x"}, {"versions": None}, {"plugins": [{}]}, {"plugins": [1]}])
def test_a_spec_that_does_not_say_is_of_older_code(change: dict[str, Any], finished: Path, data_root: Path) -> None:
    folder = planned(data_root, finished).folders[0]
    write_spec(folder, {**read_spec(folder), **change})
    assert planned(data_root, finished).stale == [["older code"]]


def test_many_reasons_are_counted() -> None:
    told = stale_text([[f"torch {i}"] for i in range(SHOWN_REASONS + 3)], 20)
    assert told.startswith("8 of 20 finished runs were made by torch 0, torch 1, torch 2, torch 3 or 4 others:")


def test_no_checkpoint_of_a_plug_in_s_other_code_is_gone_on_with(finished: Path, data_root: Path) -> None:
    [job] = planned(data_root, finished, "finetune").runs
    state = run_checkpoints(job).after(1)
    state.read()
    job.spec["plugins"] = [{**job.spec["plugins"][0], "code": "0" * 64}]
    with pytest.raises(CheckpointError, match=r"its plug-in is .* \(code [0-9a-f]{64}\), not .* \(code 0{64}\)$"):
        run_checkpoints(job).after(1).read()


def test_a_base_model_s_inputs_name_what_made_it(finished: Path, data_root: Path) -> None:
    base = read_spec(planned(data_root, finished).folders[0])["base"]
    assert base["inputs"]["code"] == deciding_digest(BASE_TRAINING)
    assert base["inputs"]["versions"].keys() == {"torch", "torchvision", "numpy", "pillow"}
    assert base_model(base["hash"]).read()["inputs"]["code"] == base["inputs"]["code"]
    assert not base_checkpoint(base["hash"]).path.exists()
