"""A sweep that is half done says so wherever its numbers stand: which runs are in none of them."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from test_reports import SCENARIO, tex, write_iou, write_run

from bench.cli.entry import main
from reports.notes import unfinished_note
from reports.numbered import write_numbered
from reports.page.page import write_page
from reports.records import find_runs, find_unfinished
from reports.scenario_tables import write_tables

TOLD = "4 of 7 runs are not finished and in no number: er seed 2; mib seeds 0, 1, 2."


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Of three methods and up to three seeds what a stopped `bench run` leaves."""
    runs = tmp_path / "runs"
    config = {"memory": {"size": 100}, "incremental": {"lr": 0.001}}
    for strategy, seed in (("er", 0), ("er", 1), ("ours", 0)):
        write_iou(runs, 40 + seed, strategy=strategy, seed=seed, config=config)
    write_run(runs, finish=False, strategy="er", seed=2, config=config)
    for seed in (2, 0, 1):
        write_run(runs, steps=(), finish=False, strategy="mib", seed=seed, config=config)
    return runs


def test_what_was_asked_for_and_has_no_end_is_found(sweep: Path) -> None:
    """Not so a directory without a spec that can be read, nor a copy of the code beside the runs."""
    (sweep / SCENARIO / "er" / "other").mkdir()
    (sweep / SCENARIO / "er" / "other" / "spec.yaml").write_text("half of a")
    hidden = sweep / ".slurm" / "code"
    hidden.mkdir(parents=True)
    (hidden / "spec.yaml").write_bytes((sweep / SCENARIO / "mib" / "a1-seed0" / "spec.yaml").read_bytes())
    found = [(run.spec["strategy"], run.spec["seed"]) for run in find_unfinished(sweep)]
    assert found == [("er", 2), ("mib", 0), ("mib", 1), ("mib", 2)]
    assert find_unfinished(sweep / SCENARIO / "mib" / "a1-seed1")[0].spec["seed"] == 1
    assert find_unfinished(sweep / "none") == []


def said(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[str, list[str]]:
    with pytest.raises(SystemExit, match="0"):
        main(list(map(str, arguments)))
    out, err = capsys.readouterr()
    return out, [line for line in err.splitlines() if "not finished" in line]


@pytest.mark.parametrize("command", [["tables"], ["tables", "costs"], ["curves", "curves"], ["report"]])
def test_every_command_that_reads_a_sweep_says_which_runs_are_missing(
    command: list[str], sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, notes = said(capsys, *command, "--runs", sweep, "--out", tmp_path / "out")
    assert notes == [f"note: {SCENARIO}: {TOLD}"]


def test_so_it_does_where_nothing_is_finished(sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for done in sweep.rglob("done"):
        done.unlink()
    _, notes = said(capsys, "report", "--runs", sweep, "--out", tmp_path)
    told = "7 of 7 runs are not finished and in no number: er seeds 0, 1, 2; mib seeds 0, 1, 2; ours seed 0."
    assert notes == [f"note: {SCENARIO}: {told}"]


def test_captions_name_them_and_the_csv_has_their_seeds(sweep: Path, tmp_path: Path) -> None:
    runs, unfinished = find_runs(sweep), find_unfinished(sweep)
    table, text = write_tables(runs, tmp_path / "out", ["csv", "markdown"], unfinished=unfinished)
    rows = {row["strategy"]: row for row in csv.DictReader(table.open())}
    assert {name: (row["n"], row["seeds"], row["unfinished"]) for name, row in rows.items()} == {
        "er": ("2", "0 1", "2"),
        "mib": ("0", "", "0 1 2"),
        "ours": ("1", "0", ""),
    }
    assert TOLD.replace("er seed", "`er` seed").replace("mib seeds", "`mib` seeds") in text.read_text()
    assert "not finished" not in tex(runs, tmp_path / "all")


def test_a_table_of_the_paper_names_those_that_it_needs(tmp_path: Path) -> None:
    """Not others in the folder: of another method, or another memory."""
    scenario = "shapes-15-1-disjoint"
    write_run(tmp_path, steps=(), finish=False, scenario=scenario, strategy="er", seed=1)
    write_run(tmp_path, steps=(), finish=False, scenario=scenario, strategy="er(unlabelled=void)", seed=1)
    config = {"memory": {"size": 7}, "incremental": {"lr": 0.001}, "seed": 0}
    write_run(tmp_path, steps=(), finish=False, scenario=scenario, strategy="mib", hash="b2", config=config)
    unfinished = find_unfinished(tmp_path)
    [table] = write_numbered([1], [], tmp_path / "out", ["markdown"], on="shapes", unfinished=unfinished)
    assert f"`{scenario}`: 1 of 1 runs are not finished and in no number: `er` seed 1." in table.read_text()


def test_the_page_says_so_at_its_top(sweep: Path, tmp_path: Path) -> None:
    page = write_page(find_runs(sweep), tmp_path / "page.html", unfinished=find_unfinished(sweep)).read_text()
    note = f'<p class="note" role="note">{SCENARIO}: {TOLD}</p>'
    assert page.count(note) == 1 and page.index(note) < page.index("<table")


def test_many_are_counted(tmp_path: Path) -> None:
    for number in range(8):
        write_run(tmp_path, steps=(), finish=False, strategy=f"er(a={number})", hash=f"h{number}")
    note = unfinished_note(SCENARIO, find_unfinished(tmp_path), 2)
    assert note.startswith("8 of 10 runs are not finished") and note.endswith("`er(a=4)` seed 0; 3 more.")
