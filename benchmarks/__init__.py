"""Data in: an image set and a scenario name become Avalanche streams.

Nothing is imported before it is used: scenarios need no torch, and much of the command line needs none of this.
"""

from __future__ import annotations

import importlib
import warnings
from typing import TYPE_CHECKING, Any

from benchmarks.avalanche_home import let_avalanche_do_without_home

if TYPE_CHECKING:
    from benchmarks.errors import DataError
    from benchmarks.names import scenario_names
    from benchmarks.scenarios import Scenario, load_scenario
    from benchmarks.streams import SegmentationScenario, load_benchmark

_MODULES = {
    "DataError": "errors",
    "Scenario": "scenarios",
    "SegmentationScenario": "streams",
    "load_benchmark": "streams",
    "load_scenario": "scenarios",
    "scenario_names": "scenarios",
}

__all__ = [
    "DataError",
    "Scenario",
    "SegmentationScenario",
    "load_benchmark",
    "load_scenario",
    "scenario_names",
]

let_avalanche_do_without_home()
# Avalanche imports a solver package of which nothing here makes use, and that says so at every start.
warnings.filterwarnings("ignore", message="no QP solver found")


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(f"benchmarks.{_MODULES[name]}"), name)
    raise AttributeError(f"module 'benchmarks' has no attribute '{name}'")
