"""Run directories, and the tables and curves made from them."""

from __future__ import annotations

import dataclasses
import locale
import math
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pytest
import yaml
from finished_runs.make import RUNS

from bench.cli.entry import _parser, main
from bench.settings.schema import Config
from reports.atomic import write_atomic
from reports.costs import write_costs
from reports.curves import write_curves
from reports.files import RecordError
from reports.markup import FORMATS
from reports.metrics import class_iou, mean_iou
from reports.notes import origin_notes
from reports.records import Run, find_runs, read_run
from reports.rows import LATER, differing_settings, row_settings
from reports.run_writer import RunWriter
from reports.scenario_tables import write_tables
from reports.spec import SCHEMA
from reports.statistics_tables import write_statistics
from reports.steps import steps_rows
from reports.tables import frame, summary
from strategies.learning.protocol import OnlineProtocol
from strategies.networks.settings import Later

SCENARIO = "voc-2-1-disjoint"
NAMES = ["background", "aeroplane", "bed, double", "50% off_$"]
# Rows the truth, columns the prediction. IoU after step 0: 6/8, 2/4, absent -> (75 + 50) / 2.
STEP_0 = np.array([[6, 0, 0], [2, 2, 0], [0, 0, 0]])
# After step 1: background 8/10, class 1 absent, class 2 5/9, class 3 1/5.
STEP_1 = np.array([[8, 0, 0, 0], [0, 0, 0, 0], [1, 0, 5, 0], [1, 0, 3, 1]])


def spec_of(**changes: Any) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "schema": SCHEMA,
        "scenario": SCENARIO,
        "strategy": "er",
        "seed": 0,
        "hash": "a1",
        "method": {"name": "er", "parameters": {"memory_policy": "reservoir"}},
        "config": {"memory": {"size": 100}, "incremental": {"lr": 0.001}, "seed": 0},
        "conventions": {
            "future_classes": "background",
            "test_images": "known",
            "background_in_mean": True,
            "resolution": 64,
            "evaluate_on": "test",
        },
        "class_names": NAMES,
        "steps": [{"step": 0, "classes": [3, 1]}, {"step": 1, "classes": [2]}],
        "split_hash": "5p1it",
    }
    return {**spec, **changes}


def cost_of(step: int, batches: int = 10, seconds: float = 5.0) -> dict[str, Any]:
    return {
        "step": step,
        "incoming_batches": batches,
        "updates": batches,
        "seconds": seconds,
        "forward_passes": 2 * batches,
        "backward_passes": batches,
        "images": 8 * batches,
        "memory_images": None,
    }


def diagonal(size: int, per_cent: int) -> np.ndarray:
    """A matrix whose every class has this IoU: 2p pixels right, 100 - p missed and 100 - p false alarms."""
    matrix = np.eye(size, dtype=np.int64) * 2 * per_cent
    matrix[np.arange(size), np.roll(np.arange(size), 1)] = 100 - per_cent
    return matrix


def write_run(out: Path, steps: Any = (STEP_0, STEP_1), finish: bool = True, **changes: Any) -> Path:
    spec = spec_of(**changes)
    path = out / spec["scenario"] / spec["strategy"] / f"{spec['hash']}-seed{spec['seed']}"
    writer = RunWriter(path)
    writer.start(spec)
    for matrix in steps:
        step = [3, 4].index(len(matrix))
        writer.add_step(matrix, cost_of(step))
    if finish:
        writer.finish()
    return path


def write_iou(out: Path, per_cent: int, **changes: Any) -> Path:
    return write_run(out, [diagonal(3, per_cent), diagonal(4, per_cent)], **changes)


def tex(runs: list[Run], out: Path) -> str:
    (path,) = write_tables(runs, out, formats=["latex"])
    return path.read_text(encoding="utf-8")


def body(text: str) -> list[str]:
    return text.split("\\midrule\n")[1].split("\\bottomrule")[0].splitlines()


# ---------------------------------------------------------------- metrics


def test_iou_counts_misses_and_false_alarms_and_leaves_absent_classes_out():
    np.testing.assert_allclose(class_iou(STEP_0), [6 / 8, 2 / 4, np.nan])
    assert mean_iou(STEP_0) == pytest.approx(62.5)


def test_a_class_predicted_but_never_there_counts_as_zero():
    assert mean_iou(np.array([[3, 1], [0, 0]])) == pytest.approx((75 + 0) / 2)


def test_a_group_keeps_the_errors_made_with_classes_outside_of_it():
    assert mean_iou(STEP_1, [2]) == pytest.approx(100 * 5 / 9)
    assert mean_iou(STEP_1, [0, 3]) == pytest.approx((80 + 20) / 2)


def test_a_mean_over_nothing_is_not_a_number():
    assert math.isnan(mean_iou(STEP_1, [1]))
    assert math.isnan(mean_iou(STEP_1, []))
    assert math.isnan(mean_iou(np.zeros((3, 3), dtype=int)))


@pytest.mark.filterwarnings("error")
def test_absent_classes_raise_no_warning():
    assert math.isnan(class_iou(np.zeros((2, 2), dtype=int))[1])
    assert math.isnan(mean_iou(STEP_1, []))


# ---------------------------------------------------------------- a run directory


def test_the_rows_are_those_worked_out_by_hand():
    first, last = steps_rows(spec_of(), [STEP_0, STEP_1])
    assert first["miou"] == first["avg"] == first["old"] == pytest.approx(62.5)
    assert math.isnan(first["imiou"])
    assert first["old_without_background"] == pytest.approx(50)
    assert math.isnan(first["new"]) and math.isnan(first["step_1"])
    assert last["miou"] == pytest.approx(100 * (8 / 10 + 5 / 9 + 1 / 5) / 3)
    assert last["imiou"] == pytest.approx(last["miou"])
    assert last["avg"] == pytest.approx((62.5 + last["miou"]) / 2)
    assert last["old"] == pytest.approx(100 * (8 / 10 + 5 / 9) / 2)
    assert last["new"] == last["step_1"] == pytest.approx(20)
    assert last["miou_without_background"] == pytest.approx(100 * (5 / 9 + 1 / 5) / 2)
    assert last["avg_without_background"] == pytest.approx((50 + last["miou_without_background"]) / 2)


def test_imiou_leaves_the_base_step_out_and_avg_counts_it():
    """Every class's IoU is 90, 60 and 30 per cent after the three steps."""
    spec = spec_of(
        class_names=[*NAMES, "last"], steps=[{"step": t, "classes": c} for t, c in enumerate([[3, 1], [2], [4]])]
    )
    rows = steps_rows(spec, [diagonal(3 + step, per_cent) for step, per_cent in enumerate((90, 60, 30))])
    for end in ("", "_without_background"):
        assert [row[f"imiou{end}"] for row in rows] == pytest.approx([math.nan, 60, 45], nan_ok=True)
        assert [row[f"avg{end}"] for row in rows] == pytest.approx([90, 75, 60])


def test_a_scenario_of_one_step_has_no_imiou():
    spec = spec_of(class_names=NAMES[:3], steps=[{"step": 0, "classes": [3, 1]}])
    (row,) = steps_rows(spec, [diagonal(3, 40)])
    assert math.isnan(row["imiou"]) and row["avg"] == pytest.approx(40)


def test_steps_csv_is_in_per_cent_with_four_decimals_and_empty_cells(tmp_path):
    text = (write_run(tmp_path) / "steps.csv").read_text()
    assert text == (
        "step,miou,imiou,avg,old,new,step_1,"
        "miou_without_background,imiou_without_background,avg_without_background,old_without_background\n"
        "0,62.5000,,62.5000,62.5000,,,50.0000,,50.0000,50.0000\n"
        "1,51.8519,51.8519,57.1759,67.7778,20.0000,20.0000,37.7778,37.7778,43.8889,55.5556\n"
    )


def test_what_is_written_is_read_back(tmp_path):
    run = read_run(write_run(tmp_path))
    assert run.spec == spec_of()
    assert [row["step"] for row in run.steps] == [0, 1]
    assert math.isnan(run.steps[0]["new"]) and run.steps[1]["new"] == 20
    for matrix, written in zip(run.confusions, [STEP_0, STEP_1], strict=True):
        np.testing.assert_array_equal(matrix, written)
    assert run.costs[1]["seconds"] == 5.0 and math.isnan(run.costs[1]["memory_images"])
    header = (run.path / "confusion" / "step-0.csv").read_text().splitlines()[0]
    assert header == 'background,aeroplane,"bed, double"'


def test_equal_runs_give_equal_files_and_no_temporary_one_stays(tmp_path):
    one, other = write_run(tmp_path / "a"), write_run(tmp_path / "b")
    files = sorted(path.relative_to(one) for path in one.rglob("*") if path.is_file())
    names = ["confusion/step-0.csv", "confusion/step-1.csv", "costs.csv", "done", "spec.yaml", "steps.csv"]
    assert [path.as_posix() for path in files] == names
    assert all((one / path).read_bytes() == (other / path).read_bytes() for path in files)


def test_a_run_that_died_goes_on_and_ends_with_the_same_files(tmp_path):
    whole, path = write_run(tmp_path / "whole"), write_run(tmp_path / "died", finish=False)
    writer = RunWriter(path)
    # Step 1 was recorded, but its checkpoint was not: it is computed again.
    writer.start(spec_of(), next_step=1)
    assert not (path / "confusion" / "step-1.csv").exists()
    assert (path / "steps.csv").read_text().count("\n") == 2
    writer.add_step(STEP_1, cost_of(1))
    writer.finish()
    for name in ("steps.csv", "costs.csv", "confusion/step-0.csv", "confusion/step-1.csv", "done"):
        assert (path / name).read_bytes() == (whole / name).read_bytes()


def test_a_run_cannot_go_on_from_a_step_that_was_never_recorded(tmp_path):
    with pytest.raises(RecordError, match=r"step-0\.csv: missing"):
        RunWriter(tmp_path / "run").start(spec_of(), next_step=1)


def test_a_run_started_anew_is_unfinished_and_empty(tmp_path):
    path = write_run(tmp_path)
    RunWriter(path).start(spec_of())
    assert find_runs(tmp_path) == []
    assert not list((path / "confusion").iterdir())


def test_a_run_evaluated_after_its_last_step_alone_has_no_incremental_mean(tmp_path):
    run = read_run(write_run(tmp_path, [STEP_1], strategy="joint"))
    assert [row["step"] for row in run.steps] == [1]
    assert run.steps[0]["miou"] == pytest.approx(51.8519)
    assert math.isnan(run.steps[0]["imiou"]) and math.isnan(run.steps[0]["avg"])


OLD_RUNS = Path(__file__).parent / "schema_1_runs"


@pytest.mark.parametrize("path", [run.path.relative_to(OLD_RUNS) for run in find_runs(OLD_RUNS)], ids=str)
def test_a_run_of_schema_1_is_read_as_it_would_be_written_today(path):
    """The same matrices were recorded again below `finished_runs`; in schema 1 `imiou` was today's `avg`."""
    old, new = read_run(OLD_RUNS / path), read_run(RUNS / path)
    assert (old.spec["schema"], new.spec["schema"]) == (1, 2)
    assert len(old.steps) == len(new.steps) > 1
    for one, other in zip(old.steps, new.steps, strict=True):
        assert one == pytest.approx(other, abs=1.1e-4, nan_ok=True) and list(one) != []
    stored = [line.split(",")[2] for line in (old.path / "steps.csv").read_text().splitlines()[1:]]
    assert [f"{row['avg']:.4f}" for row in old.steps] == stored


def test_a_run_of_schema_1_that_goes_on_is_written_in_the_present_one(tmp_path):
    (old,) = [run for run in find_runs(OLD_RUNS) if run.spec["strategy"] == "mib"]
    path = tmp_path / "run"
    shutil.copytree(old.path, path)
    writer = RunWriter(path)
    with pytest.raises(RecordError, match=r"spec\.yaml: written is schema 2, not 1"):
        writer.start(old.spec, next_step=1)
    writer.start({**old.spec, "schema": SCHEMA}, next_step=1)
    writer.add_step(old.confusions[1], old.costs[1])
    writer.finish()
    now = read_run(path)
    assert "avg" in (path / "steps.csv").read_text() and now.spec["schema"] == SCHEMA
    assert now.steps[-1] == pytest.approx(old.steps[-1], abs=1.1e-4)


def test_whoever_reads_runs_of_schema_1_is_told():
    runs = find_runs(OLD_RUNS)
    (told,) = [note for note in origin_notes([*runs, *find_runs(RUNS / "voc-19-1-disjoint")]) if "imIoU" in note]
    assert told.startswith("3 runs were written when imIoU meant the mean over steps 0..T: that number is read as avg")
    assert origin_notes(find_runs(RUNS / "voc-19-1-disjoint")) == []


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.eye(5, dtype=int), r"shape \(5, 5\)"),
        (np.ones((3, 4), dtype=int), r"shape \(3, 4\)"),
        (np.eye(3), "float64"),
        (-np.eye(3, dtype=int), "integers from 0"),
    ],
)
def test_a_matrix_that_cannot_be_is_refused(tmp_path, matrix, message):
    writer = RunWriter(tmp_path / "run")
    writer.start(spec_of())
    with pytest.raises(ValueError, match=message):
        writer.add_step(matrix, {"step": 0})


def test_steps_out_of_order_and_an_early_end_are_refused(tmp_path):
    writer = RunWriter(tmp_path / "run")
    writer.start(spec_of())
    with pytest.raises(ValueError, match="the cost is of step 1"):
        writer.add_step(STEP_0, {"step": 1})
    writer.add_step(STEP_0, {})
    with pytest.raises(ValueError, match="recorded already"):
        writer.add_step(STEP_0, {})
    with pytest.raises(ValueError, match="last step was not recorded"):
        writer.finish()


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "steps.csv"
    write_atomic(path, "old\n")
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_atomic(path, "new\n")
    assert path.read_text() == "old\n" and list(tmp_path.iterdir()) == [path]


def test_only_finished_runs_are_found_in_a_fixed_order(tmp_path):
    for strategy, name, seed in [("mib", "b", 2), ("er", "b", 10), ("er", "b", 2), ("er", "a", 3)]:
        write_run(tmp_path, strategy=strategy, hash=name, seed=seed)
    write_run(tmp_path, strategy="ours", finish=False)
    found = [(run.spec["strategy"], run.spec["hash"], run.spec["seed"]) for run in find_runs(tmp_path)]
    assert found == [("er", "a", 3), ("er", "b", 2), ("er", "b", 10), ("mib", "b", 2)]
    assert find_runs(tmp_path / "nowhere") == []


DAMAGE = {
    "spec.yaml": [
        "",
        "a: [",
        "- 1",
        "\x00",
        "!!python/object:os.system {}",
        "schema: 3",
        "schema: 2\nscenario: x",
    ],
    "steps.csv": ["", "step,miou\n0,1\n", "step,miou\n0\n", '"step', None],
    "costs.csv": ["", "step,seconds\n0,1\n", "step,seconds\n0,1\n1,fast\n", None],
    "done": ["schema 7\n"],
    "confusion/step-1.csv": [None],
}


@pytest.mark.parametrize(("name", "content"), [(name, each) for name in DAMAGE for each in DAMAGE[name]])
def test_a_damaged_run_is_named_in_one_line(tmp_path, name, content):
    damaged = write_run(tmp_path) / name
    if content is None:
        damaged.unlink()
    else:
        damaged.write_text(content)
    with pytest.raises(RecordError) as error:
        find_runs(tmp_path)
    assert str(error.value).startswith(f"{damaged}: ") and "\n" not in str(error.value)


def test_a_spec_with_classes_it_does_not_name_is_damaged(tmp_path):
    path = write_run(tmp_path) / "spec.yaml"
    path.write_text(yaml.safe_dump(spec_of(class_names=NAMES[:-1])))
    with pytest.raises(RecordError, match=r"spec\.yaml: 'class_names'"):
        read_run(path.parent)


@pytest.mark.parametrize("content", ["", "background,aeroplane\n1,2\n3,4\n", "1.5", "-1", "x", "99999999999999999999"])
def test_a_damaged_matrix_is_named_when_it_is_read(tmp_path, content):
    run = read_run(write_run(tmp_path))
    path = run.path / "confusion" / "step-0.csv"
    whole = path.read_text()
    path.write_text(content if not content or "\n" in content else whole.replace("6,0,0", f"{content},0,0"))
    with pytest.raises(RecordError, match=r"step-0\.csv: "):
        _ = run.confusions


# ---------------------------------------------------------------- frame and summary


def test_the_frame_has_a_row_per_run_and_step(tmp_path):
    write_run(tmp_path)
    steps = frame(find_runs(tmp_path))
    assert steps["step"].tolist() == [0, 1] and steps["classes"].tolist() == [2, 3]
    assert steps["variant"].tolist() == ["", ""]
    last = steps.iloc[1]
    assert (last["old"], last["new"], last["step_1"], last["miou"]) == (67.7778, 20, 20, 51.8519)
    assert (last["seconds_per_batch"], last["forward_per_batch"], last["backward_per_batch"]) == (0.5, 2, 1)
    assert math.isnan(steps.iloc[0]["seconds_per_batch"])


def test_no_runs_give_an_empty_frame_and_an_empty_summary():
    assert len(frame([])) == 0 and len(summary(frame([]))) == 0
    assert {"scenario", "variant", "miou"} <= set(frame([]).columns)
    assert {"n", "miou_mean", "miou_std"} <= set(summary(frame([])).columns)


def test_two_seeds_mean_and_sample_deviation(tmp_path):
    for seed, per_cent in [(0, 40), (7, 46)]:
        write_iou(tmp_path, per_cent, seed=seed)
    (row,) = summary(frame(find_runs(tmp_path))).to_dict("records")
    assert (row["n"], row["seeds"]) == (2, "0 7")
    low, high = (read_run(path.parent).steps[1]["miou"] for path in sorted(tmp_path.rglob("done")))
    assert row["miou_mean"] == pytest.approx((low + high) / 2)
    assert row["miou_std"] == pytest.approx((high - low) / math.sqrt(2))


def test_one_seed_has_no_deviation(tmp_path):
    write_run(tmp_path)
    (row,) = summary(frame(find_runs(tmp_path))).to_dict("records")
    assert row["n"] == 1 and row["miou_mean"] == 51.8519 and math.isnan(row["miou_std"])


def test_costs_are_per_incoming_batch_of_the_later_steps(tmp_path):
    spec = spec_of(
        class_names=[*NAMES, "last"],
        steps=[{"step": t, "classes": c} for t, c in enumerate([[3, 1], [2], [4]])],
    )
    writer = RunWriter(tmp_path / "run")
    writer.start(spec)
    for step, (batches, seconds) in enumerate([(100, 900.0), (10, 10.0), (30, 90.0)]):
        writer.add_step(diagonal(3 + step, 50), cost_of(step, batches, seconds))
    writer.finish()
    (row,) = summary(frame(find_runs(tmp_path))).to_dict("records")
    assert row["seconds_per_batch"] == pytest.approx((10 + 90) / (10 + 30))


def test_configurations_that_differ_are_never_averaged(tmp_path):
    for size, name in [(100, "b"), (20, "a")]:
        for seed in (0, 1):
            write_run(tmp_path, seed=seed, hash=name, config={"memory": {"size": size}, "seed": seed})
    rows = summary(frame(find_runs(tmp_path)))
    assert rows["variant"].tolist() == ["memory.size=20", "memory.size=100"]
    assert rows["n"].tolist() == [2, 2]


def test_a_variant_names_parameters_unset_settings_and_at_last_the_hash(tmp_path):
    write_run(tmp_path, hash="a", method={"name": "er", "parameters": {"sampling": "uniform"}})
    write_run(tmp_path, hash="b", method={"name": "er", "parameters": {}})
    write_run(tmp_path, hash="c", method={"name": "er", "parameters": {}}, base="another")
    assert set(frame(find_runs(tmp_path))["variant"]) == {
        "sampling=uniform",
        "sampling=unset, hash=b",
        "sampling=unset, hash=c",
    }


def test_runs_from_before_a_setting_are_in_the_same_rows(tmp_path):
    later = {"augmentation": "scale_crop", "area": [0.5, 2.0], "void": "ignore"}
    write_run(tmp_path, hash="a", config={"data": {"crop": 32}, "base": {"epochs": 6}})
    write_run(tmp_path, hash="b", strategy="ours", config={"data": {"crop": 32, **later}, "base": {"epochs": 6}})
    write_run(tmp_path, hash="c", strategy="mib", config={"data": {"crop": 32, "void": "background"}})
    runs = {run.spec["hash"]: run for run in find_runs(tmp_path)}
    assert differing_settings([runs["a"], runs["b"]]) == []
    assert row_settings([runs["a"], runs["c"]])["mib", "c"].endswith("data.void=background")
    assert row_settings([runs["a"], runs["c"]])["er", "a"].endswith("data.void=ignore")


SECTIONS = ("base", "data", "memory", "runtime")


def test_what_runs_from_before_a_setting_were_made_by_is_its_default():
    sections = {name: kind for name, kind in get_type_hints(Config).items() if name in SECTIONS}
    fields = [(f"{section}.", field) for section, kind in sections.items() for field in dataclasses.fields(kind)]
    fields += [("", field) for field in dataclasses.fields(Config) if field.name not in ("keep", "study")]
    optional = {}
    for prefix, field in fields:
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        if default is not dataclasses.MISSING:
            optional[f"{prefix}{field.name}"] = list(default) if isinstance(default, tuple) else default
    hints = get_type_hints(OnlineProtocol, include_extras=True)
    for field in dataclasses.fields(OnlineProtocol):
        if Later() in getattr(hints[field.name], "__metadata__", ()):
            optional[f"incremental.{field.name}"] = field.default
    assert optional == LATER


def test_rows_of_two_protocols_are_told_apart_by_its_name_and_by_what_differs_within_one(tmp_path):
    online, offline = {"lr": 0.1, "batch_size": 4}, {"lr": 0.01, "epochs": 30, "batch_size": 24}
    write_run(tmp_path, hash="a", config={"incremental": online})
    write_run(tmp_path, hash="b", config={"incremental": offline, "protocol": "offline"})
    write_run(tmp_path, hash="c", config={"incremental": {**offline, "epochs": 10}, "protocol": "offline"})
    runs = {run.spec["hash"]: run for run in find_runs(tmp_path)}
    told = row_settings([runs["a"], runs["b"]])
    assert told == {("er", "a"): "protocol=online", ("er", "b"): "protocol=offline"}
    told = row_settings(list(runs.values()))
    assert told["er", "a"] == "protocol=online"
    assert told["er", "c"] == "incremental.epochs=10, protocol=offline"


def test_the_frame_does_not_depend_on_the_order_of_the_runs(tmp_path):
    for seed in (10, 2):
        write_iou(tmp_path, 40 + seed, seed=seed)
        write_iou(tmp_path, 50 + seed, seed=seed, strategy="mib")
    runs = find_runs(tmp_path)
    assert frame(runs)["seed"].tolist() == [2, 2, 10, 10] * 2
    assert frame(runs[::-1]).equals(frame(runs))


def test_one_run_given_twice_is_refused(tmp_path):
    one, other = write_run(tmp_path / "a"), write_run(tmp_path / "b")
    with pytest.raises(RecordError, match="same run twice"):
        frame([read_run(one), read_run(write_run(tmp_path, strategy="mib")), read_run(other)])


# ---------------------------------------------------------------- tables


def test_the_latex_table_word_for_word(tmp_path):
    for strategy, values in {"ours": (40, 44), "er": (30, 31), "mib": (35, 36)}.items():
        for seed, per_cent in enumerate(values):
            matrices = [diagonal(3, per_cent), np.eye(4, dtype=int) * 10]
            write_run(tmp_path, matrices, strategy=strategy, seed=seed)
    assert tex(find_runs(tmp_path), tmp_path / "out").splitlines()[:12] == [
        r"\begin{table}",
        r"\centering",
        (
            r"\caption{Mean IoU (\%) after the last step of \texttt{voc-2-1-disjoint}; "
            r"imIoU is the mean of the mIoU after steps 1..T, avg that after steps 0..T. "
            r"\texttt{all} is the mean of 4 classes with the background (old 3, new 1). "
            r"Mean $\pm$ standard deviation over seeds: n = 2, seeds 0, 1. "
            r"Conventions: future classes \texttt{background}; test images \texttt{known}; "
            r"background in the mean \texttt{yes}; resolution \texttt{64}; "
            r"evaluated on \texttt{test}. Best in bold, second underlined.}"
        ),
        r"\label{tab:voc-2-1-disjoint}",
        r"\begin{tabular}{lrrrrr}",
        r"\toprule",
        r"Methods & 0-2 & 3 & all & imIoU & avg \\",
        r"\midrule",
        "er" + 4 * r" & \textbf{100.00} $\pm$ 0.00" + avg_cell(30, 31, "{}"),
        "mib" + 4 * r" & \textbf{100.00} $\pm$ 0.00" + avg_cell(35, 36, r"\underline{{{}}}"),
        "ours" + 4 * r" & \textbf{100.00} $\pm$ 0.00" + avg_cell(40, 44, r"\textbf{{{}}}"),
        r"\bottomrule",
    ]


def avg_cell(low: int, high: int, mark: str) -> str:
    """The avg cell of two seeds with these mIoU at step 0, and 100 at step 1."""
    one, other = ((100 + per_cent) / 2 for per_cent in (low, high))
    mean, std = (one + other) / 2, (other - one) / math.sqrt(2)
    return f" & {mark.format(f'{mean:.2f}')} $\\pm$ {std:.2f} \\\\"


def test_rows_come_in_the_fixed_order(tmp_path):
    for strategy in ["zeta", "joint", "ours(sampling=uniform)", "alpha", "ours", "er", "lwf-mc", "finetune"]:
        write_run(tmp_path, strategy=strategy)
    rows = summary(frame(find_runs(tmp_path)))
    known = ["finetune", "er", "lwf-mc", "ours", "ours(sampling=uniform)", "joint"]
    assert rows["strategy"].tolist() == [*known, "alpha", "zeta"]


def test_best_and_second_go_by_the_printed_mean_and_ties_share(tmp_path):
    thousand = [np.diag([1000, 1000, 1000, 0]) for _ in range(4)]
    for matrix, wrong in zip(thousand, [0, 0, 1, 500], strict=True):
        matrix[3, 3], matrix[3, 0] = 100_000 - wrong, wrong
    for strategy, matrix in zip(["er", "agem", "mir", "mib"], thousand, strict=True):
        write_run(tmp_path, [diagonal(3, 50), matrix], strategy=strategy)
    new = [line.split(" & ")[2] for line in body(tex(find_runs(tmp_path), tmp_path / "out"))]
    # 100.00, 100.00, 99.999 -> 100.00, 99.50
    assert new == [r"\textbf{100.00}"] * 3 + [r"\underline{99.50}"]


def test_a_row_with_other_seeds_says_so(tmp_path):
    for strategy, seeds in {"er": (0, 1), "mib": (0, 1), "ours": (0,), "joint": (1, 2)}.items():
        for seed in seeds:
            write_run(tmp_path, strategy=strategy, seed=seed)
    text = tex(find_runs(tmp_path), tmp_path / "out")
    names = [line.split(" & ")[0] for line in body(text)]
    assert names == ["er", "mib", "ours (n = 1, seed 0)", "joint (n = 2, seeds 1, 2)"]
    assert "n = 2, seeds 0, 1 unless a row says otherwise." in text


def test_special_characters_are_escaped(tmp_path):
    write_run(tmp_path, strategy=r"m_1(x=50%,a&b,#1,$2,{c},~d,^e,<f>,|,\g)")
    assert body(tex(find_runs(tmp_path), tmp_path / "out"))[0].split(" & ")[0] == (
        r"m\_1(x=50\%,a\&b,\#1,\$2,\{c\},\textasciitilde{}d,\textasciicircum{}e,"
        r"\textless{}f\textgreater{},\textbar{},\textbackslash{}g)"
    )
    (path,) = write_tables(find_runs(tmp_path), tmp_path / "out", formats=["markdown"])
    assert path.read_text().splitlines()[-1].startswith(r"| m\_1(x=50%,a&b,\#1,$2,{c},\~d,^e,\<f\>,\|,\\g) | **")


def test_the_markdown_table(tmp_path):
    write_iou(tmp_path, 40, strategy="er")
    write_iou(tmp_path, 50, strategy="ours")
    (path,) = write_tables(find_runs(tmp_path), tmp_path / "out", formats=["markdown"])
    caption, _, *lines = path.read_text(encoding="utf-8").splitlines()
    assert "after the last step of `voc-2-1-disjoint`;" in caption and "One seed: n = 1, seed 0." in caption
    assert lines[:2] == ["| Methods | 0-2 | 3 | all | imIoU | avg |", "| :-- | --: | --: | --: | --: | --: |"]
    assert lines[2:] == [
        "| er | <u>40.00</u> | <u>40.00</u> | <u>40.00</u> | <u>40.00</u> | <u>40.00</u> |",
        "| ours | **50.00** | **50.00** | **50.00** | **50.00** | **50.00** |",
    ]


@pytest.mark.parametrize("name", ["shapes", "scenes"])
def test_the_embedded_data_sets_are_never_called_voc_or_ade(tmp_path, name):
    write_run(tmp_path, scenario=f"{name}-2-1-disjoint")
    runs = find_runs(tmp_path)
    markdown, latex = (path.read_text() for path in write_tables(runs, tmp_path / "out", ["markdown", "latex"]))
    assert f"embedded data set `{name}`, not VOC/ADE results" in markdown
    assert rf"embedded data set \texttt{{{name}}}, not VOC/ADE results" in latex


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"conventions": {**spec_of()["conventions"], "future_classes": "ignore"}}, "convention future_classes"),
        ({"conventions": {**spec_of()["conventions"], "background_in_mean": False}}, "convention background_in_mean"),
        ({"conventions": {**spec_of()["conventions"], "resolution": "native"}}, "convention resolution"),
        ({"split_hash": "shorter"}, "split_hash"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("write", [write_tables, write_costs, write_curves])
def test_runs_by_several_conventions_are_refused_and_the_odd_one_is_named(tmp_path, other, said, write):
    for strategy in ("er", "ours"):
        write_run(tmp_path, strategy=strategy)
    odd = write_run(tmp_path, strategy="mib", **other)
    with pytest.raises(RecordError, match=said) as error:
        write(find_runs(tmp_path), tmp_path / "out")
    assert str(odd) in str(error.value) and "er/" not in str(error.value)


def test_a_mean_without_the_background_is_what_the_caption_says(tmp_path):
    write_run(tmp_path, conventions={**spec_of()["conventions"], "background_in_mean": False})
    text = tex(find_runs(tmp_path), tmp_path / "out")
    assert r"background in the mean \texttt{no}" in text and "Methods & 1-2 & 3 & all" in text
    numbers = ["55.56", "20.00", "37.78", "37.78", "43.89"]
    assert body(text) == [" & ".join(["er", *(rf"\textbf{{{number}}}" for number in numbers)]) + r" \\"]


def test_runs_whose_steps_differ_do_not_share_a_table(tmp_path):
    write_run(tmp_path)
    spec = spec_of(strategy="mib", steps=[{"step": 0, "classes": [1]}, {"step": 1, "classes": [2, 3]}])
    writer = RunWriter(tmp_path / "other")
    writer.start(spec)
    writer.add_step(np.eye(2, dtype=int), {})
    writer.add_step(STEP_1, {})
    writer.finish()
    with pytest.raises(RecordError, match="differ in their numbers of classes"):
        write_tables(find_runs(tmp_path), tmp_path / "out")


def test_a_scenario_without_a_finished_run_is_a_marked_gap(tmp_path):
    write_run(tmp_path, finish=False)
    runs = find_runs(tmp_path)
    paths = write_tables(runs, tmp_path / "out", FORMATS, [SCENARIO])
    assert [path.name for path in paths] == [f"{SCENARIO}{suffix}" for suffix in (".csv", ".tex", ".md", ".html")]
    assert all("no finished run" in path.read_text() for path in paths)
    assert body(paths[1].read_text()) == [r"\multicolumn{6}{c}{no finished run} \\"]
    assert len({line.count("|") for line in paths[2].read_text().splitlines()[2:]}) == 1
    assert paths[3].read_text().startswith('<table id="tab:')
    assert write_tables([], tmp_path / "out") == []


def test_an_unknown_format_is_refused(tmp_path):
    for write in (write_tables, write_costs, write_statistics):
        with pytest.raises(ValueError, match="table format 'word': allowed are csv, latex, markdown, html"):
            write([], tmp_path, ["word"])
    with pytest.raises(ValueError, match="'gif': allowed are png, pdf, svg"):
        write_curves([], tmp_path, formats=["gif"])


def test_the_files_do_not_depend_on_order_locale_time_zone_or_day(tmp_path, monkeypatch):
    for strategy in ("er", "ours"):
        for seed in (0, 1, 2):
            write_iou(tmp_path / "runs", 40 + 3 * seed, strategy=strategy, seed=seed)
    runs = find_runs(tmp_path / "runs")

    def files(name: str, given: list[Run]) -> dict[str, bytes]:
        paths = write_tables(given, tmp_path / name, ["csv", "latex", "markdown"])
        paths += write_curves(given, tmp_path / name)
        return {path.name: path.read_bytes() for path in paths}

    expected = files("one", runs)
    before = locale.setlocale(locale.LC_ALL)
    monkeypatch.setenv("TZ", "Pacific/Kiritimati")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    time.tzset()
    try:
        for name in ("de_DE.UTF-8", "C.UTF-8", "C"):
            try:
                locale.setlocale(locale.LC_ALL, name)
            except locale.Error:
                continue
        assert files("two", runs[::-1]) == expected
    finally:
        locale.setlocale(locale.LC_ALL, before)
        monkeypatch.undo()
        time.tzset()


# ---------------------------------------------------------------- curves


def test_a_figure_per_scenario_and_format(tmp_path):
    write_run(tmp_path)
    write_run(tmp_path, scenario="shapes-2-1:order=a/b")
    paths = write_curves(find_runs(tmp_path), tmp_path / "out")
    names = ["shapes-2-1_order=a_b", SCENARIO]
    assert [path.name for path in paths] == [f"{name}.{end}" for name in names for end in ("png", "pdf", "svg")]
    assert [path.read_bytes()[:4] for path in paths] == [b"\x89PNG", b"%PDF", b"<?xm"] * 2


def test_a_figure_without_a_finished_run_is_still_drawn(tmp_path):
    (path,) = write_curves([], tmp_path, ["png"], [SCENARIO])
    assert path.read_bytes()[:4] == b"\x89PNG"


# ---------------------------------------------------------------- imports


def test_reading_records_imports_neither_pandas_nor_matplotlib_nor_torch():
    code = "import sys, reports.records; print({'pandas', 'matplotlib', 'torch'} & set(sys.modules))"
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_references_are_not_ranked_with_the_others(tmp_path):
    write_iou(tmp_path, 90, strategy="joint")
    write_iou(tmp_path, 40, strategy="er")
    text = tex(find_runs(tmp_path), tmp_path / "out")
    er, joint = body(text)
    assert er.count(r"\textbf") == 5
    assert r"\textbf" not in joint and r"\underline" not in joint
    assert "the references joint apart" in text


def test_the_cost_table_holds_rates_and_the_most_that_was_held(tmp_path):
    writer = RunWriter(tmp_path / "runs" / "one")
    writer.start(spec_of())
    for step, matrix in enumerate((STEP_0, STEP_1)):
        held = {"memory_images": 7 - step, "memory_bytes": 2_000_000, "peak_ram_bytes": 3e8, "peak_gpu_bytes": 0}
        writer.add_step(matrix, {**cost_of(step, batches=10, seconds=5.0), **held})
    writer.finish()
    csv, markdown = write_costs(find_runs(tmp_path / "runs"), tmp_path / "out", formats=["csv", "markdown"])
    names, values = (line.split(",") for line in csv.read_text().splitlines())
    row = dict(zip(names, values, strict=True))
    assert [float(row[f"{kind}_per_batch"]) for kind in ("seconds", "forward", "backward", "images")] == [0.5, 2, 1, 8]
    assert float(row["memory_images"]) == 7
    assert markdown.read_text().splitlines()[-1] == "| er | 500.0 | 2.00 | 1.00 | 8.0 | 7 | 2.00 | 300 | 0 |"


@pytest.mark.parametrize("what", [[], [SCENARIO], ["1"], ["costs"], ["statistics"]])
def test_every_format_in_the_help_is_written_for_every_table(what, tmp_path):
    write_iou(tmp_path / "runs", 50, strategy="ours")
    write_iou(tmp_path / "runs", 40, strategy="er")
    listed = re.findall(r"[a-z]+(?:,[a-z]+)+", help_of("tables", "--format"))[0].split(",")
    asked = ["--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out"), "--format", ",".join(listed)]
    with pytest.raises(SystemExit, match="0"):
        main(["tables", *what, *asked])
    assert {path.suffix for path in (tmp_path / "out").iterdir()} == {".csv", ".tex", ".md", ".html"}
    assert listed == list(FORMATS)


def help_of(command: str, option: str) -> str:
    commands = _parser()._subparsers._group_actions[0].choices
    [action] = [one for one in commands[command]._actions if option in one.option_strings]
    return action.help
