"""All measures of a run beside each other, against numbers worked out by hand."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest
from test_reports import STEP_0, STEP_1, write_run

from bench.cli.entry import main
from reports.measures import HEADERS, measured, write_measures
from reports.metrics import frequency_weighted_iou, harmonic_mean, pixel_accuracy
from reports.records import read_run


def test_measures_over_pixels_are_those_worked_out_by_hand() -> None:
    """STEP_0 is [[6, 0, 0], [2, 2, 0], [0, 0, 0]]: IoU 6/8 and 2/4, of 6 and 4 of 10 pixels."""
    assert pixel_accuracy(STEP_0) == pytest.approx(80)
    assert frequency_weighted_iou(STEP_0) == pytest.approx(100 * (0.6 * 6 / 8 + 0.4 * 2 / 4))
    assert math.isnan(pixel_accuracy(0 * STEP_0)) and math.isnan(frequency_weighted_iou(0 * STEP_0))


def test_the_harmonic_mean_of_old_and_new() -> None:
    assert harmonic_mean(60.0, 30.0) == pytest.approx(40)
    assert harmonic_mean(0.0, 0.0) == harmonic_mean(0.0, 50.0) == 0
    assert math.isnan(harmonic_mean(50.0, math.nan))


def test_a_run_has_all_measures_after_its_last_step(tmp_path: Path) -> None:
    """STEP_1: 8, 0 (absent), 5 and 1 right of 8, 0, 6, 5 pixels; predicted are 10, 0, 8 and 1."""
    run = read_run(write_run(tmp_path))
    first, row = measured([run]).to_dict("records")
    assert math.isnan(first["hiou"]) and math.isnan(first["forgetting"]) and first["pixel_accuracy"] == 80
    old, new = 100 * (8 / 10 + 5 / 9) / 2, 100 * 1 / 5
    assert row["old"] == pytest.approx(old, abs=1e-4) and row["new"] == pytest.approx(new, abs=1e-4)
    assert row["hiou"] == pytest.approx(2 * old * new / (old + new), abs=1e-3)
    assert row["pixel_accuracy"] == pytest.approx(100 * 14 / 19)
    assert row["frequency_weighted_iou"] == pytest.approx(100 * (8 * 0.8 + 6 * 5 / 9 + 5 * 0.2) / 19)
    assert row["backward_transfer"] == pytest.approx(old - 62.5, abs=1e-3) == -row["forgetting"]
    assert math.isnan(row["boundary_iou"])  # a run without contours
    without = measured([run], "background_in_mean=no").iloc[-1]
    assert without["hiou"] == pytest.approx(2 * (500 / 9) * 20 / (500 / 9 + 20), abs=1e-3)


def test_the_table_has_a_row_per_strategy_with_mean_and_deviation_over_seeds(tmp_path: Path) -> None:
    for seed, last in enumerate((STEP_1, STEP_1 + 1)):
        write_run(tmp_path / "runs", (STEP_0, last), seed=seed)
    with pytest.raises(SystemExit, match="0"):
        main(
            ["tables", "measures", "--runs", str(tmp_path / "runs"), "--out", str(tmp_path), "--format", "csv,markdown"]
        )
    [csv], [markdown] = tmp_path.glob("*-measures.csv"), tmp_path.glob("*-measures.md")
    [row] = pd.read_csv(csv).to_dict("records")
    assert row["n"] == 2 and row["seeds"] == "0 1"
    accuracy = [100 * 14 / 19, 100 * 18 / 35]
    assert row["pixel_accuracy_mean"] == pytest.approx(sum(accuracy) / 2, abs=1e-4)
    assert row["pixel_accuracy_std"] == pytest.approx(abs(accuracy[0] - accuracy[1]) / 2**0.5, abs=1e-4)
    text = markdown.read_text(encoding="utf-8")
    assert all(header in text for header in HEADERS.values()) and "future classes `background`" in text


def test_less_forgetting_is_better(tmp_path: Path) -> None:
    forgets = STEP_1.copy()
    forgets[2, 2], forgets[2, 0] = 1, 5
    runs = [
        read_run(write_run(tmp_path / name, (STEP_0, last), strategy=name))
        for name, last in (("er", STEP_1), ("mib", forgets))
    ]
    [path] = write_measures(runs, tmp_path, ["markdown"])
    header, _, *rows = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    place = [cell.strip() for cell in header.split("|")].index("forgetting")
    assert {row.split("|")[1].strip(): "**" in row.split("|")[place] for row in rows} == {"er": True, "mib": False}
