"""Run directories, and the tables and curves made from them."""

from __future__ import annotations

import locale
import math
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from reports.costs import write_costs
from reports.curves import METHOD_STYLES, write_curves
from reports.metrics import class_iou, mean_iou
from reports.records import RecordError, Run, RunWriter, find_runs, read_run, steps_rows, write_atomic
from reports.rows import METHODS
from reports.tables import frame, summary, write_tables

SCENARIO = "voc-2-1-disjoint"
NAMES = ["background", "aeroplane", "bed, double", "50% off_$"]
# Rows the truth, columns the prediction. IoU after step 0: 6/8, 2/4, absent -> (75 + 50) / 2.
STEP_0 = np.array([[6, 0, 0], [2, 2, 0], [0, 0, 0]])
# After step 1: background 8/10, class 1 absent, class 2 5/9, class 3 1/5.
STEP_1 = np.array([[8, 0, 0, 0], [0, 0, 0, 0], [1, 0, 5, 0], [1, 0, 3, 1]])


def spec_of(**changes: Any) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "schema": 1,
        "scenario": SCENARIO,
        "strategy": "er",
        "seed": 0,
        "hash": "a1",
        "method": {"name": "er", "parameters": {"memory_policy": "reservoir"}},
        "config": {"memory": {"size": 100}, "incremental": {"lr": 0.001}, "seed": 0},
        "conventions": {
            "future_classes": "background",
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


# ---------------------------------------------------------------- a run directory


def test_the_rows_are_those_worked_out_by_hand():
    first, last = steps_rows(spec_of(), [STEP_0, STEP_1])
    assert first["miou"] == first["imiou"] == first["old"] == pytest.approx(62.5)
    assert first["old_without_background"] == pytest.approx(50)
    assert math.isnan(first["new"]) and math.isnan(first["step_1"])
    assert last["miou"] == pytest.approx(100 * (8 / 10 + 5 / 9 + 1 / 5) / 3)
    assert last["imiou"] == pytest.approx((62.5 + last["miou"]) / 2)
    assert last["old"] == pytest.approx(100 * (8 / 10 + 5 / 9) / 2)
    assert last["new"] == last["step_1"] == pytest.approx(20)
    assert last["miou_without_background"] == pytest.approx(100 * (5 / 9 + 1 / 5) / 2)
    assert last["imiou_without_background"] == pytest.approx((50 + last["miou_without_background"]) / 2)


def test_steps_csv_is_in_per_cent_with_four_decimals_and_empty_cells(tmp_path):
    text = (write_run(tmp_path) / "steps.csv").read_text()
    assert text == (
        "step,miou,imiou,old,new,step_1,"
        "miou_without_background,imiou_without_background,old_without_background\n"
        "0,62.5000,62.5000,62.5000,,,50.0000,50.0000,50.0000\n"
        "1,51.8519,57.1759,67.7778,20.0000,20.0000,37.7778,43.8889,55.5556\n"
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
    assert run.steps[0]["miou"] == pytest.approx(51.8519) and math.isnan(run.steps[0]["imiou"])


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
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
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
        "schema: 2",
        "schema: 1\nscenario: x",
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


def test_costs_are_per_incoming_batch_and_the_most_that_was_held(tmp_path):
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
