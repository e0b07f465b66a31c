"""A method's state as plain data and tensors, and back; see `Method.state_dict`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.annotated import Exemplar
from benchmarks.streams import SegmentationScenario
from strategies.learning.segmentation import SegmentationTemplate


def packed(value: Any) -> Any:
    """Return state (see `Method.state_dict`) as plain data and tensors: an exemplar becomes a reference to it.

    Arrays and exemplars become tuples that begin with their kind. Raises TypeError for anything else.
    """
    if isinstance(value, Exemplar):
        return ("exemplar", value.step, value.index, value.image_id)
    if isinstance(value, np.ndarray):
        return ("array", torch.from_numpy(np.ascontiguousarray(value)))
    if isinstance(value, Mapping):
        return {key: packed(part) for key, part in value.items()}
    if isinstance(value, list):
        return [packed(part) for part in value]
    if value is None or isinstance(value, Tensor) or type(value) in (bool, int, float, str):
        return value
    raise TypeError(f"a {type(value).__name__} in the state of a method: see Method.state_dict for what it may hold")


def unpacked(value: Any, exemplar_of: Callable[[int, int, str], Exemplar]) -> Any:
    """Return what was packed; `exemplar_of` finds an exemplar by its step, its index there and its image's id."""
    if isinstance(value, tuple):
        kind, *content = value
        return content[0].numpy() if kind == "array" else exemplar_of(*content)
    if isinstance(value, dict):
        return {key: unpacked(part, exemplar_of) for key, part in value.items()}
    if isinstance(value, list):
        return [unpacked(part, exemplar_of) for part in value]
    return value


def load_packed(template: SegmentationTemplate, state: Any, benchmark: SegmentationScenario) -> None:
    """Load a template's packed state, made on the same benchmark, into one built alike."""
    find = exemplars_of(benchmark)
    template.load_state_dict(unpacked(state, lambda *place: template.watched(find(*place))))


def exemplars_of(benchmark: SegmentationScenario) -> Callable[[int, int, str], Exemplar]:
    """Return what finds the exemplars of a benchmark's train stream, and raises LookupError where one is not there."""

    def find(step: int, index: int, image_id: str) -> Exemplar:
        found: Exemplar = benchmark.train_stream[step].data.exemplar(index)
        if found.image_id != image_id:
            raise LookupError(f"image {index} of step {step} is {found.image_id}, not {image_id}")
        return found

    return find
