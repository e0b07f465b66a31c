"""Over how many classes the means of runs are, and which classes are left out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from reports.conventions import background_counts
from reports.metrics import class_iou
from reports.notes import code, joined
from reports.records import Run
from reports.steps import mean_classes_of


def classes_note(runs: Sequence[Run]) -> str:
    """Return a sentence that says over how many classes the means of one scenario's runs are, and which are left out.

    After the last step, with or without the background as the conventions say; '' without a run. Raises RecordError if
    a confusion matrix is damaged.
    """
    if not runs:
        return ""
    first, base = _first_counted(runs), len(runs[0].spec["steps"][0]["classes"])
    names = [str(name) for name in runs[0].spec["class_names"]]
    present, in_truth = _presence(runs)
    groups = {"old": range(first, base + 1), "new": range(base + 1, len(names))}
    each = ", ".join(f"{name} {_count(present[:, list(group)])}" for name, group in groups.items() if group)
    among = "without" if first else "with"
    absent = [names[c] for c in range(first, len(names)) if not present[:, c].all()]
    zero = [names[c] for c in range(first, len(names)) if (present & ~in_truth)[:, c].any()]
    rule = mean_classes_of(runs[0].spec)
    nowhere = "the truth" if rule == "truth" else "truth and prediction"
    wrong = "" if rule == "all" else "predicted "
    sentences = [
        f"`all` is the mean of {_count(present[:, first:])} classes {among} the background ({each}).",
        f"Left out, without a pixel in {nowhere}: {joined(list(map(code, absent)))}." if absent else "",
        f"Counted as 0, {wrong}without a pixel in the truth: {joined(list(map(code, zero)))}." if zero else "",
    ]
    return " ".join(filter(None, sentences))


def every_class_counts(runs: Sequence[Run]) -> bool:
    """Return whether every class of one scenario has a pixel in the truth of every run's last step."""
    return bool(_presence(runs)[1][:, _first_counted(runs) :].all())


def _first_counted(runs: Sequence[Run]) -> int:
    return 0 if background_counts(runs[0].spec["conventions"]) else 1


def _presence(runs: Sequence[Run]) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Whether a class counts after each run's last step, and whether the truth has a pixel of it: runs x classes."""
    present = np.array([~np.isnan(class_iou(run.last_confusion, mean_classes_of(run.spec))) for run in runs])
    return present, np.array([run.last_confusion.sum(axis=1) > 0 for run in runs])


def _count(present: npt.NDArray[np.bool_]) -> str:
    """`21`, `18 of 21` or `17 to 18 of 21`: present are runs x classes."""
    counts = present.sum(axis=1)
    low, high, size = int(counts.min()), int(counts.max()), present.shape[1]
    if low == size:
        return str(size)
    return f"{low} of {size}" if low == high else f"{low} to {high} of {size}"
