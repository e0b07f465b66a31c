"""One evaluation of a run: all images of its set, those with a class known by then apart from the others."""

from __future__ import annotations

import numpy as np

from benchmarks.streams import REST, SegmentationScenario
from reports.counts import StepCounts
from strategies.learning.evaluation import PixelMeter
from strategies.learning.template import OnlineTemplate


def count_pixels(
    template: OnlineTemplate, benchmark: SegmentationScenario, stream: str, step: int, meter: PixelMeter
) -> StepCounts:
    """Evaluate on all images of `test` or `valid` and return their pixels; `meter` is a plugin of the template."""
    tested, rest = (benchmark.streams[name][step] for name in (stream, stream + REST))
    # Last comes what Avalanche's metrics and loggers name their values by.
    template.eval([rest, tested] if len(rest.data) else [tested])
    return step_counts(meter, stream)


def step_counts(meter: PixelMeter, stream: str) -> StepCounts:
    """Return what a meter counted in the last evaluation on `stream`."""
    known = meter.counts[stream]
    return StepCounts(known, meter.counts.get(stream + REST, np.zeros_like(known)))
