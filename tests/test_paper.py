"""The published numbers are the paper's, and the listed contradictions are all that the rules find."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import pytest

from reports.grids import LAYOUTS, needed
from reports.paper import disagreements, disagreements_markdown, published, published_value

TEXT = Path(__file__).resolve().parents[2] / "shared" / "paper.txt"
NAMES = {
    **{"er": "ER", "lwf-mc": "LwF.MC*", "icarl": "iCaRL", "agem": "AGEM"},
    **{"mir": "MIR", "mib": "MiB*", "coriseg": "CoRiSeg", "ours": "Ours"},
}
# Classes of each group of columns, the background among the old.
SIZES = {
    "voc-19-1": {"old": 20, "new": 1},
    "voc-15": {"old": 16, "new": 5},
    "ade-100-50": {"old": 101, "new": 50},
    "ade-100-10": {"old": 101, **{f"step_{number}": 10 for number in range(1, 6)}},
    "ade-50-50": {"old": 51, "step_1": 50, "step_2": 50},
}
# Of CBES, cosine normalisation and dynamic sampling; the composite loss is told by its two values.
INCREMENTS = [r"baseline ER by ([\d.]+)", r"imIoU by\s+([\d.]+\d)", r"22\.85\(\+([\d.]+)\)"]
ER_OF_TABLE_4 = "ours(head=linear,loss=cross-entropy,memory=reservoir,sampling=uniform)"


@pytest.fixture(scope="module")
def text() -> str:
    if not TEXT.is_file():
        pytest.skip(f"the paper's text is not at {TEXT}")
    return TEXT.read_text(encoding="utf-8")


def table_text(text: str, table: int) -> str:
    return text[text.index(f"Table {table}: ") :]


def numbers_of_row(text: str, table: int, strategy: str) -> list[float]:
    row = re.search(rf"^{re.escape(NAMES[strategy])}(?: \[\d+\])? ([\d. ]+)$", table_text(text, table), re.MULTILINE)
    assert row is not None
    return [float(number) for number in row[1].split()]


@pytest.mark.parametrize("table", [1, 2, 3])
def test_every_number_stands_in_the_paper_in_its_row_and_order(text, table):
    for strategy in NAMES:
        rows = published(table).values()
        assert [value for row in rows for value in row[strategy].values()] == numbers_of_row(text, table, strategy)


def test_the_ablation_is_the_paper_s(text):
    ticks = re.findall(r"^((?:[✗✓] ){4})([\d.]+)$", table_text(text, 4), re.MULTILINE)
    ours = published(4)["ade-50-50-disjoint"]
    assert [float(number) for _, number in ticks] == [row["imiou"] for row in ours.values()]
    assert [tuple(marks.split()) for marks, _ in ticks] == [row.names for row in LAYOUTS[4].rows]
    assert list(ours) == [row.strategy for row in LAYOUTS[4].rows]


@pytest.mark.parametrize(("table", "count"), [(1, 144), (2, 48), (3, 112), (4, 5)])
def test_every_cell_of_a_table_has_its_published_number(table, count):
    found = [
        published_value(table, f"{LAYOUTS[table].real}-{block.split}", block.memory, row.strategy, column)
        for row in LAYOUTS[table].rows
        for block in LAYOUTS[table].blocks
        for column, _ in block.columns
    ]
    assert len(found) == count and None not in found
    assert published_value(table, "shapes-15-1-disjoint", 7, "er", "miou") is None


def test_there_is_no_fifth_table():
    with pytest.raises(ValueError, match="table 5: the paper's tables are 1, 2, 3, 4"):
        published(5)


# ---------------------------------------------------------------- contradictions


def listed(check: str) -> dict[tuple[int, str, str], tuple[float, float]]:
    return {
        (entry.cells["table"], entry.cells["scenario"], entry.cells["strategy"]): tuple(entry.values.values())
        for entry in disagreements()
        if entry.check == check
    }


def approximately(found: dict) -> dict:
    return {key: pytest.approx(values, abs=0.006) for key, values in found.items()}


def sizes_of(scenario: str) -> dict[str, int]:
    return next(sizes for start, sizes in SIZES.items() if scenario.startswith(start))


def test_every_entry_is_a_contradiction_and_quotes_the_paper(text):
    assert len(disagreements()) == 11
    for entry in disagreements():
        assert len(entry.values) == 2 and entry.excess > 0 and entry.why and entry.where, entry.what
        assert all(quote in text for quote in entry.quotes), entry.what


def test_the_groups_make_all_but_where_listed():
    found = {}
    for table in (1, 3):
        for scenario, rows in published(table).items():
            sizes = sizes_of(str(scenario))
            for strategy, row in rows.items():
                mean = sum(count * row[group] for group, count in sizes.items()) / sum(sizes.values())
                if abs(mean - row["miou"]) > 0.01 + 1e-9:
                    found[table, scenario, strategy] = (mean, row["miou"])
    assert len(found) == 4 and listed("group-mean") == approximately(found)


def test_table_2_at_memory_100_is_table_1_but_where_listed():
    one, two = published(1)["voc-15-1-disjoint"], published(2)[100]
    found = {
        (1, "voc-15-1-disjoint", name): (one[name]["miou"], two[name]["miou"])
        for name in one
        if one[name]["miou"] != two[name]["miou"]
    }
    assert listed("same-setting") == approximately(found)


def test_the_increments_of_table_4_are_those_of_the_text_but_where_listed(text):
    section = text[text.index("4.4 Ablation Study") : text.index("5 CONCLUSION")]
    said = [float(re.search(pattern, section)[1]) for pattern in INCREMENTS]
    said.insert(1, round(19.32 - 18.63, 2))
    assert "improved from 18.63 to 19.32" in " ".join(section.split())
    rows = published(4)["ade-50-50-disjoint"]
    made = [after["imiou"] - before["imiou"] for before, after in pairwise(rows.values())]
    found = {
        (4, "ade-50-50-disjoint", strategy): (words, table)
        for strategy, words, table in zip(list(rows)[1:], said, made, strict=True)
        if abs(words - table) > 0.005
    }
    assert listed("words") == approximately(found)


def test_imiou_over_all_steps_leaves_too_little_for_the_first_ones_where_listed():
    """If old classes do not improve, what the groups are at the end bounds every earlier step from below."""
    found = {}
    for name, strategy in {"er": ER_OF_TABLE_4, "ours": "ours"}.items():
        end = published(3)["ade-50-50-disjoint"][name]
        bound = end["old"] + (51 * end["old"] + 50 * end["step_1"]) / 101
        left = 3 * published(4)["ade-50-50-disjoint"][strategy]["imiou"] - end["miou"]
        found[4, "ade-50-50-disjoint", strategy] = (bound, left)
    for strategy, end in published(1)["voc-15-1-disjoint"].items():
        bound = sum(16 * end["old"] / (16 + new) for new in range(5))
        two = published(2)[100][strategy]
        left = 6 * two["imiou"] - two["miou"]
        if bound > left and end["miou"] == two["miou"]:
            found[2, "voc-15-1-disjoint", strategy] = (bound, left)
    assert listed("incremental-mean") == approximately(found)


def test_imiou_over_the_increments_contradicts_nothing():
    """The same bounds without step 0, for every number that one table has as imIoU and another by its groups."""
    for name, strategy in {"er": ER_OF_TABLE_4, "ours": "ours"}.items():
        end = published(3)["ade-50-50-disjoint"][name]
        left = 2 * published(4)["ade-50-50-disjoint"][strategy]["imiou"] - end["miou"]
        assert left > (51 * end["old"] + 50 * end["step_1"]) / 101
    for strategy, end in published(1)["voc-15-1-disjoint"].items():
        two = published(2)[100][strategy]
        if end["miou"] == two["miou"]:
            assert 5 * two["imiou"] - two["miou"] > sum(16 * end["old"] / (16 + new) for new in range(1, 5)), strategy
    only = {entry.check for entry in disagreements() if entry.only_if}
    assert only == {"incremental-mean"} and all(entry.only_if for entry in disagreements() if entry.check in only)
    assert disagreements_markdown().count("A contradiction only if imIoU is the mean over steps 0..T.") == 3


def test_the_page_tells_every_contradiction():
    page = disagreements_markdown()
    assert page.startswith("# Where the paper contradicts itself\n")
    assert [line.split(". ", 1)[1] for line in page.splitlines() if line.startswith("## ")] == [
        entry.what for entry in disagreements()
    ]
    assert "the mean of the groups: 66.09; printed as all: 69.92" in page


# ---------------------------------------------------------------- what a table needs


def test_the_rows_of_table_4_are_the_ablation_s_strategies():
    from bench.settings.strategies import parse_strategies

    assert [row.strategy for row in LAYOUTS[4].rows] == [request.label for request in parse_strategies("ablation")]


@pytest.mark.parametrize(("table", "count"), [(1, 48), (2, 24), (3, 24), (4, 5)])
def test_a_table_needs_each_run_once(table, count):
    runs = needed(table, "voc")
    assert len(runs) == len(set(runs)) == count
    assert {run.memory for run in runs} == ({20, 50, 100} if table == 2 else {100})


def test_the_embedded_sets_stand_in_for_the_real_ones():
    for table, (real, embedded) in {1: ("voc", "shapes"), 2: ("voc", "shapes"), 3: ("ade", "scenes")}.items():
        assert needed(table, "ade") == needed(table, "voc") and needed(table, "scenes") == needed(table, "shapes")
        assert {run.scenario.split("-")[0] for run in needed(table, "voc")} == {real}
        renamed = [run.scenario.replace(real, embedded) for run in needed(table, "voc")]
        assert [run.scenario for run in needed(table, "shapes")] == renamed


def test_unknown_tables_and_data_sets_are_refused():
    with pytest.raises(ValueError, match="table 5: allowed are 1, 2, 3, 4"):
        needed(5, "voc")
    with pytest.raises(ValueError, match="data set 'cityscapes': allowed are voc, ade, shapes, scenes"):
        needed(1, "cityscapes")
