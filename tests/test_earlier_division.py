"""Runs whose disjoint dense steps were divided by an earlier rule are named as such and share nothing with others."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.cli.entry import main
from reports.class_heatmap import write_class_heatmap
from reports.cost_accuracy import write_cost_accuracy
from reports.costs import write_costs
from reports.curves import write_curves
from reports.division import EARLIER_DIVISION, by_earlier_division
from reports.files import RecordError
from reports.forgetting import write_forgetting
from reports.numbered import write_numbered
from reports.page.page import write_page
from reports.records import Run, find_runs
from reports.run_writer import RunWriter
from reports.scenario_tables import write_tables
from reports.spec import SCHEMA

SIZES = {"100-50": [100, 50], "100-10": [100, 10, 10, 10, 10, 10], "50-50": [50, 50, 50], "3-1": [3, 1, 1]}


def spec_of(split: str, strategy: str, split_hash: str, division: str | None) -> dict[str, Any]:
    ends = np.cumsum([1, *SIZES[split]]).tolist()
    steps = [{"step": t, "classes": list(range(first, last))} for t, (first, last) in enumerate(pairwise(ends))]
    return {
        "schema": SCHEMA,
        "scenario": f"ade-{split}-disjoint",
        "strategy": strategy,
        "seed": 0,
        "hash": split_hash,
        "method": {"name": strategy, "parameters": {}},
        "config": {"memory": {"size": 100}},
        "conventions": {"background_in_mean": True},
        "class_names": ["background", *(f"c{c}" for c in range(1, ends[-1]))],
        "steps": steps,
        "split_hash": split_hash,
        **({} if division is None else {"division": division}),
    }


def write_run(out: Path, split: str, strategy: str, split_hash: str, division: str | None = None) -> Path:
    """Write a run; one that tells no division is of the time of the earlier one."""
    spec = spec_of(split, strategy, split_hash, division)
    path = out / spec["scenario"] / strategy / f"{split_hash}-seed0"
    writer = RunWriter(path)
    writer.start(spec)
    for known in np.cumsum([1, *SIZES[split]])[1:]:
        writer.add_step(np.eye(known, dtype=np.int64), {"incoming_batches": 1, "seconds": 1.0, "forward_passes": 1})
    writer.finish()
    return path


Write = Callable[[list[Run], Path], object]
WRITERS: list[Write] = [write_tables, write_costs, write_curves, lambda runs, out: write_numbered([3], runs, out)]


@pytest.mark.parametrize(
    ("scenario", "sizes", "earlier"),
    [
        ("ade-100-50-disjoint", [100, 50], True),
        ("ade-100-10-disjoint", [100] + [10] * 5, True),
        ("ade-100-10-disjoint:order=mib-b", [100] + [10] * 5, True),
        ("scenes-100-10-sequential", [100] + [10] * 5, True),
        ("folder-6-2-disjoint:rule=ade", [6, 2, 2], True),
        ("ade-50-50-disjoint", [50, 50, 50], False),
        ("ade-60+90-disjoint", [60, 90], False),
        ("ade-110-40-disjoint", [110, 40], False),
        ("ade-100-10-overlapped", [100] + [10] * 5, False),
        ("ade-100-10-disjoint:split=ab12cd34", [100] + [10] * 5, False),
        ("ade-100-10-disjoint:rule=voc", [100] + [10] * 5, False),
        ("voc-15-1-disjoint", [15, 1, 1, 1, 1, 1], False),
    ],
)
def test_what_was_divided_otherwise(scenario: str, sizes: list[int], earlier: bool) -> None:
    steps = [{"classes": [0] * size} for size in sizes]
    old = {"scenario": scenario, "steps": steps, "split_hash": "x"}
    assert by_earlier_division(old) is earlier
    assert not by_earlier_division({**old, "division": "ade"})


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("split", ["100-50", "100-10"])
def test_runs_by_both_divisions_share_no_table_and_no_figure(tmp_path: Path, split: str, write: Write) -> None:
    """Even as the same strategy, where they would fill one cell."""
    old = write_run(tmp_path, split, "er", "old")
    for strategy in ("er", "ours"):
        write_run(tmp_path, split, strategy, "new", "ade")
    with pytest.raises(RecordError) as error:
        write(find_runs(tmp_path), tmp_path / "tables")
    expected = f"ade-{split}-disjoint: split_hash is new in 2 of 3 runs, but old ({EARLIER_DIVISION}) in {old}"
    assert str(error.value) == expected


@pytest.mark.parametrize("write", WRITERS)
def test_50_50_is_divided_as_ever(tmp_path: Path, write: Write) -> None:
    write_run(tmp_path, "50-50", "er", "same")
    write_run(tmp_path, "50-50", "ours", "same", "ade")
    write(find_runs(tmp_path), tmp_path / "tables")


def test_tables_and_the_page_name_the_earlier_division_where_it_is_the_only_one(tmp_path: Path) -> None:
    write_run(tmp_path, "100-50", "er", "old")
    runs = find_runs(tmp_path)
    write_run(tmp_path / "few classes", "3-1", "er", "old")
    page = write_page(find_runs(tmp_path / "few classes"), tmp_path / "page.html")
    [table] = write_tables(runs, tmp_path / "out", ["markdown"])
    [numbered] = write_numbered([3], runs, tmp_path / "out", ["markdown"])
    for path in (table, numbered, page):
        assert EARLIER_DIVISION in path.read_text()


def test_every_figure_says_so_too(tmp_path: Path) -> None:
    write_run(tmp_path, "3-1", "er", "old")
    runs = find_runs(tmp_path)
    for write in (write_curves, write_forgetting, write_class_heatmap, write_cost_accuracy):
        path = write(runs, tmp_path / "out", ["svg"])[0]
        words = " ".join(re.findall(r"<text[^>]*>([^<]*)</text>", path.read_text()))
        assert words.count(EARLIER_DIVISION) == 1, path


def test_tables_of_todays_division_say_nothing_of_another(tmp_path: Path) -> None:
    write_run(tmp_path, "3-1", "er", "new", "ade, as told")
    runs = find_runs(tmp_path)
    page = write_page(runs, tmp_path / "page.html").read_text()
    assert "ade, as told" in page
    texts = [path.read_text() for path in write_tables(runs, tmp_path / "out", ["markdown", "latex"])]
    assert not any(EARLIER_DIVISION in text for text in (page, *texts))


def test_an_unfinished_run_does_not_go_on_and_status_names_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (write_run(tmp_path, "100-10", "er", "old") / "done").unlink()
    write_run(tmp_path, "100-10", "ours", "old")
    write_run(tmp_path, "50-50", "ours", "same")
    with pytest.raises(SystemExit) as ended:
        main(["run-one", str(tmp_path / "ade-100-10-disjoint" / "er" / "old-seed0")])
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert EARLIER_DIVISION in error and error.count("\n") == 1
    with pytest.raises(SystemExit):
        main(["status", "--runs", str(tmp_path)])
    out = capsys.readouterr().out
    assert f"2 of 3 runs: {EARLIER_DIVISION}\n" in out
    assert f"{EARLIER_DIVISION}, it does not go on\n" in out
