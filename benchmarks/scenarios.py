"""A scenario: which classes a step adds, which images it brings, which images test it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from benchmarks.class_list import open_class_list
from benchmarks.decoding import MAX_MEGAPIXELS
from benchmarks.division import RULES, division_text, overlapped, tested_images
from benchmarks.errors import DataError
from benchmarks.imageset import SPLITS, ImageSet, Split
from benchmarks.indices import read_index_files
from benchmarks.names import (
    Groups,
    ScenarioName,
    canonical_name,
    class_groups,
    parse_name,
    scenario_names,
    short_digest,
)
from benchmarks.paths import user_path
from benchmarks.sets.registry import open_image_set

__all__ = ["Scenario", "Step", "compute_scenario", "load_scenario", "parse_name", "scenario_names"]

SharedIds = Literal["refuse", "allow"]
"""What becomes of images that the training and the test list name both."""
THIN = 0.01
"""A step with a smaller share of the training images is told."""


@dataclass(frozen=True)
class Step:
    """A step's new classes and the images that train and test it, as places in the split's list."""

    classes: tuple[int, ...]
    train: np.ndarray
    test: np.ndarray


@dataclass(frozen=True)
class Scenario:
    """A scenario computed on an image set; `name` is its canonical name, `asked` the one it was asked for by."""

    name: str
    asked: ScenarioName
    imageset: ImageSet
    steps: tuple[Step, ...]
    absent: Mapping[Split, Sequence[int]]
    """The classes that no image of a split shows; of a split whose images are known."""

    @property
    def groups(self) -> Groups:
        """The class ids that each step adds."""
        return tuple(step.classes for step in self.steps)

    @property
    def annotates_all_seen(self) -> bool:
        """Whether a training image is annotated with every class seen so far, not with its step's own alone."""
        return self.asked.setup == "sequential"

    @property
    def class_names(self) -> list[str]:
        """Names in the order of learning, the background first."""
        return [self.imageset.class_names[c] for c in (0, *(c for group in self.groups for c in group))]

    def train_sha256(self, step: int) -> str:
        """SHA-256 of the step's training ids, one per line, each line ended, in stream order."""
        return self._train_digests[step]

    @cached_property
    def _train_digests(self) -> list[str]:
        return [_digest(self.imageset.ids("train"), step.train) for step in self.steps]

    @cached_property
    def split_hash(self) -> str:
        """SHA-256 over all steps' classes, training ids and test ids, and over what is annotated."""
        content = hashlib.sha256(b"all seen classes are annotated\n" if self.annotates_all_seen else b"")
        for t, step in enumerate(self.steps):
            test = _digest(self.imageset.ids("test"), step.test)
            content.update(f"{t} {step.classes} {self.train_sha256(t)} {test}\n".encode())
        return content.hexdigest()

    @property
    def division(self) -> str:
        """How the images were divided among the steps: a rule (and what it joined), `overlapped` or `index files`."""
        if self.asked.index_files is not None:
            return "index files"
        if self.asked.setup == "overlapped":
            return "overlapped"
        return division_text(self.asked.rule or self.imageset.disjoint_rule, self.groups)

    @property
    def published_sizes(self) -> tuple[int, ...] | None:
        """Training images per step as published, where they are."""
        return self.imageset.published_sizes.get(self.name.partition("-")[2])

    @cached_property
    def images_without_own_class(self) -> list[int]:
        """How many of each step's training images show none of its classes: index files may list such."""
        if self.asked.index_files is None:
            return [0] * len(self.steps)
        presence = self.imageset.class_presence("train")
        return [int((~presence[step.train][:, list(step.classes)].any(axis=1)).sum()) for step in self.steps]

    def remarks(self) -> list[str]:
        """Return what has to be told before the scenario is used: lists, images in both, classes without images."""
        remarks = self.imageset.remarks()
        if both := self.imageset.shared_ids():
            remarks.append(f"{len(both)} images are in the training and in the test list, {both[0]} among them")
        for split, classes in self.absent.items():
            if classes:
                remarks.append(f"no {split} image shows {classes_told(classes, self.imageset.class_names)}")
        if thin := self.thin_steps:
            remarks.append(thin)
        return remarks

    @property
    def thin_steps(self) -> str | None:
        """One line about steps that the last class of each image leaves hardly a training image, and the ways out."""
        images = len(self.imageset.ids("train"))
        sizes = {t: len(step.train) for t, step in enumerate(self.steps) if len(step.train) < THIN * images}
        if not sizes or not _divided_by_last_class(self.asked, self.imageset):
            return None
        told = ", ".join(f"step {t} has {size}" for t, size in sizes.items())
        ways_out = "rule=ade shares the images out" + (
            ", overlapped gives each step all images of its classes" if self.asked.setup == "disjoint" else ""
        )
        return f"{told} of {images} training images, as most show a later class too: {ways_out}"

    def as_dict(self) -> dict[str, Any]:
        """Return what `bench scenario --json` prints; what test images tell is None where none are known."""
        tested = bool(self.imageset.ids("test"))
        return {
            "name": self.name,
            "dataset": self.asked.dataset,
            "setup": self.asked.setup,
            "division": self.division,
            "steps": [
                {
                    "step": t,
                    "classes": list(step.classes),
                    "train_images": len(step.train),
                    "test_images": len(step.test) if tested else None,
                    "train_sha256": self.train_sha256(t),
                }
                for t, step in enumerate(self.steps)
            ],
            "split_hash": self.split_hash if tested else None,
            "published_train_images": list(self.published_sizes) if self.published_sizes else None,
        }


def load_scenario(
    name: str,
    data_root: str | Path | None = None,
    train_list: str | Path | None = None,
    shared_ids: SharedIds = "refuse",
    class_list: Path | None = None,
    max_megapixels: float = MAX_MEGAPIXELS,
) -> Scenario:
    """Compute a scenario from its name; needs the label maps alone, not the photographs.

    `train_list` is a file that names the training images in place of the data root's own. Raises `DataError` for
    images in the training and in the test list, unless `shared_ids` allows them, and for images of more than
    `max_megapixels`.
    From a class list (see `benchmarks.class_list`) it needs no files of images, and nothing can be trained on it.
    """
    parsed = parse_name(name)
    if class_list is not None:
        if train_list is not None:
            raise DataError(f"--class-list {class_list} names the training images: --train-list cannot be given too")
        return compute_scenario(parsed, open_class_list(parsed.dataset, class_list))
    imageset = open_image_set(parsed.dataset, data_root, train_list, max_megapixels)
    if shared_ids == "refuse":
        _require_separate_splits(imageset)
    return compute_scenario(parsed, imageset)


def _require_separate_splits(imageset: ImageSet) -> None:
    if both := imageset.shared_ids():
        names = ", ".join(both[:3]) + (", ..." if len(both) > 3 else "")
        raise DataError(
            f"{imageset.name}: {len(both)} image{'s are' if len(both) > 1 else ' is'} in the training and in the test "
            f"list ({names}); --shared-ids allow trains on them all the same"
        )


def compute_scenario(name: ScenarioName, imageset: ImageSet, groups: Groups | None = None) -> Scenario:
    """Compute the steps of a parsed name on an image set; `groups` are by default those that the name tells."""
    groups = groups or class_groups(name, imageset.class_names)
    if name.first is not None and name.first > len(groups):
        raise DataError(f"scenario '{name}': it has {len(groups)} steps, not {name.first}")
    presence = {split: imageset.class_presence(split) for split in SPLITS}
    index_digest = None
    if name.index_files is None:
        rule = overlapped if name.setup == "overlapped" else RULES[name.rule or imageset.disjoint_rule]
        train = rule(presence["train"], groups)
    else:
        train = _listed_images(name, imageset, len(groups))
        index_digest = short_digest([_digest(imageset.ids("train"), places) for places in train])
    test = tested_images(presence["test"], groups)
    steps = tuple(Step(*parts) for parts in zip(groups, train, test, strict=True))
    for t, step in enumerate(steps):
        if not len(step.train) or (imageset.ids("test") and not len(step.test)):
            kind = "training" if not len(step.train) else "test"
            hint = _WAY_OUT if kind == "training" and _divided_by_last_class(name, imageset) else ""
            classes = ", ".join(map(str, step.classes[:5])) + (", ..." if len(step.classes) > 5 else "")
            raise DataError(f"scenario '{name}': step {t} (classes {classes}) has no {kind} image{hint}")
    absent = {split: _absent_classes(shown) for split, shown in presence.items() if len(shown)}
    canonical = canonical_name(name, groups, imageset, index_digest)
    return Scenario(canonical, name, imageset, steps[: name.first], absent)


def _absent_classes(presence: np.ndarray) -> list[int]:
    return [c for c, count in enumerate(presence.sum(axis=0)) if c and not count]


def classes_told(classes: Sequence[int], class_names: Sequence[str]) -> str:
    """Return classes in words, how many of all they are and which."""
    told = ", ".join(f"{c} {class_names[c]}" for c in classes)
    return f"{len(classes)} of the {len(class_names) - 1} classes: {told}"


def _listed_images(name: ScenarioName, imageset: ImageSet, steps: int) -> list[np.ndarray]:
    """Return each step's images from index files; raise `DataError` where disjoint steps share one."""
    ids = imageset.ids("train")
    train = read_index_files(user_path(str(name.index_files)), ids, steps)
    if name.setup != "overlapped":
        places, counts = np.unique(np.concatenate(train), return_counts=True)
        if (counts > 1).any():
            raise DataError(
                f"scenario '{name}': the index files give {ids[places[counts > 1][0]]} to several steps; "
                f"the {name.setup} setup gives an image to one"
            )
    return train


_WAY_OUT = "; where every image shows a later class too, rule=ade shares the images out"


def _divided_by_last_class(name: ScenarioName, imageset: ImageSet) -> bool:
    return name.setup != "overlapped" and name.index_files is None and (name.rule or imageset.disjoint_rule) == "voc"


def held_out(count: int, fraction: float, seed: int = 0) -> np.ndarray:
    """Return bool (count,): True for the training images that go to the valid stream."""
    held = np.zeros(count, dtype=bool)
    held[np.random.default_rng(seed).permutation(count)[: round(count * fraction)]] = True
    return held


def training_parts(scenario: Scenario, valid_fraction: float, valid_seed: int = 0) -> list[np.ndarray]:
    """Return each step's training images, less those that go to the valid stream."""
    held = held_out(len(scenario.imageset.ids("train")), valid_fraction, valid_seed)
    return [step.train[~held[step.train]] for step in scenario.steps]


def valid_parts(scenario: Scenario, valid_fraction: float, valid_seed: int = 0) -> list[np.ndarray]:
    """Return the images of each step's valid stream: those held out of training that show a class learned by then."""
    held = np.flatnonzero(held_out(len(scenario.imageset.ids("train")), valid_fraction, valid_seed))
    presence = scenario.imageset.class_presence("train")[held]
    return [held[places] for places in tested_images(presence, scenario.groups)]


def require_training_images(scenario: Scenario, valid_fraction: float, valid_seed: int = 0) -> None:
    """Raise `DataError` where a valid fraction leaves a step without a training image."""
    for t, part in enumerate(training_parts(scenario, valid_fraction, valid_seed)):
        if not len(part):
            raise DataError(f"scenario '{scenario.name}': valid_fraction {valid_fraction} leaves step {t} no image")


def _digest(ids: Sequence[str], places: np.ndarray) -> str:
    return hashlib.sha256("".join(f"{ids[i]}\n" for i in places).encode()).hexdigest()
