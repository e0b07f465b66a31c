"""Data in: an image set and a scenario name become Avalanche streams.

`load_benchmark` imports torch and Avalanche when it is called; scenarios are computed without them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.errors import DataError
from benchmarks.scenarios import Scenario, load_scenario, scenario_names

if TYPE_CHECKING:
    from benchmarks.streams import SegmentationScenario, load_benchmark

__all__ = [
    "DataError",
    "Scenario",
    "SegmentationScenario",
    "load_benchmark",
    "load_scenario",
    "scenario_names",
]


def __getattr__(name: str) -> Any:
    if name in ("load_benchmark", "SegmentationScenario"):
        from benchmarks import streams

        return getattr(streams, name)
    raise AttributeError(f"module 'benchmarks' has no attribute '{name}'")
