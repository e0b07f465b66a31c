"""What tables say beside their numbers: settings that rows do not share, what made the rows, over which classes."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from finished_runs.make import cost, matrix, spec_of
from rich.console import Console

from bench.cli.summary import print_results, results_table
from reports.class_notes import classes_note
from reports.curves import write_curves
from reports.grids import NeededRun
from reports.markup import ranks
from reports.notes import notes, origin_notes, settings_note
from reports.numbered import write_numbered
from reports.page.page import write_page
from reports.panels import differing_note, rows_of
from reports.records import Run, find_runs, read_run
from reports.rows import differing_settings
from reports.run_writer import RunWriter
from reports.scenario_tables import write_tables
from reports.statistics import paired_differences
from reports.statistics import ranks as mean_ranks
from reports.tables import frame, frames_by_memory, summary

SCENARIO = "voc-15-5-disjoint"
USUAL = {"memory": {"size": 100}, "incremental": {"lr": 0.001, "batch_size": 16}}
OTHER = {"memory": {"size": 20}, "incremental": {"lr": 0.01, "batch_size": 4}}
TOLD = {
    "usual": "incremental.batch_size=16, incremental.lr=0.001, memory.size=100",
    "other": "incremental.batch_size=4, incremental.lr=0.01, memory.size=20",
}


def write_run(
    out: Path, strategy: str, config: dict[str, Any], seed: int = 0, blank: tuple[int, ...] = (), **changes: Any
) -> Run:
    """A finished run of 15-5; classes in `blank` have no pixel in the truth and in a prediction of the last step."""
    spec = {**spec_of(NeededRun(SCENARIO, strategy, 100), seed), "config": config, "hash": str(hash(str(config)) % 997)}
    spec |= changes
    writer = RunWriter(out / strategy / f"{spec['hash']}-seed{seed}")
    writer.start(spec)
    random = np.random.default_rng([seed, *strategy.encode()])
    for step, known in enumerate((16, 21)):
        counts = matrix(random, known, 16)
        if step:
            counts[list(blank)], counts[:, list(blank)] = 0, 0
        writer.add_step(counts, cost(step))
    writer.finish()
    return read_run(writer.path)


@pytest.fixture
def mixed(tmp_path: Path) -> list[Run]:
    """er under its own settings beside three methods that share theirs."""
    out = tmp_path / "runs"
    own = [write_run(out, name, USUAL) for name in ("lwf-mc", "mib", "ours")]
    return [write_run(out, "er", OTHER), *own]


# ---------------------------------------------------------------- settings


def test_rows_of_other_settings_are_named_by_them(mixed: list[Run]) -> None:
    rows = summary(frame(mixed)).set_index("strategy")
    assert rows["variant"].to_dict() == {"er": TOLD["other"], **dict.fromkeys(("lwf-mc", "mib", "ours"), TOLD["usual"])}
    assert (rows["settings"] == rows["variant"]).all()
    (line,) = notes(mixed)
    assert line == (
        f"{SCENARIO}: Trained under different settings, which no ranking may mix: "
        f"{TOLD['other']} (er); {TOLD['usual']} (lwf-mc, mib and ours)."
    )


def test_rows_of_equal_settings_are_named_by_their_label_alone(tmp_path: Path) -> None:
    runs = [write_run(tmp_path, name, USUAL) for name in ("er", "ours")]
    assert set(frame(runs)["variant"]) == set(frame(runs)["settings"]) == {""}
    assert settings_note(runs) == "" and notes(runs) == []


@pytest.mark.parametrize("key", ["data.workers", "data.train_list", "evaluation.pictures", "runtime.threads"])
def test_what_changes_no_number_makes_no_other_row(tmp_path: Path, key: str) -> None:
    section, name = key.split(".")
    runs = [write_run(tmp_path, each, {**USUAL, section: {name: n}}) for n, each in enumerate(("er", "ours"))]
    assert differing_settings(runs) == []


@pytest.mark.parametrize("key", ["base.epochs", "data.crop", "network.weights", "runtime.precision"])
def test_whatever_training_depends_on_makes_another_row(tmp_path: Path, key: str) -> None:
    section, name = key.split(".")
    runs = [write_run(tmp_path, each, {**USUAL, section: {name: n}}) for n, each in enumerate(("er", "ours"))]
    assert differing_settings(runs) == [key]


def test_older_runs_whose_network_was_pretrained_or_not_are_rows_of_the_same_settings(tmp_path: Path) -> None:
    """A spec that has `network.pretrained` is read as one that has today's `network.weights`."""
    for pretrained, weights in ((False, "none"), (True, "IMAGENET1K_V1")):
        out = tmp_path / weights
        older = write_run(out, "er", {**USUAL, "network": {"name": "x", "pretrained": pretrained}})
        newer = write_run(out, "ours", {**USUAL, "network": {"name": "x", "weights": weights}})
        assert differing_settings([older, newer]) == []


def test_a_method_s_own_parameters_are_no_other_setting(tmp_path: Path) -> None:
    mir = {"method": {"name": "mir", "parameters": {"candidates": 50, "lr": 1}}}
    runs = [write_run(tmp_path, "er", USUAL), write_run(tmp_path, "mir", USUAL, **mir)]
    assert differing_settings(runs) == [] and set(frame(runs)["variant"]) == {""}


def test_best_and_second_are_marked_within_rows_of_equal_settings() -> None:
    assert ranks(["90.00", "50.00", "60.00", "--"], ["a", "b", "b", "b"]) == [0, 2, 1, 0]
    assert ranks(["90.00", "50.00"], [None, "b"]) == [0, 1]
    assert ranks(["90.00", "80.00", "50.00", "60.00"], ["a", "a", "b", "b"]) == [1, 2, 2, 1]


def test_the_table_keeps_rows_of_other_settings_apart(mixed: list[Run], tmp_path: Path) -> None:
    tex, md = write_tables(mixed, tmp_path, ["latex", "markdown"])
    caption, _, _, _, *rows = md.read_text().splitlines()
    assert rows[0].startswith("| er \\[incremental.batch\\_size=4") and "**" not in rows[0] and "<u>" not in rows[0]
    assert sum(row.count("**") for row in rows[1:]) == 2 * 5, "a best of each column among the three"
    assert "Trained under different settings" in caption and "among rows of equal settings" in caption
    assert tex.read_text().count("\\addlinespace") == 1


def test_the_terminal_leaves_a_gap_between_them(mixed: list[Run]) -> None:
    table = results_table(mixed, 120)
    assert [row.end_section for row in table.rows] == [True, False, False, False]


def test_the_terminal_has_the_note_in_a_line_below_however_narrow_the_table(tmp_path: Path) -> None:
    console = Console(width=120, record=True, file=io.StringIO())
    print_results([write_run(tmp_path, "er", USUAL)], console)
    said = console.export_text().splitlines()[-1]
    assert said == "all is the mean of 21 classes with the background (old 16, new 5)."


@pytest.mark.parametrize("width", [80, 100, 120])
def test_the_terminal_s_table_is_whole_at_any_width(tmp_path: Path, width: int) -> None:
    runs = [write_run(tmp_path, name, USUAL, seed) for name in ("er", "ours(sampling=uniform)") for seed in (0, 1)]
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(results_table(runs, width))
    text = console.export_text()
    assert "…" not in text and ("s/batch" in text) == (width == 120)
    assert all(word in text for word in ("strategy", "avg", "er ", "ours(sampling="))


def test_a_numbered_table_marks_no_best_in_a_column_of_several_settings(tmp_path: Path) -> None:
    other = {**USUAL, "incremental": {"lr": 0.01, "batch_size": 16}}
    runs = [write_run(tmp_path / "runs", name, USUAL) for name in ("mir", "mib", "ours")]
    alike = [write_run(tmp_path / "runs", "er", USUAL), *runs]
    apart = [write_run(tmp_path / "other", "er", other), *runs]
    texts = []
    for own in (alike, apart):
        (path,) = write_numbered([1], own, tmp_path / "out", ["markdown"])
        texts.append(path.read_text())
    assert texts[0].count("**") == 2 * 3 and "†" not in texts[0]
    assert "**" not in texts[1] and "<u>" not in texts[1] and "| ER † |" in texts[1] and "| MIR |" in texts[1]
    assert "15-5 Disjoint: Trained under different settings" in texts[1]
    assert "`incremental.lr=0.01` (er)" in texts[1]


def test_sizes_of_the_memory_in_one_table_tell_what_else_differs(tmp_path: Path) -> None:
    """Table 2 and panels by memory have the size in a heading; another rate beside it would pass for its effect."""
    rates = {20: 0.01, 100: 0.001}
    runs = [
        write_run(tmp_path, "er", {"memory": {"size": size}, "incremental": {"lr": rate}})
        for size, rate in rates.items()
    ]
    frames = frames_by_memory(runs)
    assert {size: set(steps["variant"]) for size, steps in frames.items()} == {
        size: {f"incremental.lr={rate}"} for size, rate in rates.items()
    }
    alike = [write_run(tmp_path / "alike", "er", {**USUAL, "memory": {"size": size}}) for size in (20, 100)]
    assert {value for steps in frames_by_memory(alike).values() for value in steps["variant"]} == {""}


def test_differences_and_ranks_mix_no_settings(tmp_path: Path) -> None:
    slow = {**USUAL, "incremental": {"lr": 0.01, "batch_size": 16}}
    runs = [write_run(tmp_path, name, USUAL) for name in ("mib", "ours")]
    steps = frame([*runs, *(write_run(tmp_path, name, slow) for name in ("er", "mir"))])
    differences = paired_differences(steps)
    assert set(differences[differences["n"] > 0]["strategy"]) == {"mib"}
    found = mean_ranks(steps)
    for settings, own in found.groupby("settings"):
        assert settings in ("incremental.lr=0.001", "incremental.lr=0.01")
        assert set(own["mean_rank"]) == {1.0, 2.0} and own["strategy"].nunique() == 2


def test_figures_say_that_their_lines_are_no_ranking(mixed: list[Run], tmp_path: Path) -> None:
    assert differing_note(rows_of(frame(mixed))) == "settings differ (in brackets): no ranking"
    assert differing_note(rows_of(frame(mixed[1:]))) == ""
    (path,) = write_curves(mixed, tmp_path, ["svg"])
    words = " ".join(re.findall(r"<text[^>]*>([^<]*)</text>", path.read_text()))
    assert "ER [incremental.batch_size=4, incremental.lr=0.01]" in words


# ---------------------------------------------------------------- origins


def test_rows_of_several_codes_and_versions_are_told(tmp_path: Path) -> None:
    codes = {"er": "3f2a" * 16, "mib": "3f2a" * 16, "ours": "91bc" * 16}
    runs = [
        write_run(tmp_path, name, USUAL, code=code, versions={"torch": torch, "numpy": "2.0"})
        for (name, code), torch in zip(codes.items(), ("2.14.1", "2.15.0", "2.15.0"), strict=True)
    ]
    assert origin_notes(runs) == [
        "Rows of 2 code versions: `3f2a3f2a` (er and mib); `91bc91bc` (ours); "
        "`bench run --overwrite stale` makes the older again.",
        "Rows of 2 sets of package versions: `torch 2.14.1` (er); `torch 2.15.0` (mib and ours).",
    ]
    assert origin_notes(runs[:1]) == origin_notes([]) == []


def test_seeds_of_several_codes_in_one_row_are_told(tmp_path: Path) -> None:
    runs = [write_run(tmp_path, "er", USUAL, seed, code=code * 64) for seed, code in enumerate("aab")]
    (line,) = origin_notes(runs)
    assert line.startswith("Rows of 2 code versions: `aaaaaaaa` (er seed 0 1); `bbbbbbbb` (er seed 2);")


def test_code_that_decides_no_number_is_not_told_and_a_method_s_own_is(tmp_path: Path) -> None:
    """Two methods have code of their own anyway; two seeds of one by different code are what is to be told."""

    def made_by(everything: str, numbers: str, method: str) -> dict[str, Any]:
        plugin = {"distribution": "continual-seg-bench", "version": "1", "code": method * 64}
        return {"code": everything * 64, "numbers_code": numbers * 64, "plugins": [plugin]}

    runs = [
        write_run(tmp_path, "ours", USUAL, **made_by("1", "a", "f")),
        write_run(tmp_path, "er", USUAL, 0, **made_by("2", "a", "d")),
        write_run(tmp_path, "er", USUAL, 1, **made_by("2", "a", "e")),
    ]
    assert origin_notes(runs[:2]) == []
    assert origin_notes(runs) == [
        "Rows of 2 versions of the code of `er`: `dddddddd` (er seed 0); `eeeeeeee` (er seed 1); "
        "`bench run --overwrite stale` makes the older again."
    ]


def test_machines_are_told_and_make_no_other_row(tmp_path: Path) -> None:
    configs = [{**USUAL, "runtime": {"device": device, "threads": 4}} for device in ("cpu", "cuda")]
    runs = [write_run(tmp_path, name, config) for name, config in zip(("er", "ours"), configs, strict=True)]
    assert origin_notes(runs) == ["Rows of 2 machines: `device cpu` (er); `device cuda` (ours)."]
    assert set(frame(runs)["variant"]) == {""}


def test_every_caption_and_the_page_tell_it(tmp_path: Path) -> None:
    out = tmp_path / "runs"
    runs = [write_run(out, name, USUAL, code=code * 64) for name, code in (("er", "a"), ("ours", "b"))]
    written = [*write_tables(runs, tmp_path, ["markdown"]), *write_numbered([1], runs, tmp_path, ["markdown"])]
    for path in written:
        assert "Rows of 2 code versions: `aaaaaaaa` (er); `bbbbbbbb` (ours)" in path.read_text()
    page = write_page(find_runs(out), tmp_path / "page.html").read_text()
    assert page.count("Rows of 2 code versions") > 3 and 'role="note">Rows of 2 code versions' in page


# ---------------------------------------------------------------- classes


def test_the_caption_says_over_how_many_classes_the_mean_is(tmp_path: Path) -> None:
    runs = [write_run(tmp_path, name, USUAL) for name in ("er", "ours")]
    assert classes_note(runs) == "`all` is the mean of 21 classes with the background (old 16, new 5)."


def test_classes_without_a_pixel_are_not_left_out_silently(tmp_path: Path) -> None:
    runs = [write_run(tmp_path, "er", USUAL, blank=(3, 20)), write_run(tmp_path, "ours", USUAL, blank=(3,))]
    assert classes_note(runs) == (
        "`all` is the mean of 19 to 20 of 21 classes with the background (old 15 of 16, new 4 to 5 of 5). "
        "Left out, without a pixel in truth and prediction: `c3` and `c20`."
    )
    conventions = {**runs[0].spec["conventions"], "background_in_mean": False}
    run = write_run(tmp_path / "without", "er", USUAL, blank=(3,), conventions=conventions)
    assert classes_note([run]).startswith("`all` is the mean of 19 of 20 classes without the background (old 14 of 15,")


def test_a_class_that_is_only_predicted_is_told_to_count_as_zero(tmp_path: Path) -> None:
    run = write_run(tmp_path, "er", USUAL)
    counts = run.confusions[-1]
    counts[20] = 0
    counts[5, 20] += 7
    writer = RunWriter(run.path)
    writer.start(run.spec, next_step=1)
    writer.add_step(counts, cost(1))
    writer.finish()
    assert classes_note([read_run(run.path)]).endswith("Counted as 0, predicted without a pixel in the truth: `c20`.")


def test_numbered_tables_tell_classes_once_for_all_columns_that_have_them(tmp_path: Path) -> None:
    told = {
        (): "`all` is the mean of all 21 classes with the background.",
        (3,): "15-5 Disjoint: `all` is the mean of 20",
    }
    for blank, said in told.items():
        runs = [write_run(tmp_path / str(blank), "er", USUAL, blank=blank)]
        (path,) = write_numbered([1], runs, tmp_path, ["markdown"])
        assert said in path.read_text()
