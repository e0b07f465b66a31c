"""The literature's numbers are transcribed right, told apart by how they were made, and set beside their like alone."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from finished_runs.make import RUNS

import reports
from bench.cli.entry import main
from bench.settings.plain_yaml import AmbiguousYamlError, parse_yaml
from reports.compared import compared_notes, write_compared
from reports.files import RecordError
from reports.literature import (
    EM_PAPER,
    Published,
    all_facts,
    all_rows,
    published_rows,
    published_scenarios,
    read_literature,
)
from reports.literature_tables import write_published
from reports.records import Run, find_runs

OFFLINE = Path(__file__).resolve().parents[2] / "shared" / "OFFLINE.md"
SCENARIO = "voc-15-1-disjoint"
PLOP = """
protocol: offline
backbone: DeepLab
background: with
where: a repository
sources: {README: {voc-15-1-overlapped: [{method: plop, all: 54.64}]}}
"""
NUMBER = re.compile(r"(?<![\w.#-])\d+(?:\.\d+)?(?![\w-])")


# ---------------------------------------------------------------- the transcription, read again by other means


@pytest.fixture(scope="module")
def sections() -> dict[str, list[list[str]]]:
    """The rows of the tables below `## 4.1` ... `## 4.4`, cell by cell, and the lines of hIoU and reruns as rows."""
    if not OFFLINE.is_file():
        pytest.skip(f"the field's numbers are not at {OFFLINE}")
    found: dict[str, list[list[str]]] = {}
    for part in re.split(
        r"^## ", OFFLINE.read_text(encoding="utf-8").split("\n# 4.")[1].split("\n# 5.")[0], flags=re.M
    ):
        found[part[:3]] = [
            [cell.strip() for cell in line.strip("|").split("|")] for line in part.splitlines()[1:] if line.strip()
        ]
    return found


def numbers_of(cell: str) -> list[float]:
    """The numbers of a cell; dates, `30,4` and what is said in words apart."""
    plain = re.sub(
        r"\d{4}-\d\d-\d\d|\([^)]*README[^)]*\)|\b(?:seed|KD) \d+|steps [\d., ]*\d", "", cell.replace("*", "")
    )
    return [float(number) for number in NUMBER.findall(plain)]


def methods_of(cell: str) -> list[str]:
    known = {row.method for row in all_rows()}
    return [name for name in map(str.strip, re.sub(r"\(.*?\)|\*", "", cell).split(",")) if name in known]


def cells_by_scenario(rows: list[list[str]], prefix: str, setup: str) -> Iterator[tuple[str, str, float]]:
    """Each number below a header that is a split, behind its scenario and its method, of several the one in place."""
    splits: list[str] = []
    for cells in rows:
        heads = [re.match(r"\d+-\d+$|\d+-\d+(?=: )", cell) for cell in cells]
        if cells[0] == "method":
            splits = [head[0] if head else "" for head in heads]
            setup = "disjoint" if any(":" in cell for cell in cells) else setup
        elif len(cells) > 1 and not set(cells[0]) <= set("-|: "):
            names = methods_of(cells[0])
            for split, cell in zip(splits, cells, strict=True):
                for place, value in enumerate(numbers_of(cell) if split else []):
                    yield f"{prefix}-{split}-{setup}", names[place % len(names)], value


def literature() -> list[Published]:
    return [row for row in all_rows() if not row.source.startswith(EM_PAPER)]


@pytest.mark.parametrize(
    ("section", "prefix", "setup"),
    [("4.1", "voc", "overlapped"), ("4.2", "voc", "disjoint"), ("4.3", "ade", "overlapped")],
)
def test_the_tables_hold_what_the_files_hold_and_no_more(sections, section, prefix, setup):
    read = set(cells_by_scenario(sections[section], prefix, setup))
    kept = {
        (row.scenario, row.method, value)
        for row in literature()
        if row.source != "MiB#22" and row.method != "base step"
        for column, value in row.values.items()
        if row.scenario.startswith(prefix) and (prefix == "ade" or row.scenario.endswith(setup))
        if (section, column) != ("4.1", "hiou")  # in a line below the table
    }
    assert len(read) > 100
    assert read - kept == set() and kept - read == set()


def test_the_lines_below_the_tables_too(sections):
    [hiou] = [cells[0] for cells in sections["4.1"] if cells[0].startswith("hIoU overlapped")]
    rows = [row for row in literature() if "hiou" in row.values and re.match("voc.*overlapped", row.scenario)]
    assert sorted(numbers_of(hiou)) == sorted(row.values["hiou"] for row in rows)
    [rerun] = [cells[0] for cells in sections["4.2"] if "MiB#22" in cells[0]]
    found = [value for row in literature() if row.source == "MiB#22" for value in row.values.values()]
    assert sorted(numbers_of(rerun)) == sorted([*found, 3])  # the 3 points between seeds


def test_the_anchors_on_the_way_are_the_numbers_after_each_step(sections):
    lines = [cells for cells in sections["4.4"] if len(cells) == 3]
    read = {value for cells in lines for cell in cells[1:] for value in numbers_of(cell)}
    kept = {value for row in literature() for value in (*row.after, *filter(None, [row.spread]))}
    facts = {value for fact in all_facts() for value in numbers_of(fact.text)}
    assert kept - read == set()
    assert read - kept - facts == {5, 67.21}  # higher than the paper by 5; PLOP's avg


def test_every_source_and_place_is_one_that_was_read(sections):
    text = OFFLINE.read_text(encoding="utf-8").replace("`", "")
    for row in literature():
        assert row.source in text and row.where.removesuffix(", threads") in text


# ---------------------------------------------------------------- what makes a row


def test_old_and_new_make_all_with_or_without_the_background_as_the_row_says():
    for row in literature():
        _, base, _, _ = row.scenario.split("-")
        classes = 20 if row.scenario.startswith("voc") else 150
        if not {"old", "new", "all"} <= set(row.values) or row.background == "unknown":
            continue
        first = int(base) + row.background.startswith("with") * (not row.background.startswith("without"))
        later = classes - int(base)
        mean = (first * row.values["old"] + later * row.values["new"]) / (first + later)
        rounding = 10.0 ** -max(len(f"{row.values[name]:g}".partition(".")[2]) for name in ("old", "new", "all"))
        assert abs(mean - row.values["all"]) <= 1.1 * rounding or row.doubt, row


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("54.64", "154.64", "a percentage, not 154.64"),
        ("54.64", "'54.64'", "a percentage, not '54.64'"),
        ("54.64", ".nan", "a percentage, not nan"),
        ("54.64", "true", "a percentage, not True"),
        ("all: 54.64", "mean: 54.64", "unknown mean"),
        ("all: 54.64", "memory: 7", "no number"),
        ("all: 54.64", "all: 1, memory: -1", "memory is a number of images"),
        ("method: plop, ", "", "method: a text, not None"),
        ("offline", "ofline", "allowed are offline, online, joint"),
        ("background: with", "background: yes", "background: a text, not True"),
        ("where: a repository", "", "where: a text, not None"),
        ("voc-15-1-overlapped", "voc-15-1", "no scenario such as"),
        ("}]}}", "}, {method: plop, all: 1}]}}", "plop twice"),
        ("sources", "source", "sources and facts"),
        ("backbone: DeepLab", "backbone: [", "not plain YAML"),
    ],
)
def test_a_malformed_file_is_refused_in_one_line(old, new, told):
    assert [row.values for row in read_literature(PLOP, "plop.yaml")[0]] == [{"all": 54.64}]
    with pytest.raises(RecordError, match=re.escape(told)) as refused:
        read_literature(PLOP.replace(old, new), "plop.yaml")
    assert "\n" not in str(refused.value) and str(refused.value).startswith(("plop.yaml", "'voc-15-1'"))


# ---------------------------------------------------------------- tables


def test_two_papers_numbers_of_one_method_stand_side_by_side_and_doubtful_ones_say_why(tmp_path):
    [path] = write_published("voc-10-1-disjoint", ["rcil"], tmp_path, ["csv"])
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert [(row["source"], row["all"]) for row in rows] == [("RCIL README", "18.2"), ("RCIL csv", "23.69")]
    assert "ends at 23.69" in rows[0]["doubt"]
    mib = [row.source for row in published_rows("voc-19-1-disjoint")]
    methods = [row.method for row in published_rows("voc-19-1-disjoint")]
    assert len([place for place, name in enumerate(methods) if methods[place - 1] != name]) == len(set(methods))
    assert {"MiB voc-tab.png", f"{EM_PAPER}, Table 1"} <= set(mib)
    [doubtful] = [row for row in published_rows("voc-19-1-disjoint") if row.method == "mib" and row.doubt]
    assert doubtful.protocol == "online" and "66.09" in doubtful.doubt


def test_the_command_prints_and_writes_or_names_what_there_is(tmp_path, capsys):
    ask = ["tables", "published", "--out", str(tmp_path), "--format", "csv,latex,markdown,html", "--scenario"]
    with pytest.raises(SystemExit, match="0"):
        main([*ask, "voc-10-1-disjoint"])
    printed = capsys.readouterr().out
    assert "23.69" in printed and "csseg model zoo" in printed and len(list(tmp_path.iterdir())) == 4
    for wrong, told in (("voc-9-1-disjoint", ", ".join(published_scenarios())), ("voc-10-1", "voc-10-1-disjoint")):
        with pytest.raises(SystemExit, match="2"):
            main([*ask, wrong])
        said = capsys.readouterr().err
        assert told in said and said.count("\n") == 1


def test_a_scenario_of_which_nothing_is_published_is_refused_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["tables", "voc-12-4-disjoint", "--compare", "--runs", str(RUNS), "--out", str(tmp_path / "tables")])
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("bench: no published numbers of scenario 'voc-12-4-disjoint'; there are")
    assert not (tmp_path / "tables").exists()


@pytest.mark.parametrize("file", sorted((Path(reports.__file__).parent / "literature").glob("*.yaml")), ids=str)
def test_no_file_of_the_literature_has_a_key_twice(file: Path) -> None:
    assert parse_yaml(file.read_text(encoding="utf-8"))
    with pytest.raises(AmbiguousYamlError):
        parse_yaml(file.read_text(encoding="utf-8") + "\nsources: {}\n")


@pytest.mark.parametrize("asked", [["--methods", "mib"], ["costs", "--compare"], ["1", "--scenario", SCENARIO]])
def test_what_goes_with_nothing_is_refused(asked, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["tables", *asked, "--runs", str(tmp_path), "--out", str(tmp_path)])
    assert capsys.readouterr().err.count("\n") == 1


@pytest.fixture(scope="module")
def runs() -> list[Run]:
    return find_runs(RUNS / "voc-19-1-disjoint")


def test_online_runs_stand_beside_online_numbers_alone_and_the_caption_says_so(runs, tmp_path):
    scenario = "voc-19-1-disjoint"
    table, page = write_compared(runs, tmp_path, ["csv", "markdown"], [scenario])
    rows = list(csv.DictReader(table.read_text().splitlines()))
    offline = [row for row in published_rows(scenario) if row.protocol == "offline"]
    assert {row["protocol"] for row in rows} == {"online"}
    assert len([row for row in rows if row["source"] == f"{EM_PAPER}, Table 1"]) == 8
    assert f"{len(offline)} offline" in page.read_text() and "not comparable with these runs" in page.read_text()
    place = [row["method"] for row in rows].index("mir")
    ours, theirs = rows[place : place + 2]
    own = [run for run in runs if run.spec["strategy"] == "mir"]
    assert float(ours["all"]) == pytest.approx(sum(run.steps[-1]["miou"] for run in own) / len(own), abs=1e-4)
    assert theirs["all"] == "65.61" and theirs["source"].startswith(EM_PAPER)


def test_a_method_with_a_memory_of_its_own_has_its_size(runs, tmp_path, monkeypatch):
    """As `ssul-m` and `dkd-m`, whose memory is no setting of the run."""
    run = next(run for run in runs if run.spec["strategy"] == "mir")
    without = replace(run, spec={**run.spec, "config": {**run.spec["config"], "memory": {"size": 0}}})
    kept = [{**cost, "memory_images": 100.0} for cost in run.costs]
    monkeypatch.setattr(Run, "costs", property(lambda self: kept))
    found = []
    for own in (run, without):
        [table] = write_compared([own], tmp_path, ["csv"], ["voc-19-1-disjoint"])
        rows = csv.DictReader(table.read_text().splitlines())
        found += [row["memory"] for row in rows if row["where"] == "this harness"]
    assert found == [str(run.spec["config"]["memory"]["size"]), "100"]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"published_train_images": [10034, 548]}, "training images a step, published are [10034, 548]"),
        ({"conventions": {"evaluate_on": "valid"}}, "is evaluated on valid, not on the test images"),
    ],
)
def test_runs_on_other_images_than_the_published_stand_beside_nothing_and_that_is_said(runs, changes, told, tmp_path):
    own = replace(runs[0], spec={**runs[0].spec, **changes})
    assert write_compared([own], tmp_path, ["csv"], ["voc-19-1-disjoint"]) == []
    [note] = compared_notes([own])
    assert note.startswith("`voc-19-1-disjoint`: nothing published stands beside its runs: ") and told in note


def test_a_checkpoint_picked_on_the_test_images_and_an_order_that_is_not_told_are_said(tmp_path):
    [ssul] = [row for row in published_rows("voc-2-1-overlapped") if row.method == "ssul"]
    assert "validation images, which are the test images" in ssul.doubt
    [path] = write_published("ade-100-10-disjoint", ["mib"], tmp_path, ["markdown"])
    assert "does not say which class order" in path.read_text()
