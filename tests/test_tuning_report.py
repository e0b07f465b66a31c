"""A study on the page: budgets, slices, and the best settings beside the default ones on test images."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from figure_boxes import faults
from scipy import stats
from test_page import CONFIG, SHAPES, Page, write_run

from bench.cli.entry import main
from reports.files import RecordError
from reports.page.page import write_page
from reports.records import Run
from reports.rows import variants
from reports.slices import _figure
from reports.study import Study, Trial, read_study, write_asked, write_importance, write_trials
from reports.style import house_style
from reports.tuned import on_test_images, places

RATE = {"low": 1e-4, "high": 0.1, "log": True, "default": 0.01, "source": "a test"}
WEIGHT = {"low": 1.0, "high": 100.0, "log": True, "default": 10.0, "source": "a test"}


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """er is best at another rate, ours at its default; mib has a parameter and a pruned trial."""
    folder = tmp_path / "study"
    folder.mkdir()
    strategies = {
        "er": {"incremental.lr": RATE},
        "mib": {"distillation_weight": WEIGHT, "incremental.lr": RATE},
        "ours": {"incremental.lr": RATE},
    }
    asked = {"scenario": SHAPES, "first_steps": 2, "strategies": strategies, "trials": 2, "wall_time_minutes": None}
    rest = {"seeds": [0, 1], "sampler": "sobol", "seed": 0, "prune": False, "config": CONFIG}
    write_asked(folder, {**asked, **rest})
    trials = [
        Trial("er", 0, "done", 60.0, (70.0, 60.0), 30.0, {"incremental.lr": 0.01}, ("runs/a",)),
        Trial("er", 1, "done", 65.5, (70.0, 65.5), 60.0, {"incremental.lr": 0.003}, ("runs/b",)),
        Trial("mib", 0, "done", 50.0, (), 6.0, {"distillation_weight": 10.0, "incremental.lr": 0.01}, ("runs/c",)),
        Trial("mib", 1, "pruned", None, (), 3.0, {"distillation_weight": 2.0, "incremental.lr": 0.05}, ("runs/d",)),
        Trial("ours", 0, "done", 68.0, (), 6.0, {"incremental.lr": 0.01}, ("runs/e",)),
        Trial("ours", 1, "done", 68.0, (), 6.0, {"incremental.lr": 0.02}, ("runs/f",)),
    ]
    write_trials(folder, trials)
    write_importance(folder, {"mib": {"distillation_weight": 0.75, "incremental.lr": 0.25}})
    return read_study(folder)


def with_rate(lr: float, **changes: Any) -> dict[str, Any]:
    return {**CONFIG, **changes, "incremental": {**CONFIG["incremental"], "lr": lr}}


@pytest.fixture
def runs(tmp_path: Path) -> list[Run]:
    """er by its default and its best rate on three and two seeds, ours by its default; and others that are no match."""
    out = tmp_path / "runs"
    made = [write_run(out, "er", seed, hash="default") for seed in (0, 1, 2)]
    made += [write_run(out, "er", seed, hash="best", config={**with_rate(0.003), "study": "s"}) for seed in (10, 11)]
    for run in made[3:]:  # seeds of their own make other numbers
        run.spec["seed"] -= 10
    made += [write_run(out, "ours", seed, hash="default") for seed in (0, 1)]
    write_run(out, "er", 3, hash="other", config=with_rate(0.05))
    made.append(write_run(out, "er", 4, hash="memory", config=with_rate(0.003, memory={"size": 7})))
    valid = {"future_classes": "background", "test_images": "known", "background_in_mean": True, "evaluate_on": "valid"}
    made.append(write_run(out, "er", 5, hash="valid", conventions=valid))
    return made


def last(run: Run) -> float:
    return run.steps[-1]["miou"]


def test_runs_are_told_by_the_settings_that_were_tuned_and_by_all_others(study: Study, runs: list[Run]) -> None:
    er, mib, ours = on_test_images(study, runs)
    assert er.default == {seed: last(run) for seed, run in enumerate(runs[:3])}
    assert er.best == {seed: last(run) for seed, run in enumerate(runs[3:5])}
    assert (mib.default, mib.best) == ({}, {})
    assert ours.kept and not er.kept
    assert ours.default == ours.best == {seed: last(run) for seed, run in enumerate(runs[5:7])}


def test_places_are_by_the_means_over_the_seeds_that_all_have(study: Study, runs: list[Run]) -> None:
    er, _, ours = on_test_images(study, runs)
    means = {
        "er": [statistics.fmean(own[seed] for seed in (0, 1)) for own in (er.default, er.best)],
        "ours": [statistics.fmean(ours.default.values())] * 2,
    }
    assert places([er, ours]) == {
        "er": tuple(1 + (means["ours"][i] > means["er"][i]) for i in (0, 1)),
        "ours": tuple(1 + (means["er"][i] > means["ours"][i]) for i in (0, 1)),
    }
    assert places(on_test_images(study, runs)) == {}


def test_rows_are_told_apart_by_their_settings_and_never_by_their_study(runs: list[Run]) -> None:
    er = [run for run in runs[:5] if run.spec["strategy"] == "er"]
    assert set(variants(er).values()) == {"incremental.lr=0.003", "incremental.lr=0.01"}


def test_a_run_that_is_older_than_a_setting_is_one_at_its_default(study: Study, tmp_path: Path) -> None:
    data = {key: value for key, value in CONFIG["data"].items() if key not in ("fill", "workers")}
    run = write_run(tmp_path, "er", 0, config={**CONFIG, "data": data})
    assert on_test_images(study, [run])[0].default == {0: last(run)}


def test_the_page_has_the_budget_each_setting_and_the_paired_difference(
    study: Study, runs: list[Run], tmp_path: Path
) -> None:
    page = Page(write_page(runs[:7], tmp_path / "page.html", study=study).read_text(encoding="utf-8"))
    tried = [row for row in page.rows if len(row) == 8]
    assert ["er", "2", "0", "0", "1.5", "60.00", "65.50", "incremental.lr=0.003"] in tried
    assert ["mib", "1", "1", "0", "0.1", "50.00", "50.00", "distillation_weight=10.0, incremental.lr=0.01"] in tried
    differences = np.array([last(runs[3 + seed]) - last(runs[seed]) for seed in (0, 1)])
    half = stats.t.ppf(0.975, 1) * differences.std(ddof=1) / np.sqrt(2)
    middle = differences.mean()
    told = f"{middle:.2f} [{middle - half:.2f}, {middle + half:.2f}]".replace("-", "\N{MINUS SIGN}")
    rows = {row[0]: row for row in page.rows if len(row) == 7}
    assert rows["er"][1] == "0, 1" and rows["er"][4] == told
    assert rows["ours"][4] == "the default is best"
    assert study.digest in page.text and "Each setting" in page.text
    assert "explains 75 %" in page.text


def test_no_panel_of_the_slices_is_cut(study: Study) -> None:
    with house_style():
        assert faults(_figure(study)) == []


def test_a_study_alone_is_a_page(study: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "none").mkdir()
    with pytest.raises(SystemExit) as ended:
        main(["report", "--runs", str(tmp_path / "none"), "--study", str(study.folder), "--out", str(tmp_path)])
    assert not ended.value.code
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "No finished run on the test images" in text and study.digest in text


def test_what_comes_out_is_in_the_digest_and_times_are_not(study: Study) -> None:
    before = study.digest
    first, *others = study.trials
    write_trials(study.folder, [Trial(**{**vars(first), "seconds": 999.0}), *others])
    assert read_study(study.folder).digest == before
    write_trials(study.folder, [Trial(**{**vars(first), "miou": 60.1}), *others])
    assert read_study(study.folder).digest != before


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("trials.csv", "60.0000", "nan", "trial 0 of er is damaged"),
        ("trials.csv", "done", "begun", "trial 0 of er is damaged"),
        ("trials.csv", "strategy,", "method,", "its columns are not strategy, trial"),
        ("study.yaml", "schema: 1", "schema: 2", "not what a study was asked for"),
        ("study.yaml", "trials: 2", "trials: two", "'trials' must be of type int"),
        ("study.yaml", "first_steps", "steps", "it lacks 'first_steps'"),
        ("importance.csv", "0.7500", "much", "not a number"),
    ],
)
def test_damaged_files_are_named(study: Study, file: str, old: str, new: str, said: str) -> None:
    path = study.folder / file
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(RecordError, match=f"{file}: .*{said}"):
        read_study(study.folder)
