"""The complete counts of a step: a row for every class, future ones too, and for void, apart by images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from reports.counts import StepCounts, counts_path, counts_text, folded, read_counts
from reports.files import RecordError

CLASSES, OUTPUTS = 6, 4
NAMES = [f"class {number}" for number in range(CLASSES)]


def counts(classes: int = CLASSES, outputs: int = OUTPUTS, most: int = 100) -> StepCounts:
    random = np.random.default_rng(classes)
    known, others = random.integers(0, most, (2, classes + 2, outputs))
    others[1:outputs] = 0
    return StepCounts(known, others)


def written(folder: Path) -> Path:
    path = counts_path(folder, 2)
    path.parent.mkdir()
    path.write_text(counts_text(counts(), NAMES[:OUTPUTS]), encoding="utf-8")
    return path


def test_counts_are_read_as_they_were_written(tmp_path: Path) -> None:
    written(tmp_path)
    read = read_counts(tmp_path, 2, NAMES, OUTPUTS)
    np.testing.assert_array_equal(read.known, counts().known)
    np.testing.assert_array_equal(read.others, counts().others)


def test_future_classes_and_other_images_are_counted_as_the_conventions_say() -> None:
    known, others = counts().known, counts().others
    for images, rows in (("known", known), ("all", known + others)):
        ignored = folded(counts(), "ignore", images)
        np.testing.assert_array_equal(ignored, rows[:OUTPUTS])
        as_background = folded(counts(), "background", images)
        np.testing.assert_array_equal(as_background[0], rows[0] + rows[4:7].sum(0))  # void, row 7, is nowhere
        np.testing.assert_array_equal(as_background[1:], rows[1:OUTPUTS])


@pytest.mark.parametrize("outputs", [101, 146, 151])
def test_a_step_of_151_classes_takes_200_kb_at_most(outputs: int) -> None:
    """2,000 photographs of 1.3 megapixels, whose pixels lie in all cells alike, which makes the most digits."""
    every = 2_000 * 1_300_000 // (153 * outputs)
    assert len(counts_text(counts(151, outputs, 2 * every), ["a class's name"] * outputs)) < 200_000


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("known,3", "known,8", "not the counts of 4 outputs on the 6 classes"),
        ("known,3", "known,3,9", "line 5 has 7 cells"),
        ("class 1", "class 7", "not the counts"),
        ("known,3,", "known,3,-", "not a count of pixels"),
        ("known,3,", "known,3,x", "not a count of pixels"),
        ("known,3,", f"known,3,{10**20}", "not a count of pixels"),
    ],
)
def test_a_damaged_file_is_told_in_one_line(tmp_path: Path, old: str, new: str, told: str) -> None:
    path = written(tmp_path)
    path.write_text(path.read_text(encoding="utf-8").replace(old, new, 1), encoding="utf-8")
    with pytest.raises(RecordError) as error:
        read_counts(tmp_path, 2, NAMES, OUTPUTS)
    assert str(path) in str(error.value) and told in str(error.value) and "\n" not in str(error.value)


def test_counts_that_cannot_be_are_refused() -> None:
    known, others = counts().known, counts().others
    with pytest.raises(ValueError, match="said to show none"):
        StepCounts(known, known)
    with pytest.raises(ValueError, match="not \\(classes"):
        StepCounts(known, others[:, 1:])
    with pytest.raises(ValueError, match="integers from 0"):
        StepCounts(-known, others)
