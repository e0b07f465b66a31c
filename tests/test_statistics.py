"""Differences are paired over common seeds, ranks taken over common scenarios, and what is left out is told."""

from __future__ import annotations

import math
import statistics
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from finished_runs.make import RUNS

from reports.files import RecordError
from reports.records import Run, find_runs
from reports.statistics import paired_differences, ranks
from reports.statistics_tables import write_statistics
from reports.tables import frame


def steps(values: dict[tuple[str, str], dict[int, float]], settings: str = "", **columns: Any) -> pd.DataFrame:
    """What `frame` gives for runs of two steps: by scenario and strategy, each seed's last value of every column."""
    rows = [
        {
            **{"scenario": scenario, "strategy": strategy, "variant": settings, "settings": settings},
            **{"seed": seed, "step": step},
            **{"background_in_mean": True, "new": value if step else math.nan},
            **{f"{name}{end}": value if step else 99.0 for name in ("old", "miou", "imiou", "avg") for end in ENDS},
            **columns,
        }
        for (scenario, strategy), by_seed in values.items()
        for seed, value in by_seed.items()
        for step in (1, 0)
    ]
    return pd.DataFrame(rows)


ENDS = ("", "_without_background")
VOC, ADE = "voc-15-1-disjoint", "ade-50-50-disjoint"


def only(rows: pd.DataFrame, **wanted: Any) -> dict[Any, Any]:
    (row,) = [row for row in rows.to_dict("records") if all(row[key] == value for key, value in wanted.items())]
    return row


# ---------------------------------------------------------------- paired differences


def test_the_interval_is_that_of_the_differences_not_of_the_means():
    """Seeds move both methods by tens of points; their differences are 1, 2 and 3."""
    ours, er = {0: 10.0, 1: 40.0, 2: 70.0}, {0: 9.0, 1: 38.0, 2: 67.0}
    row = only(paired_differences(steps({(VOC, "ours"): ours, (VOC, "er"): er})), column="miou")
    half = 4.302652729911275 * statistics.stdev([1, 2, 3]) / math.sqrt(3)  # t(0.975, 2)
    assert (row["strategy"], row["reference"], row["n"], row["seeds"]) == ("er", "ours", 3, "0 1 2")
    assert row["all_seeds"] and row["difference"] == pytest.approx(-2)
    assert (row["low"], row["high"]) == (pytest.approx(-2 - half), pytest.approx(-2 + half))


def test_a_seed_that_only_one_has_is_left_out_and_told():
    ours, er = {0: 50.0, 1: 52.0, 7: 99.0}, {0: 51.0, 1: 54.0, 3: 0.0}
    row = only(paired_differences(steps({(VOC, "ours"): ours, (VOC, "er"): er})), column="new")
    assert (row["n"], row["seeds"], row["all_seeds"]) == (2, "0 1", False)
    assert row["difference"] == pytest.approx(1.5)


def test_one_common_seed_has_no_interval_and_none_has_no_difference():
    rows = paired_differences(steps({(VOC, "ours"): {0: 50.0}, (VOC, "er"): {0: 40.0}, (VOC, "mib"): {1: 60.0}}))
    one, none = (only(rows, strategy=name, column="old") for name in ("er", "mib"))
    assert one["difference"] == -10 and one["n"] == 1 and math.isnan(one["low"]) and math.isnan(one["high"])
    assert none["n"] == 0 and none["seeds"] == "" and math.isnan(none["difference"]) and not none["all_seeds"]


def test_a_setting_is_compared_with_the_same_setting_only():
    small, large = ({(VOC, "ours"): {0: 50.0}, (VOC, "er"): {0: value}} for value in (30.0, 45.0))
    both = pd.concat([steps(small, "memory.size=20"), steps(large, "memory.size=100")])
    both = both[~((both["strategy"] == "ours") & (both["variant"] == "memory.size=20"))]
    rows = paired_differences(both)
    assert math.isnan(only(rows, variant="memory.size=20", column="miou")["difference"])
    assert only(rows, variant="memory.size=100", column="miou")["difference"] == -5


def test_another_reference_can_be_chosen_and_no_runs_give_no_rows():
    rows = paired_differences(steps({(VOC, "ours"): {0: 50.0}, (VOC, "er"): {0: 40.0}}), reference="er")
    assert only(rows, column="miou")["difference"] == 10
    assert paired_differences(frame([])).empty and ranks(frame([])).empty


def test_the_background_is_left_out_where_the_convention_says_so():
    table = steps({(VOC, "ours"): {0: 50.0}, (VOC, "er"): {0: 40.0}}, background_in_mean=False)
    table.loc[table["strategy"] == "er", "miou_without_background"] = 45.0
    assert only(paired_differences(table), column="miou")["difference"] == -5


# ---------------------------------------------------------------- ranks


def test_ranks_are_averaged_over_the_scenarios_that_all_methods_have():
    values = {
        **{(VOC, "er"): {0: 40.0}, (VOC, "mib"): {0: 50.0}, (VOC, "ours"): {0: 60.0}},
        **{(ADE, "er"): {0: 20.0}, (ADE, "mib"): {0: 30.0}, (ADE, "ours"): {0: 30.0}},
        **{("voc-19-1-disjoint", "er"): {0: 99.0}},
        **{(VOC, "joint"): {0: 90.0}, (ADE, "joint"): {0: 90.0}, (ADE, "ours(sampling=uniform)"): {0: 80.0}},
    }
    rows = ranks(steps(values))
    found = {row["strategy"]: row["mean_rank"] for row in rows.to_dict("records") if row["column"] == "miou"}
    assert found == {"ours": (1 + 1.5) / 2, "mib": (2 + 1.5) / 2, "er": 3}
    row = only(rows, column="miou", strategy="ours")
    assert (row["scenarios"], row["over"], row["seeds"]) == (2, f"{ADE} {VOC}", "0") and row["all_seeds"]


def test_ranks_go_by_the_seeds_that_all_methods_have_and_say_so():
    """Over all its seeds er would be ahead."""
    rows = ranks(steps({(VOC, "er"): {0: 40.0, 5: 99.0}, (VOC, "ours"): {0: 60.0}}))
    assert only(rows, column="miou", strategy="ours")["mean_rank"] == 1
    assert {(row["seeds"], row["all_seeds"]) for row in rows.to_dict("records")} == {("0", False)}


def test_scenarios_with_other_seeds_are_told():
    values = {(VOC, "er"): {0: 1.0}, (VOC, "ours"): {0: 2.0}, (ADE, "er"): {3: 1.0}, (ADE, "ours"): {3: 2.0}}
    row = only(ranks(steps(values)), column="miou", strategy="er")
    assert (row["seeds"], row["all_seeds"], row["mean_rank"]) == ("3; 0", False, 2)


def test_embedded_and_published_data_share_no_rank():
    values = {
        **{(VOC, "er"): {0: 1.0}, (VOC, "ours"): {0: 2.0}},
        **{("shapes-15-1-disjoint", "er"): {0: 2.0}, ("shapes-15-1-disjoint", "ours"): {0: 1.0}},
    }
    rows = ranks(steps(values))
    best = {(row["data"], row["strategy"]) for row in rows.to_dict("records") if row["mean_rank"] == 1}
    assert best == {("published", "ours"), ("embedded", "er")}


# ---------------------------------------------------------------- files


@pytest.fixture(scope="module")
def finished() -> list[Run]:
    return [run for run in find_runs(RUNS) if run.spec["scenario"].startswith("voc-15-1")]


def test_memory_sizes_have_files_of_their_own(tmp_path: Path, finished: list[Run]):
    written = write_statistics(finished, tmp_path, ["csv", "markdown"])
    assert [path.name for path in written] == [
        f"{name}-memory-{size}{suffix}"
        for size in (20, 50, 100)
        for name in ("differences", "ranks")
        for suffix in (".csv", ".md")
    ]
    small = pd.read_csv(tmp_path / "differences-memory-20.csv")
    assert set(small["n"]) == {2} and small["variant"].isna().all() and len(small) == 7 * 5
    text = (tmp_path / "differences-memory-100.md").read_text()
    assert "Paired differences to `ours` on `voc-15-1-disjoint` with memory 100" in text
    assert text.count("| 0, 1, 2 |") == 7


def test_conventions_are_not_mixed_and_formats_are_known(tmp_path: Path, finished: list[Run]):
    first, *others = finished
    odd = Run(
        first.path,
        {**first.spec, "conventions": {**first.spec["conventions"], "future_classes": "ignore"}},
        first.steps,
    )
    with pytest.raises(RecordError, match=f"ignore in {first.path}"):
        write_statistics([odd, *others], tmp_path)
    with pytest.raises(ValueError, match="'word': allowed are csv, latex, markdown, html"):
        write_statistics(finished, tmp_path, ["word"])
    assert write_statistics([], tmp_path) == []
