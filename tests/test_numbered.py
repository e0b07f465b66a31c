"""The paper's numbered tables are a function of the finished runs, and mix nothing that does not belong together."""

from __future__ import annotations

import csv
import html.parser
import locale
import math
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from finished_runs.make import RUNS, TABLES, cost, matrix, spec_of, write_tables

from bench.cli.entry import main
from reports.conventions import require_one_convention
from reports.files import RecordError
from reports.grids import NeededRun, needed
from reports.markup import Cell, Table, latex, markdown, ranks
from reports.markup import html as html_of
from reports.numbered import runs_shown, write_numbered
from reports.records import Run, find_runs, read_run
from reports.run_writer import RunWriter

SCENARIO = "voc-19-1-disjoint"
TABLE_2 = "voc-15-1-disjoint"


@pytest.fixture(scope="module")
def finished() -> list[Run]:
    return find_runs(RUNS)


def write_run(out: Path, strategy: str = "er", seed: int = 0, **changes: Any) -> Run:
    """A finished run of 19-1 disjoint, or of the `scenario` or `memory` among the changes; others change the spec."""
    need = NeededRun(changes.pop("scenario", SCENARIO), strategy, changes.pop("memory", 100))
    spec = {**spec_of(need, seed), **changes}
    path = out / spec["scenario"] / strategy / f"{spec['hash']}-seed{seed}"
    writer = RunWriter(path)
    writer.start(spec)
    random, known = np.random.default_rng([seed, len(strategy)]), 1
    for step in spec["steps"]:
        known += len(step["classes"])
        writer.add_step(matrix(random, known, len(spec["steps"][0]["classes"]) + 1), cost(step["step"]))
    writer.finish()
    return read_run(path)


def texts(runs: list[Run], out: Path, table: int = 1, **options: Any) -> dict[str, str]:
    return {path.name: path.read_text(encoding="utf-8") for path in write_numbered([table], runs, out, **options)}


def tidy(runs: list[Run], out: Path, table: int = 1, **options: Any) -> list[dict[str, str]]:
    text = texts(runs, out, table, formats=["csv"], **options)[f"table-{table}-tidy.csv"]
    return list(csv.DictReader(text.splitlines()))


def only(rows: list[dict[str, str]], **wanted: Any) -> dict[str, str]:
    (found,) = [row for row in rows if all(row[key] == str(value) for key, value in wanted.items())]
    return found


# ---------------------------------------------------------------- pinned


def test_the_tables_of_the_committed_runs_are_the_pinned_ones(tmp_path):
    written = write_tables(RUNS, tmp_path)
    expected = sorted(path.relative_to(TABLES) for path in TABLES.rglob("*") if path.is_file())
    assert sorted(path.relative_to(tmp_path) for path in written) == expected
    for path in expected:
        assert (tmp_path / path).read_bytes() == (TABLES / path).read_bytes(), path


def test_the_files_do_not_depend_on_order_locale_or_time_zone(tmp_path, finished, monkeypatch):
    before = locale.setlocale(locale.LC_ALL)
    monkeypatch.setenv("TZ", "Pacific/Kiritimati")
    time.tzset()
    try:
        for name in ("de_DE.UTF-8", "C.UTF-8"):
            try:
                locale.setlocale(locale.LC_ALL, name)
                break
            except locale.Error:
                continue
        written = write_numbered([1, 2, 3, 4], finished[::-1], tmp_path)
    finally:
        locale.setlocale(locale.LC_ALL, before)
        monkeypatch.undo()
        time.tzset()
    assert len(written) == 4 * 5
    assert all(path.read_bytes() == (TABLES / path.name).read_bytes() for path in written)


def test_importing_the_tables_brings_neither_torch_nor_matplotlib_nor_scipy():
    code = (
        "import sys, reports.numbered, reports.statistics; "
        "print({'torch', 'matplotlib', 'scipy', 'avalanche'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=RUNS.parents[1], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# ---------------------------------------------------------------- numbers


def test_a_number_is_the_mean_of_its_seeds_last_steps(tmp_path, finished):
    last = [
        run.steps[-1]
        for run in finished
        if (run.spec["scenario"], run.spec["strategy"], run.spec["hash"]) == ("voc-15-1-disjoint", "mir", "made-up-100")
    ]
    rows = tidy(finished, tmp_path)
    for column in ("old", "new", "miou"):
        row = only(rows, scenario="voc-15-1-disjoint", strategy="mir", column=column)
        values = [step[column] for step in last]
        assert float(row["mean"]) == pytest.approx(statistics.mean(values), abs=1e-4)
        assert float(row["std"]) == pytest.approx(statistics.stdev(values), abs=1e-4)
        assert (row["n"], row["seeds"], row["memory"]) == ("3", "0 1 2", "100")
        assert (row["future_classes"], row["background_in_mean"], row["evaluate_on"]) == ("background", "True", "test")


def test_a_memory_size_has_its_own_columns_and_numbers(tmp_path, finished):
    rows = tidy(finished, tmp_path, table=2)
    means = {only(rows, strategy="ours", memory=size, column="imiou")["mean"] for size in (20, 50, 100)}
    assert len(means) == 3
    runs = [run for run in finished if run.spec["config"]["memory"]["size"] == 20 and run.spec["strategy"] == "ours"]
    expected = statistics.mean(run.steps[-1]["imiou"] for run in runs)
    assert float(only(rows, strategy="ours", memory=20, column="imiou")["mean"]) == pytest.approx(expected, abs=1e-4)


def test_one_seed_has_no_deviation_and_a_gap_has_nothing(tmp_path):
    rows = tidy([write_run(tmp_path / "runs")], tmp_path)
    one = only(rows, scenario=SCENARIO, strategy="er", column="miou")
    gap = only(rows, scenario=SCENARIO, strategy="ours", column="miou")
    assert one["mean"] and (one["std"], one["n"], one["seeds"]) == ("", "1", "0")
    assert [gap[key] for key in ("mean", "std", "n", "seeds", "resolution")] == ["", "", "0", "", ""]


def test_a_further_convention_has_a_column_and_stands_in_the_caption(tmp_path):
    usual = spec_of(NeededRun(SCENARIO, "er", 100), 0)["conventions"]
    run = write_run(tmp_path / "runs", conventions={**usual, "test_images": "all"})
    assert only(tidy([run], tmp_path), scenario=SCENARIO, strategy="er", column="old")["test_images"] == "all"
    assert "test images `all`" in texts([run], tmp_path)["table-1.md"]


def test_without_the_background_the_groups_start_at_class_1(tmp_path):
    conventions = {**spec_of(NeededRun(SCENARIO, "er", 100), 0)["conventions"], "background_in_mean": False}
    run = write_run(tmp_path / "runs", conventions=conventions)
    rows = tidy([run], tmp_path)
    last = run.steps[-1]
    for column in ("old", "miou"):
        assert float(only(rows, scenario=SCENARIO, strategy="er", column=column)["mean"]) == pytest.approx(
            last[f"{column}_without_background"]
        )
    assert "19-1 Disjoint 1-19" in texts([run], tmp_path)["table-1.csv"].splitlines()[0]


# ---------------------------------------------------------------- layout


def test_the_layout_is_the_paper_s(tmp_path, finished):
    header, *rows = csv.reader(texts(finished, tmp_path)["table-1.csv"].splitlines())
    assert header[:4] == ["Methods", "19-1 Disjoint 0-19", "19-1 Disjoint 20", "19-1 Disjoint all"]
    assert len(header) == 19 and header[-1] == "15-1 Overlapped all"
    assert [row[0] for row in rows] == ["ER", "LwF.MC*", "iCaRL", "AGEM", "MIR", "MiB*", "CoRiSeg", "Ours"]
    assert {row[4] for row in rows} == {"--"}
    header, *rows = csv.reader(texts(finished, tmp_path, 3)["table-3.csv"].splitlines())
    groups = ["0-100", "101-110", "111-120", "121-130", "131-140", "141-150", "all"]
    assert header[4:11] == [f"100-10 {group}" for group in groups]
    header, *rows = csv.reader(texts(finished, tmp_path, 4)["table-4.csv"].splitlines())
    assert header == ["CBES", "C.R.", "C.N.", "D.S.", "imIoU (%)"]
    assert [row[:4].count("✓") for row in rows] == [0, 1, 2, 3, 4]


def test_latex_headings_span_their_columns_and_every_line_is_full(tmp_path, finished):
    text = texts(finished, tmp_path)["table-1.tex"]
    assert r" & \multicolumn{6}{c}{19-1} & \multicolumn{6}{c}{15-5} & \multicolumn{6}{c}{15-1} \\" in text
    assert r"\cmidrule(lr){2-4} \cmidrule(lr){5-7} \cmidrule(lr){8-10}" in text
    lines = text.split("\\midrule\n")[1].split("\\bottomrule")[0].splitlines()
    assert {line.count("&") for line in lines} == {18}


def test_the_captions_tell_seeds_conventions_and_gaps(tmp_path, finished):
    one, two = (texts(finished, tmp_path, table)[f"table-{table}.md"] for table in (1, 2))
    assert "n = 3, seeds 0, 1, 2, but MIR 19-1 Disjoint (n = 2, seeds 0, 1)." in one
    assert "`--`: no finished run." in one and "no finished run" not in two
    assert "Mean and standard deviation over seeds: n = 2, seeds 0, 1, but BM = 100 (n = 3, seeds 0, 1, 2)." in two
    assert "evaluate on `test`; future classes `background`" in one


def test_best_and_second_are_marked_and_equal_means_share(tmp_path):
    assert ranks(["70.00", "--", "71.00", "9.50", "71.00"], [""] * 5) == [2, 0, 1, 3, 1]
    runs = [write_run(tmp_path / "runs", name) for name in ("er", "mib")]
    text = texts(runs, tmp_path)["table-1.md"]
    assert all(text.count(mark) == 3 for mark in ("<u>",)) and text.count("**") == 6


def test_no_run_at_all_gives_every_gap(tmp_path):
    for table in (1, 2, 3, 4):
        found = texts([], tmp_path, table)
        assert set(found) == {f"table-{table}{end}" for end in (".csv", "-tidy.csv", ".tex", ".md", ".html")}
        lines = found[f"table-{table}.csv"].splitlines()[1:]
        assert all(cell in ("--", "✓", "✗") for line in lines for cell in line.split(",")[1:])


class _Cells(html.parser.HTMLParser):
    """Counts the columns of every row and checks that tags are closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.widths: list[int] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        if tag == "tr":
            self.widths.append(0)
        if tag in ("td", "th"):
            self.widths[-1] += int(dict(attributes).get("colspan") or 1)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize(("table", "width"), [(1, 19), (2, 7), (3, 15), (4, 5)])
def test_the_html_fragment_is_well_formed(tmp_path, finished, table, width):
    parser = _Cells()
    parser.feed(texts(finished, tmp_path, table, compare=True)[f"table-{table}.html"])
    assert not parser.open and set(parser.widths) == {width}


def test_texts_are_escaped_in_every_format():
    table = Table("t", ["a_b", "<c>"], [[Cell("x & y"), Cell("1|2", std="0.10", rank=1)]], "gap", "caption `a<b`")
    assert "x \\& y & \\textbf{1\\textbar{}2} $\\pm$ 0.10" in latex(table)
    assert "| x & y | **1\\|2** ± 0.10 |" in markdown(table)
    assert "<code>a&lt;b</code>" in html_of(table) and "<strong>1|2</strong> <small>± 0.10</small>" in html_of(table)


# ---------------------------------------------------------------- data sets


def test_the_real_sets_come_first_and_the_embedded_ones_are_labelled(tmp_path):
    embedded = write_run(tmp_path / "runs", scenario="shapes-19-1-disjoint")
    real = write_run(tmp_path / "runs")
    for suffix, code in ((".md", "`shapes`"), (".tex", r"\texttt{shapes}"), (".html", "<code>shapes</code>")):
        assert f"embedded data set {code}, not VOC/ADE results" in texts([embedded], tmp_path)[f"table-1{suffix}"]
    assert {row["scenario"].split("-")[0] for row in tidy([embedded, real], tmp_path)} == {"voc"}
    assert {row["scenario"].split("-")[0] for row in tidy([embedded, real], tmp_path, on="scenes")} == {"shapes"}
    assert {row["scenario"].split("-")[0] for row in tidy([embedded], tmp_path, 3)} == {"ade"}


def test_what_is_not_in_the_table_is_left_alone(tmp_path):
    """A reference, a variant, another memory size, another scenario: even with conventions of their own."""
    odd = {"conventions": {"future_classes": "ignore"}}
    run = write_run(tmp_path / "runs")
    others = [
        write_run(tmp_path / "runs", "joint", **odd),
        write_run(tmp_path / "runs", "ours(sampling=uniform)", **odd),
        write_run(tmp_path / "runs", memory=7, **odd),
        write_run(tmp_path / "runs", scenario="shapes-19-1-disjoint", **odd),
    ]
    assert texts([run, *others], tmp_path) == texts([run], tmp_path)


# ---------------------------------------------------------------- the paper's numbers


def test_a_comparison_has_the_paper_s_numbers_and_ours_minus_them(tmp_path, finished):
    row = only(tidy(finished, tmp_path, compare=True), scenario="voc-15-1-disjoint", strategy="ours", column="new")
    assert row["published"] == "37.15"
    assert float(row["difference"]) == pytest.approx(float(row["mean"]) - 37.15, abs=1e-4)
    lines = list(csv.reader(texts(finished, tmp_path, compare=True)["table-1.csv"].splitlines()))
    assert [line[0] for line in lines[1:4]] == ["ER", "ER published", "ER difference"]
    ours, paper, difference = (line[-1] for line in lines[-3:])
    assert (ours, paper, difference) == ("--", "67.33", "--")
    assert float(lines[3][1]) == pytest.approx(float(lines[1][1]) - 71.04, abs=0.011)


def test_without_a_comparison_no_published_number_is_written(tmp_path, finished):
    assert all(row["published"] == row["difference"] == "" for row in tidy(finished, tmp_path))
    assert not any("65.14" in text for text in texts(finished, tmp_path).values())


@pytest.mark.parametrize("table", [1, 3])
def test_numbers_on_embedded_data_are_not_compared(tmp_path, table):
    with pytest.raises(RecordError, match="not comparable") as error:
        write_numbered([table], [], tmp_path, on="shapes", compare=True)
    assert "\n" not in str(error.value) and not list(tmp_path.iterdir())


# ---------------------------------------------------------------- refusals


def test_two_settings_are_never_averaged_into_one_cell(tmp_path):
    for seed, rate in ((0, 0.001), (1, 0.01)):
        config = {"memory": {"size": 100}, "incremental": {"lr": rate}}
        write_run(tmp_path / "runs", seed=seed, hash=f"h{seed}", config=config)
    with pytest.raises(RecordError) as error:
        write_numbered([1], find_runs(tmp_path / "runs"), tmp_path)
    message = str(error.value)
    assert "\n" not in message and "voc-19-1-disjoint, er, memory 100" in message
    assert "h0-seed0 (incremental.lr=0.001)" in message and "h1-seed1 (incremental.lr=0.01)" in message


def test_one_run_given_twice_is_refused(tmp_path):
    runs = [write_run(tmp_path / name) for name in ("a", "b")]
    with pytest.raises(RecordError, match="the same run twice"):
        write_numbered([1], runs, tmp_path)


CONVENTIONS = {
    "future_classes": "ignore",
    "background_in_mean": False,
    "resolution": "native",
    "evaluate_on": "valid",
    "a_new_one": 1,
}


@pytest.mark.parametrize("key", CONVENTIONS)
def test_a_table_of_two_conventions_is_refused_and_names_the_odd_run(tmp_path, key):
    usual = spec_of(NeededRun(SCENARIO, "er", 100), 0)["conventions"]
    runs = [write_run(tmp_path / "runs", name) for name in ("er", "mir", "ours")]
    odd = write_run(tmp_path / "runs", "mib", conventions={**usual, key: CONVENTIONS[key]})
    with pytest.raises(RecordError) as error:
        write_numbered([1], [*runs, odd], tmp_path)
    message = str(error.value)
    assert f"convention {key} is" in message and f"{CONVENTIONS[key]} in {odd.path}" in message
    assert not any(str(run.path) in message for run in runs) and "\n" not in message


@pytest.mark.parametrize(
    ("change", "what"),
    [({"split_hash": "shorter"}, "split_hash"), ({"data": {"fingerprint": "other"}}, "data fingerprint")],
)
def test_another_split_or_another_data_set_is_refused_within_a_scenario_only(tmp_path, change, what):
    runs = [write_run(tmp_path / "runs", name) for name in ("er", "mir")]
    require_one_convention([*runs, write_run(tmp_path / "runs", scenario="voc-15-5-disjoint", **change)])
    odd = write_run(tmp_path / "runs", "mib", **change)
    with pytest.raises(RecordError, match=f"{SCENARIO}: {what} is .* in 2 of 3 runs, but .* in {odd.path}"):
        require_one_convention([*runs, odd])


def test_a_run_without_a_column_of_its_scenario_is_named(tmp_path):
    spec = spec_of(NeededRun("ade-50-50-disjoint", "er", 100), 0)
    run = write_run(tmp_path / "runs", steps=spec["steps"], class_names=spec["class_names"])
    moved = Run(run.path, {**run.spec, "scenario": "ade-100-10-disjoint"}, run.steps)
    with pytest.raises(RecordError, match="no column step_3"):
        write_numbered([3], [moved], tmp_path)


def test_unknown_formats_tables_and_data_sets_are_refused(tmp_path):
    for options, message in (
        ({"formats": ["word"]}, "'word': allowed are csv, latex, markdown, html"),
        ({"tables": [7]}, "table 7: allowed are 1, 2, 3, 4"),
        ({"on": "coco"}, "'coco': allowed are voc, ade, shapes, scenes"),
    ):
        with pytest.raises(ValueError, match=message):
            write_numbered(**{"tables": [1], "runs": [], "out": tmp_path, **options})


def test_needed_runs_are_what_fills_a_table(tmp_path):
    runs = [write_run(tmp_path / "runs", need.strategy, scenario=need.scenario) for need in needed(1, "voc")]
    assert "--" not in texts(runs, tmp_path)["table-1.csv"]
    assert all(not math.isnan(float(row["mean"])) for row in tidy(runs, tmp_path))


def test_the_command_says_nothing_of_what_the_tables_compare_on_purpose(
    finished: list[Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Table 2 is of three sizes of memory; a table of the whole scenario does mix them."""
    sizes = {run.spec["config"]["memory"]["size"] for run in runs_shown([2], finished)}
    assert sizes == {20, 50, 100} and {run.spec["scenario"] for run in runs_shown([2], finished)} == {TABLE_2}
    for tables in (["1", "2", "3", "4"], [TABLE_2]):
        with pytest.raises(SystemExit):
            main(["tables", *tables, "--runs", str(RUNS), "--out", str(tmp_path), "--format", "csv"])
        told = capsys.readouterr().err
        assert ("memory.size=20" in told) is (tables == [TABLE_2])


def test_the_command_still_tells_of_other_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for strategy, rate in (("er", 0.1), ("mib", 0.01)):
        write_run(tmp_path, strategy, hash=strategy, config={"memory": {"size": 100}, "incremental": {"lr": rate}})
    with pytest.raises(SystemExit):
        main(["tables", "1", "--runs", str(tmp_path), "--out", str(tmp_path / "out"), "--format", "csv"])
    assert "incremental.lr=0.01 (mib); incremental.lr=0.1 (er)" in capsys.readouterr().err
