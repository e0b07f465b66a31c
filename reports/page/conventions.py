"""What a page says of conventions and measures: their values and what they mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from markupsafe import Markup

from reports.conventions import UNKNOWN, convention_text
from reports.page.parts import codes, definitions, subsection
from reports.records import Run
from reports.templating import joined, part

if TYPE_CHECKING:
    pass


_MEANINGS = {
    ("future_classes", "background"): "pixels of classes not yet learned count as background in the truth",
    ("future_classes", "ignore"): "pixels of classes not yet learned are void: no measure counts them",
    ("test_images", "known"): "a step is tested on the images that show a class learned by then",
    ("test_images", "all"): "every step is tested on all images",
    ("background_in_mean", "yes"): "the background is one of the classes in old, all, imIoU and avg",
    ("background_in_mean", "no"): "the background is left out of old, all, imIoU and avg",
    ("counted_as", ""): "the convention that was asked for, in the place of the runs' own",
    ("label_0", "background"): "pixels of the data's label 0, on ADE20K other objects, are of the background",
    ("label_0", "void"): "pixels of the data's label 0 are void: no measure counts them",
    ("mean_classes", "present"): "a mean is over the classes with a pixel in the truth or in a prediction",
    ("mean_classes", "truth"): "a mean is over the classes with a pixel in the truth",
    ("mean_classes", "all"): "a mean is over all classes, one without a pixel anywhere counts as 0",
    ("resolution", ""): "the size at which predictions are compared with the truth",
    ("evaluate_on", "test"): "measured on the test images",
    ("evaluate_on", "valid"): "measured on training images held out from training, not on the test images",
}
"""What a convention's value means; the value '' stands for any."""
_MEASURES = {
    "IoU": "of a class: pixels that are of it and predicted so, over those that are either, over all test images",
    "all (mIoU)": "the mean IoU of the classes learned so far; one without a pixel in truth and prediction is left out",
    "old, new": "the mean IoU of the classes of the first step, and of those learned later, after the last step",
    "imIoU": "the mean of the mIoU after each step but the first: the increments 1..T",
    "avg": "the mean of the mIoU after each step, the first one counted: 0..T, as the offline literature has it",
    "hIoU": "the harmonic mean of old and new",
    "pixel accuracy": "the share of all pixels that count, the background's too, that are predicted right",
    "frequency-weighted IoU": "the mean of the classes' IoU weighted by their share of the pixels",
    "boundary IoU": "the mean IoU of the pixels near contours, within 2 % of an image's diagonal, alone",
    "forgetting": "the mean over earlier steps' classes of their best mIoU before less that after the step, in points",
    "backward transfer": "the mean over earlier steps' classes of their mIoU less that when learned, in points",
    "±": "the sample standard deviation over seeds",
}


def conventions_html(runs: Sequence[Run]) -> Markup:
    """Return the conventions of runs and the meaning of measures; '' without a run."""
    keys = dict.fromkeys(key for run in runs for key in run.spec["conventions"])
    kept = subsection("Conventions", definitions((key.replace("_", " "), _convention(key, runs)) for key in keys))
    return joined([kept, subsection("Measures", definitions(_MEASURES.items()))]) if runs else Markup()


def _convention(key: str, runs: Sequence[Run]) -> Markup:
    """Each value of a convention, what it means, and where values differ the scenarios with runs of it."""
    holders: dict[str, list[str]] = {}
    for run in runs:
        holders.setdefault(convention_text(run.spec["conventions"].get(key, UNKNOWN)), []).append(run.spec["scenario"])
    told = [
        (value, codes(own, ", ") if len(holders) > 1 else "", _MEANINGS.get((key, value), _MEANINGS.get((key, ""), "")))
        for value, own in holders.items()
    ]
    return part("convention", told)
