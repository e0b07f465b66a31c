"""`bench run` end to end, on a small VOC root with painted images: what it writes and what it repeats."""

import csv
import io
import os
import subprocess
import sys
from pathlib import Path
from types import FrameType
from typing import Any, ClassVar

import numpy as np
import pytest
import yaml
from jobs import IdleJob, Listener
from rich.console import Console
from voc_root import make_voc_root

import bench
from bench.launch import pool
from bench.launch.execution import Result
from bench.launch.session import run
from bench.plan.job import Job
from bench.plan.plan import Plan
from bench.plan.planning import Asked
from bench.plan.request import Request
from bench.screen.events import Event, Report
from bench.screen.view import LineView
from bench.train.kept import base_model
from bench.train.work import Work
from reports.metrics import mean_iou
from reports.records import find_runs, read_run
from reports.tables import frame

QUICK = ("data.size=32", "base.epochs=9", "base.batch_size=8", "base.warmup_steps=10", "memory.size=8")
SCENARIO = "voc-15-1-overlapped"
PACKAGE = f"{Path(bench.__file__).parent}{os.sep}"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_voc_root(tmp_path_factory.mktemp("data"))


def quick_run(root: Path, out: Path, console: Console | None = None, **changes: Any) -> Result:
    request: dict[str, Any] = {
        "strategies": "ours,er,mib,finetune",
        "scenario": SCENARIO,
        "data_root": root,
        "preset": "small",
        "assignments": QUICK,
        "out": out,
        "jobs": 1,
        **changes,
    }
    return run(Request(**request), console or Console(quiet=True))


def results(out: Path) -> dict[str, bytes]:
    """Everything under `out` that is a result: no times, no cost."""
    files = [*out.rglob("steps.csv"), *out.rglob("confusion/*.csv"), *out.rglob("spec.yaml"), *out.rglob("done")]
    return {str(f.relative_to(out)): f.read_bytes() for f in files}


@pytest.fixture(scope="module")
def first(root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path]:
    out = tmp_path_factory.mktemp("runs")
    return quick_run(root, out), out


def test_a_run_directory_holds_what_traces_its_numbers(first: tuple[Result, Path]) -> None:
    result, out = first
    assert not result.failures
    assert len(list(out.rglob("steps.csv"))) == 4
    for one in result.runs:
        assert one.path.parts[-2] == one.spec["strategy"]
        spec = yaml.safe_load((one.path / "spec.yaml").read_text())
        assert spec["seed"] == 0
        assert spec["versions"]["torch"]
        assert len(spec["split_hash"]) == len(spec["data"]["fingerprint"]) == len(spec["base"]["hash"]) == 64
        assert spec["conventions"]["future_classes"] == "background"
        assert spec["config"]["memory"]["size"] == 8
        assert [s["step"] for s in spec["steps"]] == list(range(6))


def test_the_numbers_are_no_trivial_ones(first: tuple[Result, Path]) -> None:
    result, _ = first
    assert all(one.steps[0]["miou"] > 25 for one in result.runs)
    assert len({one.steps[5]["miou"] for one in result.runs}) == 4


def test_steps_follow_from_the_confusion_matrices(first: tuple[Result, Path]) -> None:
    result, _ = first
    for one in result.runs:
        means = [mean_iou(matrix) for matrix in one.confusions]
        with (one.path / "steps.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert [float(row["miou"]) for row in rows] == pytest.approx(means, abs=1e-4)
        running = [np.mean(means[: t + 1]) for t in range(6)]
        assert [float(row["avg"]) for row in rows] == pytest.approx(running, abs=1e-4)
        increments = [np.mean(means[1 : t + 1]) for t in range(1, 6)]
        assert rows[0]["imiou"] == ""
        assert [float(row["imiou"]) for row in rows[1:]] == pytest.approx(increments, abs=1e-4)


def test_every_incoming_batch_gets_one_update(first: tuple[Result, Path]) -> None:
    result, _ = first
    for one in result.runs:
        for step, cost in zip(one.spec["steps"], one.costs, strict=True):
            batches = -(-step["train_images"] // 4) if step["step"] else 0
            assert cost["updates"] == cost["incoming_batches"] == cost["backward_passes"] == batches
            passes = 2 if one.spec["strategy"] == "mib" else 1
            assert cost["forward_passes"] == passes * batches


def test_memory_never_holds_more_than_its_size(first: tuple[Result, Path]) -> None:
    result, _ = first
    kept = {one.spec["strategy"]: [cost["memory_images"] for cost in one.costs] for one in result.runs}
    assert kept["finetune"] == [0] * 6
    assert kept["er"] == kept["mib"] == kept["ours"] == [8] * 6


def test_numbers_do_not_depend_on_jobs(first: tuple[Result, Path], root: Path, tmp_path: Path) -> None:
    assert not quick_run(root, tmp_path / "out", strategies="ours,er", jobs=2).failures
    assert_the_same_two(tmp_path / "out", first[1])


def assert_the_same_two(made: Path, alone: Path) -> None:
    """Assert that two runs have the files that they have in a folder of more."""
    files = results(made)
    assert files == {name: content for name, content in results(alone).items() if name in files}
    assert len({name.split("/")[1] for name in files}) == 2


@pytest.mark.long
def test_jobs_can_be_asked_for_in_a_script(first: tuple[Result, Path], root: Path, tmp_path: Path) -> None:
    """Without `if __name__ == "__main__":`, for no worker imports it."""
    script = f"""
import sys
from dataclasses import dataclass
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_run import quick_run
result = quick_run(Path({str(root)!r}), Path({str(tmp_path / "out")!r}), strategies="ours,er", jobs=2)
sys.exit(len(result.failures))
"""
    (tmp_path / "script.py").write_text(script)
    environment = {**os.environ, "PYTHONPATH": str(Path(bench.__file__).parents[1])}
    subprocess.run([sys.executable, str(tmp_path / "script.py")], check=True, timeout=300, env=environment)
    assert_the_same_two(tmp_path / "out", first[1])


@pytest.mark.long
def test_a_base_model_trained_anew_gives_the_same_numbers(
    first: tuple[Result, Path], root: Path, tmp_path: Path
) -> None:
    result, out = first
    er = next(one for one in result.runs if one.spec["strategy"] == "er")
    base_model(er.spec["base"]["hash"]).remove()
    quick_run(root, tmp_path, strategies="er")
    again = results(tmp_path)
    assert again == {name: content for name, content in results(out).items() if name in again}
    assert again


def test_two_seeds_differ(root: Path, first: tuple[Result, Path], tmp_path: Path) -> None:
    result = quick_run(root, tmp_path, strategies="er", seeds=[1])
    [zero] = [one for one in first[0].runs if one.spec["strategy"] == "er"]
    assert [s["miou"] for s in zero.steps] != [s["miou"] for s in result.runs[0].steps]
    assert len(result.frame) == 6
    assert set(result.frame.seed) == {1}


def test_finished_runs_are_not_made_again(first: tuple[Result, Path], root: Path) -> None:
    """A terminal shows no table of the nothing that is to be done."""
    result, out = first
    stamps = {f: f.stat().st_mtime_ns for one in result.runs for f in one.path.rglob("*")}
    screen = io.StringIO()
    again = quick_run(root, out, Console(file=screen, force_terminal=True, width=100))
    assert "4 of 4 runs are finished already" in screen.getvalue() and "0 of 0" not in screen.getvalue()
    assert len(again.runs) == 4
    assert stamps == {f: f.stat().st_mtime_ns for one in again.runs for f in one.path.rglob("*")}


def test_overwrite_makes_them_again_with_the_same_result(
    first: tuple[Result, Path], root: Path, tmp_path: Path
) -> None:
    quick_run(root, tmp_path, strategies="er")
    before = results(tmp_path)
    stamp = next(tmp_path.rglob("done")).stat().st_mtime_ns
    quick_run(root, tmp_path, strategies="er", overwrite=True)
    assert results(tmp_path) == before
    assert next(tmp_path.rglob("done")).stat().st_mtime_ns != stamp


def test_an_unfinished_run_is_made_from_its_start(first: tuple[Result, Path], root: Path, tmp_path: Path) -> None:
    quick_run(root, tmp_path, strategies="er")
    whole = results(tmp_path)
    folder = next(tmp_path.rglob("done")).parent
    for file in [folder / "done", *folder.glob("confusion/step-[345].csv")]:
        file.unlink()
    result = quick_run(root, tmp_path, strategies="er")
    assert not result.failures
    assert results(tmp_path) == whole


def test_15_5_and_15_1_share_their_base_model(first: tuple[Result, Path], root: Path, tmp_path: Path) -> None:
    result, _ = first
    other = quick_run(root, tmp_path, scenario="voc-15-5-overlapped", strategies="er")
    bases = {one.spec["strategy"]: one.spec["base"]["hash"] for one in result.runs}
    assert other.runs[0].spec["base"]["hash"] == bases["er"] == bases["mib"] == bases["finetune"] != bases["ours"]
    step_0 = [one.steps[0]["miou"] for one in (*other.runs, *result.runs) if one.spec["strategy"] != "ours"]
    assert len(set(step_0)) == 1


def test_what_determines_the_numbers_changes_the_directory(root: Path, first: tuple[Result, Path]) -> None:
    _, out = first
    other = quick_run(root, out, strategies="er", assignments=[*QUICK, "memory.size=4"])
    assert len(list((out / SCENARIO / "er").iterdir())) == 2
    labels = set(frame(find_runs(out)).query("strategy == 'er'").variant)
    assert labels == {"memory.size=8", "memory.size=4"}
    assert other.runs[0].spec["config"]["memory"]["size"] == 4


def test_variants_of_one_strategy_have_their_own_rows(root: Path, tmp_path: Path) -> None:
    result = quick_run(root, tmp_path, strategies="ours(head=linear),ours(sampling=uniform,head=linear)")
    assert not result.failures
    assert {one.spec["strategy"] for one in result.runs} == {"ours(head=linear)", "ours(head=linear,sampling=uniform)"}


def test_a_failed_run_stops_nothing_else(
    first: tuple[Result, Path], root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from strategies.mib import Mib

    def broken(self: Mib, strategy: object) -> None:
        raise RuntimeError("planted")

    monkeypatch.setattr(Mib, "loss", broken)
    result = quick_run(root, tmp_path, strategies="mib,er")
    assert list(result.failures) == ["mib seed 0"]
    assert "planted" in result.failures["mib seed 0"]
    assert [one.spec["strategy"] for one in result.runs] == ["er"]
    assert "planted" in next(tmp_path.rglob("error.txt")).read_text()
    assert not list((tmp_path / SCENARIO / "mib").rglob("done"))


def test_a_second_update_from_a_batch_fails_the_run(
    first: tuple[Result, Path], root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from strategies.er import Er
    from strategies.learning.template import OnlineTemplate

    def twice(self: Er, strategy: OnlineTemplate, *args: object, **kwargs: object) -> None:
        strategy.optimizer_step()

    monkeypatch.setattr(Er, "after_update", twice)
    result = quick_run(root, tmp_path, strategies="er")
    assert "online protocol allows one each" in result.failures["er seed 0"]


def test_the_valid_stream_can_be_evaluated(root: Path, tmp_path: Path) -> None:
    settings = [*QUICK, "base.epochs=1", "evaluation.stream=valid", "evaluation.valid_fraction=0.25"]
    result = quick_run(root, tmp_path, strategies="finetune", assignments=settings)
    assert result.runs[0].spec["conventions"]["evaluate_on"] == "valid"
    pixels = [int(matrix.sum()) for matrix in result.runs[0].confusions]
    assert 0 < pixels[0] <= 30 * 32 * 32


def test_the_python_api_returns_a_tidy_frame(root: Path, tmp_path: Path) -> None:
    settings = {"data.size": 32, "base.epochs": 1, "base.warmup_steps": 2, "base.batch_size": 8}
    result = bench.run(
        ["er"], SCENARIO, data_root=root, preset="small", memory=8, settings=settings, out=tmp_path, device="cpu"
    )
    assert list(result.frame.step) == list(range(6))
    assert result.frame.miou.between(0, 100).all()
    assert read_run(Path(result.frame.run.iloc[0])).spec["config"]["memory"]["size"] == 8


class _Job(IdleJob):
    """Takes down that it was executed; fails where it is called so."""

    log: ClassVar[list[str]] = []

    def execute(self, report: object) -> None:
        self.log.append(self.key)
        if self.key.startswith("broken"):
            raise RuntimeError(f"{self.key} broke")


def test_what_needs_a_failed_base_fails_with_it(tmp_path: Path) -> None:
    jobs = [_Job(key, tmp_path) for key in ("broken base", "a", "b")]
    listener = Listener()
    ended = pool.run_jobs(jobs, {"a": "broken base"}, 1, listener)
    assert _Job.log == listener.started == ["broken base", "b"]
    assert listener.ended == {"broken base": True, "a": True, "b": False}
    line = "broken base, which it needs, failed: RuntimeError: broken base broke"
    assert ended.failures["a"] == line == (tmp_path / "a.error").read_text()
    assert "broken base broke" in ended.failures["broken base"]


def test_a_live_view_shows_each_run_and_the_time_left() -> None:
    from bench.screen.view import LiveView

    console = Console(force_terminal=True, width=120, record=True)
    view = LiveView(console, {"er seed 0": 10, "mib seed 0": 10})
    view.start("er seed 0")
    view.event(Event("er seed 0", "evaluated", 5, 10, step=1, miou=61.25, finished_step=True))
    view.event(Event("er seed 0", "training", 6, 10, step=2, batch=3, batches=7, loss=0.5))
    console.print(view.table())
    text = console.export_text()
    row = next(line for line in text.splitlines() if "er seed 0" in line)
    for shown in ("step 2 training", "3/7", "0.500", "61.2"):
        assert shown in row
    assert "waiting" in next(line for line in text.splitlines() if "mib seed 0" in line)


class Failing(IdleJob):
    """A job whose code fails."""

    def execute(self, report: Report) -> None:
        raise RuntimeError(f"{self.key} fails")


@pytest.mark.parametrize("workers", [1, 2])
def test_jobs_that_need_a_failed_one_fail_and_nothing_waits_forever(workers: int, tmp_path: Path) -> None:
    """The last jobs left may all be such."""
    view = LineView(Console(quiet=True), dict.fromkeys("abcd", 1.0))
    failures = pool.run_jobs([Failing(key, tmp_path) for key in "abcd"], {"c": "a", "d": "a"}, workers, view).failures
    assert sorted(failures) == list("abcd")
    assert failures["d"] == failures["c"] == "a, which it needs, failed: RuntimeError: a fails"
    assert failures["b"].endswith("RuntimeError: b fails\n")


def test_images_decoded_by_workers_give_the_run_that_images_in_memory_give(tiny_voc: Path, tmp_path: Path) -> None:
    """Side by side in processes of their own, which have workers of their own."""
    settings = {"data.size": "null", "data.crop": 32, "data.scale": "[0.5,1.5]", "evaluation.batch_size": 1}
    settings |= {"base.epochs": 1, "memory.size": 20, "evaluation.short_side": 32}
    found = []
    for ram, jobs, workers in ((4.0, 1, 0), (0.0, 2, 2)):
        assignments = [f"{k}={v}" for k, v in {**settings, "data.ram_gb": ram, "data.workers": workers}.items()]
        request = Request(
            strategies="er",
            scenario="voc-19-1-disjoint",
            data_root=tiny_voc,
            preset="small",
            assignments=assignments,
            out=tmp_path / str(jobs),
            jobs=jobs,
        )
        result = run(request, Console(quiet=True))
        assert not result.failures
        [made] = result.runs
        found.append({path.name: path.read_text() for path in made.path.rglob("*.csv") if path.name != "costs.csv"})
        base_model(made.spec["base"]["hash"]).remove()
    assert found[0] == found[1]


class Telling(IdleJob):
    """A job that fails with what an environment variable holds."""

    def execute(self, report: Report) -> None:
        raise RuntimeError(os.environ.get("BENCH_CACHE"))


def test_workers_see_the_environment_of_their_own_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The process that they are forked from was started with another one."""
    view = LineView(Console(quiet=True), {"a": 1.0})
    for cache in ("first", "second"):
        monkeypatch.setenv("BENCH_CACHE", cache)
        assert f"RuntimeError: {cache}" in pool.run_jobs([Telling("a", tmp_path)], {}, 2, view).failures["a"]


def test_the_way_of_a_request_to_its_run_is_short(
    first: tuple[Result, Path], root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through which files it is handed on, as a request, a plan, a job; each function counts once."""
    way: list[str] = []
    seen: set[tuple[str, int]] = set()
    carried = (Request, Asked, Plan, Job, Work)

    def follow(frame: FrameType, event: str, _: object) -> None:
        place = (frame.f_code.co_filename, frame.f_code.co_firstlineno)
        if event != "call" or not place[0].startswith(PACKAGE) or place in seen:
            return
        if any(isinstance(value, carried) for value in frame.f_locals.values()):
            seen.add(place)
            if way[-1:] != [place[0].removeprefix(PACKAGE)]:
                way.append(place[0].removeprefix(PACKAGE))

    def begun(*_: object) -> None:
        sys.setprofile(None)
        raise RuntimeError("here the run begins")

    monkeypatch.setattr("bench.train.run.make_run", begun)
    sys.setprofile(follow)
    try:
        result = quick_run(root, tmp_path, strategies="er")
    finally:
        sys.setprofile(None)
    assert list(result.failures) == ["er seed 0"]
    assert way[0] == "plan/request.py" and {"launch/session.py", "train/work.py"} < set(way)
    assert len(set(way)) <= 14, way
    assert len(way) - len(set(way)) <= 10, way
