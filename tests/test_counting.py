"""Conventions chosen at printing: from one run's records the numbers of every code base, as a slow evaluation has them.

The slow evaluation follows ../shared/OFFLINE.md's table, a column at a time, over each pixel of real label maps.
"""

from __future__ import annotations

import math
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image
from test_reports import STEP_0, cost_of, spec_of, write_run

from bench.cli.entry import main
from reports.counting import ConventionError, parse_choice, under
from reports.counts import StepCounts
from reports.files import RecordError
from reports.records import Run, read_run
from reports.run_writer import RunWriter
from reports.tables import frame, summary

VOID = 255
ORDER = [9, 15, 7, 3, 12, 1, 20, 5, 18, 2, 14, 8, 4, 6, 10, 11, 16, 13, 17, 19]
KNOWN = (10, 15, 20)
"""Classes known after each step."""


class Column(NamedTuple):
    """One column of the table: what it makes of a pixel's truth, of images, of classes and of the printed means."""

    asked: str
    future: Callable[[str], int]
    """The label of a future class's pixel, by data set."""
    label_0: Callable[[str], int]
    every_image: bool
    absent_is_zero: bool
    epsilon: float
    background: bool


def background(data: str) -> int:
    return 0


def void(data: str) -> int:
    return VOID


COLUMNS = {
    "MiB": Column("mib", void, lambda data: VOID if data == "ade" else 0, False, False, 1e-6, False),
    "PLOP": Column("plop", background, background, False, False, 1e-6, True),
    "PLOP --ignore_test_bg": Column("plop,future_classes=ignore,label_0=void", void, void, False, False, 1e-6, True),
    "SSUL": Column("ssul", void, background, True, True, 1e-6, True),
    "DKD": Column("dkd", lambda data: VOID if data == "ade" else 0, background, False, True, -1e-6, True),
    "SDR": Column(
        "mib,background_in_mean=yes", void, lambda data: VOID if data == "ade" else 0, False, False, 1e-6, True
    ),
}


class Evaluated(NamedTuple):
    """Truth (labels in learning order) of each image and what is predicted after each step."""

    truths: list[np.ndarray]
    predictions: list[list[np.ndarray]]


@pytest.fixture(scope="module")
def evaluated() -> Evaluated:
    """A random layer over the colours of 24 photographs at each eighth pixel, put right at three pixels of ten."""
    root = Path(__file__).resolve().parents[2] / "shared" / "data" / "voc-photos" / "VOCdevkit" / "VOC2012"
    if not root.is_dir():
        pytest.skip(f"photographs with label maps are not at {root}")
    random = np.random.default_rng(5)
    learned = np.full(256, VOID)
    learned[[0, *ORDER]] = range(21)
    truths: list[np.ndarray] = []
    predictions: list[list[np.ndarray]] = [[] for _ in KNOWN]
    layers = [(random.normal(size=(3, known + 1)), random.normal(size=known + 1)) for known in KNOWN]
    for path in sorted((root / "JPEGImages").glob("*.jpg"))[::7][:24]:
        truth = learned[np.array(Image.open(root / "SegmentationClassAug" / f"{path.stem}.png"))[::8, ::8]]
        colours = np.array(Image.open(path))[::8, ::8] / 127.5 - 1
        truths.append(truth)
        for step, (weight, bias) in enumerate(layers):
            predicted = (colours @ weight + bias).argmax(-1)
            right = random.random(truth.shape) < 0.3  # else nearly all is wrong
            predictions[step].append(np.where(right & (truth <= KNOWN[step]), truth, predicted))
    assert len(truths) == 24 and any(not ((truth > 0) & (truth <= KNOWN[0])).any() for truth in truths)
    return Evaluated(truths, predictions)


# ---------------------------------------------------------------- slowly


def slow(column: Column, data: str, evaluated: Evaluated) -> list[dict[str, float]]:
    """The numbers of each step by a column of the table, a pixel at a time."""
    rows: list[dict[str, float]] = []
    for step, known in enumerate(KNOWN):
        true, found, both = Counter[int](), Counter[int](), Counter[int]()
        for truth, prediction in zip(evaluated.truths, evaluated.predictions[step], strict=True):
            if not column.every_image and not any(1 <= c <= known for c in np.unique(truth)):
                continue
            for t, p in zip(truth.flatten().tolist(), prediction.flatten().tolist(), strict=True):
                if t == 0:
                    t = column.label_0(data)
                elif known < t != VOID:
                    t = column.future(data)
                if t != VOID:
                    true[t] += 1
                    found[p] += 1
                    both[t] += t == p
        rows.append(_slow_means(column, known, true, found, both))
        means = [row["miou"] for row in rows]
        rows[-1] |= {"avg": sum(means) / len(means), "imiou": sum(means[1:]) / step if step else math.nan}
    return rows


def _slow_means(
    column: Column, known: int, true: Counter[int], found: Counter[int], both: Counter[int]
) -> dict[str, float]:
    def mean(classes: range) -> float:
        ious = [
            100 * both[c] / (true[c] + found[c] - both[c] + column.epsilon)
            for c in classes
            if true[c] or column.absent_is_zero
        ]
        return sum(ious) / len(ious) if ious else math.nan

    first = 0 if column.background else 1
    base = KNOWN[0] + 1
    return {"old": mean(range(first, base)), "new": mean(range(base, known + 1)), "miou": mean(range(first, known + 1))}


# ---------------------------------------------------------------- from the records


def recorded(folder: Path, data: str, evaluated: Evaluated, **conventions: Any) -> Run:
    spec = spec_of(scenario=f"{data}-10-5-overlapped", class_names=[f"c{label}" for label in range(21)])
    groups = [ORDER[first:last] for first, last in zip((0, *KNOWN), KNOWN, strict=False)]
    spec["steps"] = [{"step": step, "classes": group} for step, group in enumerate(groups)]
    spec["conventions"] |= conventions
    writer = RunWriter(folder)
    writer.start(spec)
    for step, known in enumerate(KNOWN):
        rows = {True: np.zeros((23, known + 1), int), False: np.zeros((23, known + 1), int)}
        for truth, prediction in zip(evaluated.truths, evaluated.predictions[step], strict=True):
            shows = bool(((truth > 0) & (truth <= known)).any())
            np.add.at(rows[shows], (np.minimum(truth, 22).flatten(), prediction.flatten()), 1)
        writer.add_step(StepCounts(rows[True], rows[False]), cost_of(step))
    writer.finish()
    return read_run(folder)


@pytest.mark.parametrize("data", ["voc", "ade"])
@pytest.mark.parametrize("name", COLUMNS)
def test_every_columns_numbers_come_from_one_runs_records(
    name: str, data: str, evaluated: Evaluated, tmp_path: Path
) -> None:
    column = COLUMNS[name]
    run = recorded(tmp_path / "run", data, evaluated)
    expected = slow(column, data, evaluated)
    for given in (frame([run], convention=column.asked), summary(frame([run], convention=column.asked))):
        assert set(given["counted_as"]) == {column.asked}
    [counted] = under([run], column.asked)
    end = "" if column.background else "_without_background"
    for row, wanted in zip(counted.steps, expected, strict=True):
        for measure, value in wanted.items():
            assert not math.isnan(value) or (measure, row["step"]) in (("new", 0), ("imiou", 0))
            shown = row[measure if measure == "new" else f"{measure}{end}"]
            assert shown == round(value, 4) or (math.isnan(shown) and math.isnan(value)), (measure, shown, value)


def test_the_columns_differ_in_what_they_make_of_one_prediction(evaluated: Evaluated, tmp_path: Path) -> None:
    run = recorded(tmp_path / "run", "ade", evaluated)
    numbers = {column.asked: under([run], column.asked)[0].steps[0]["miou"] for column in COLUMNS.values()}
    assert len(set(numbers.values())) >= 4, numbers


@pytest.mark.parametrize("chosen", [{"future_classes": "ignore"}, {"test_images": "all"}])
def test_a_run_of_another_convention_and_one_read_by_it_give_the_same_files(
    chosen: dict[str, str], evaluated: Evaluated, tmp_path: Path
) -> None:
    made = recorded(tmp_path / "made", "voc", evaluated, **chosen)
    [text] = [f"{key}={value}" for key, value in chosen.items()]
    [read] = under([recorded(tmp_path / "read", "voc", evaluated)], text)
    np.testing.assert_equal(read.steps, made.steps)
    np.testing.assert_equal(read.confusions, made.confusions)
    [back] = under([made], "em")
    np.testing.assert_equal(back.steps, read_run(tmp_path / "read").steps)


def test_a_run_without_complete_counts_gives_its_own_convention_and_says_what_it_cannot(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path))
    [counted] = under([run], "em")
    np.testing.assert_equal(counted.steps, run.steps)
    [with_truth] = under([run], "mean_classes=truth,background_in_mean=no")
    assert with_truth.steps[0]["miou"] == run.steps[0]["miou"]
    with pytest.raises(RecordError, match=r"future_classes ignore is not to be had: .*step-0\.csv: missing"):
        under([run], "future_classes=ignore")


def test_counts_that_do_not_give_the_runs_own_matrix_are_refused(evaluated: Evaluated, tmp_path: Path) -> None:
    run = recorded(tmp_path / "run", "voc", evaluated)
    shutil.copyfile(run.path / "counts" / "step-0.csv", tmp_path / "kept")
    text = (tmp_path / "kept").read_text(encoding="utf-8").splitlines()
    text[1] = ",".join(["known", "0", *["1"] * 11])
    (run.path / "counts" / "step-0.csv").write_text("\n".join(text) + "\n", encoding="utf-8")
    with pytest.raises(RecordError, match=r"step-0\.csv: does not give"):
        under([run], "mib")


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ("mip", "a name is one of em, mib, plop, ssul, dkd"),
        ("mib,dkd", "a name is one of"),
        ("future=void", "there is no future; switches are future_classes=background|ignore"),
        ("test_images=some", "test_images is known or all, not 'some'"),
        ("short_side=512", "`bench evaluate RUN_DIR --set evaluation.short_side=512`"),
        ("crop=512", "`bench evaluate RUN_DIR --set evaluation.short_side=512`"),
    ],
)
def test_what_cannot_be_chosen_is_told_in_one_line(asked: str, told: str) -> None:
    with pytest.raises(ConventionError) as error:
        parse_choice(asked)
    assert str(error.value).startswith(f"{asked}: ") and told in str(error.value) and "\n" not in str(error.value)


def test_tables_are_printed_by_the_convention_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    others = np.zeros((6, 3), int)
    others[0, 1] = 5
    writer = RunWriter(tmp_path / "runs" / "a" / "b" / "a1-seed0")
    writer.start(spec_of())
    writer.add_step(StepCounts(np.vstack([STEP_0, [[0, 4, 0], [0, 0, 0], [9, 9, 9]]]), others), cost_of(0))
    writer.add_step(StepCounts(np.eye(6, 4, dtype=int), np.zeros((6, 4), int)), cost_of(1))
    writer.finish()
    command = ["tables", "--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out"), "--format", "csv,markdown"]
    with pytest.raises(SystemExit, match="0"):
        main([*command, "--convention", "mib"])
    assert "counted as `mib`" in next((tmp_path / "out").glob("*.md")).read_text(encoding="utf-8")
    with pytest.raises(SystemExit, match="2"):
        main([*command, "--convention", "mip"])
    assert "--convention mip: a name is one of em, mib" in capsys.readouterr().err
