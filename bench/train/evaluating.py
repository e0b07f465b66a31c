"""One evaluation of a run: all images of its set, those with a class known by then apart from the others."""

from __future__ import annotations

import numpy as np

from benchmarks.streams import REST, SegmentationScenario
from reports.contours import StepContours, contour_pixels
from reports.counts import StepCounts
from strategies.learning.evaluation import PixelMeter
from strategies.learning.segmentation import SegmentationTemplate


def count_pixels(
    template: SegmentationTemplate, benchmark: SegmentationScenario, stream: str, step: int, meter: PixelMeter
) -> tuple[StepCounts, StepContours]:
    """Evaluate on all images of `test` or `valid`, return their pixels and those near contours.

    `meter` is a plugin of the template.
    """
    tested, rest = (benchmark.streams[name][step] for name in (stream, stream + REST))
    # Last comes what Avalanche's metrics and loggers name their values by.
    template.eval([rest, tested] if len(rest.data) else [tested])
    known, others = _parts(meter, stream)
    return step_counts(meter, stream), StepContours(contour_pixels(known), contour_pixels(others))


def step_counts(meter: PixelMeter, stream: str) -> StepCounts:
    """Return what a meter counted in the last evaluation on `stream`."""
    known, others = _parts(meter, stream)
    return StepCounts(known.sum(axis=(0, 1)), others.sum(axis=(0, 1)))


def _parts(meter: PixelMeter, stream: str) -> tuple[np.ndarray, np.ndarray]:
    """Pixels of the images with a known class, and of the others."""
    known = meter.counts[stream]
    return known, meter.counts.get(stream + REST, np.zeros_like(known))
