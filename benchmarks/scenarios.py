"""A scenario: which classes a step adds, which images it brings, which images test it.

Names are DATASET-BASE-INCREMENT-SETUP, as in `voc-15-1-disjoint`: BASE classes in step 0, then INCREMENT
classes a step (METHODS 'Scenarios'; Cermelli et al., CVPR 2020, for the two setups).
"""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.errors import DataError
from benchmarks.imageset import ImageSet
from benchmarks.registry import IMAGE_SETS, image_set_class, open_image_set

SETUPS = ("disjoint", "overlapped")
STANDARD = {name: tuple(f"{a}-{s}" for a in ("19-1", "15-5", "15-1") for s in SETUPS) for name in IMAGE_SETS}
"""The scenarios of the paper's tables, by data set."""

_NAME = re.compile(r"(?P<dataset>[a-z0-9]+)-(?P<base>0|[1-9][0-9]*)-(?P<increment>0|[1-9][0-9]*)-(?P<setup>[a-z]+)")


def scenario_names() -> list[str]:
    """Return the names of all standard scenarios."""
    return [f"{dataset}-{rest}" for dataset, names in STANDARD.items() for rest in names]


@dataclass(frozen=True)
class ScenarioName:
    """A parsed scenario name; `groups[t]` holds the class ids that step t adds."""

    dataset: str
    split: str
    setup: str
    groups: tuple[tuple[int, ...], ...]

    def __str__(self) -> str:
        return f"{self.dataset}-{self.split}-{self.setup}"


def parse_name(name: str) -> ScenarioName:
    """Parse a scenario name; raise `DataError` that names the nearest known one."""
    match = _NAME.fullmatch(name)
    if match is None or match["dataset"] not in IMAGE_SETS or match["setup"] not in SETUPS:
        near = difflib.get_close_matches(name, scenario_names(), n=1, cutoff=0.4)
        hint = f"; did you mean {near[0]}?" if near else "; `bench scenarios` lists them"
        raise DataError(f"unknown scenario '{name}'{hint}")
    base, increment = int(match["base"]), int(match["increment"])
    count = len(image_set_class(match["dataset"]).class_names) - 1
    if not 0 < base < count or increment < 1 or (count - base) % increment:
        raise DataError(
            f"scenario '{name}': {match['dataset']} has {count} classes, so {base} base classes and {increment} "
            f"a step do not come out even"
        )
    starts = [1, *range(base + 1, count + 1, increment)]
    groups = tuple(tuple(range(a, b)) for a, b in zip(starts, [*starts[1:], count + 1], strict=True))
    return ScenarioName(match["dataset"], f"{base}-{increment}", match["setup"], groups)


@dataclass(frozen=True)
class Step:
    """A step's new classes and the images that train and test it, as places in the split's list."""

    classes: tuple[int, ...]
    train: np.ndarray
    test: np.ndarray


@dataclass(frozen=True)
class Scenario:
    """A scenario computed on an image set."""

    name: ScenarioName
    imageset: ImageSet
    steps: tuple[Step, ...]

    def train_sha256(self, step: int) -> str:
        """SHA-256 of the step's training ids, one per line, each line ended, in stream order."""
        return _digest(self.imageset.ids("train"), self.steps[step].train)

    @property
    def split_hash(self) -> str:
        """SHA-256 over all steps' classes, training ids and test ids."""
        content = hashlib.sha256()
        for t, step in enumerate(self.steps):
            test = _digest(self.imageset.ids("test"), step.test)
            content.update(f"{t} {step.classes} {self.train_sha256(t)} {test}\n".encode())
        return content.hexdigest()

    @property
    def published_sizes(self) -> tuple[int, ...] | None:
        """Training images per step as published, where they are."""
        return self.imageset.published_sizes.get(f"{self.name.split}-{self.name.setup}")

    def as_dict(self) -> dict[str, Any]:
        """Return what `bench scenario --json` prints."""
        return {
            "name": str(self.name),
            "dataset": self.name.dataset,
            "setup": self.name.setup,
            "steps": [
                {
                    "step": t,
                    "classes": list(step.classes),
                    "train_images": len(step.train),
                    "test_images": len(step.test),
                    "train_sha256": self.train_sha256(t),
                }
                for t, step in enumerate(self.steps)
            ],
            "split_hash": self.split_hash,
            "published_train_images": list(self.published_sizes) if self.published_sizes else None,
        }


def load_scenario(name: str, data_root: str | Path | None = None) -> Scenario:
    """Compute a scenario from its name; needs the label maps alone, not the photographs."""
    parsed = parse_name(name)
    return compute_scenario(parsed, open_image_set(parsed.dataset, data_root))


def compute_scenario(name: ScenarioName, imageset: ImageSet) -> Scenario:
    """Compute the steps of a parsed name on an image set."""
    train = training_images(imageset.class_presence("train"), name.groups, name.setup)
    test = tested_images(imageset.class_presence("test"), name.groups)
    steps = tuple(Step(*parts) for parts in zip(name.groups, train, test, strict=True))
    for t, step in enumerate(steps):
        if not len(step.train) or not len(step.test):
            kind = "training" if not len(step.train) else "test"
            raise DataError(f"scenario '{name}': step {t} (classes {list(step.classes)}) has no {kind} image")
    return Scenario(name, imageset, steps)


def training_images(presence: np.ndarray, groups: Sequence[Sequence[int]], setup: str) -> list[np.ndarray]:
    """Return each step's training images as places in the list, in the list's order.

    `presence` is bool (images, K + 1). Overlapped: the image has a pixel of the step's classes.
    Disjoint: ... and none of a class of a later step.
    """
    has = np.stack([presence[:, list(group)].any(axis=1) for group in groups], axis=1)
    if setup == "overlapped":
        return [np.flatnonzero(has[:, t]) for t in range(len(groups))]
    last = len(groups) - 1 - has[:, ::-1].argmax(axis=1)
    return [np.flatnonzero((last == t) & has[:, t]) for t in range(len(groups))]


def held_out(count: int, fraction: float, seed: int = 0) -> np.ndarray:
    """Return bool (count,): True for the training images that go to the valid stream."""
    held = np.zeros(count, dtype=bool)
    held[np.random.default_rng(seed).permutation(count)[: round(count * fraction)]] = True
    return held


def training_parts(scenario: Scenario, valid_fraction: float, valid_seed: int = 0) -> list[np.ndarray]:
    """Return each step's training images, less those that go to the valid stream."""
    held = held_out(len(scenario.imageset.ids("train")), valid_fraction, valid_seed)
    return [step.train[~held[step.train]] for step in scenario.steps]


def require_training_images(scenario: Scenario, valid_fraction: float) -> None:
    """Raise `DataError` where a valid fraction leaves a step without a training image."""
    for t, part in enumerate(training_parts(scenario, valid_fraction)):
        if not len(part):
            raise DataError(f"scenario '{scenario.name}': valid_fraction {valid_fraction} leaves step {t} no image")


def tested_images(presence: np.ndarray, groups: Sequence[Sequence[int]]) -> list[np.ndarray]:
    """Return each step's test images: every one that has a pixel of a class known by then."""
    known = [[c for group in groups[: t + 1] for c in group] for t in range(len(groups))]
    return [np.flatnonzero(presence[:, classes].any(axis=1)) for classes in known]


def _digest(ids: Sequence[str], places: np.ndarray) -> str:
    return hashlib.sha256("".join(f"{ids[i]}\n" for i in places).encode()).hexdigest()
