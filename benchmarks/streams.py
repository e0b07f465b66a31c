"""Avalanche streams of a scenario: every experience knows its classes, every item is (image, labels, step).

Labels are positions in the order in which the classes are learned, 0 for the background and what is not annotated, 255
for void. A training item is annotated with its own step's classes alone; a test item of step t with every class known
by then, or with all.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from avalanche.benchmarks import CLScenario
from avalanche.benchmarks.scenarios import EagerCLStream
from avalanche.benchmarks.scenarios.dataset_scenario import DatasetExperience
from avalanche.benchmarks.utils import AvalancheDataset

from benchmarks.annotated import AnnotatedImages
from benchmarks.augmentation import Normalisation, View
from benchmarks.decoding import MAX_MEGAPIXELS
from benchmarks.errors import DataError
from benchmarks.imageset import SPLITS, Split
from benchmarks.labels import BACKGROUND, VOID, SaliencySource
from benchmarks.packing import Progress, readers
from benchmarks.saliency import require_saliency, saliency_of
from benchmarks.scenarios import Scenario, SharedIds, held_out, load_scenario, training_parts, valid_parts

FutureClasses = Literal["background", "ignore", "kept"]
Tested = Literal["known", "all"]
TrainingVoid = Literal["ignore", "background", "negative"]
REST = "_rest"  # ends the name of the stream of the images that `test` or `valid` leaves out
RAM_BUDGET = 4.0 * 2**30  # bytes of decoded images that are kept in memory by default


class SegmentationExperience(DatasetExperience[AvalancheDataset]):
    """An Avalanche experience that knows its classes, as labels in the order of learning.

    `annotates_all_seen` tells whether its images are annotated with every class seen so far, not with its own alone.
    """

    def __init__(self, data: AnnotatedImages, groups: Sequence[Sequence[int]], annotates_all_seen: bool) -> None:
        super().__init__(dataset=AvalancheDataset([data]))
        self.data = data
        self.annotates_all_seen = annotates_all_seen
        first = [1 + sum(map(len, groups[:t])) for t in range(len(groups) + 1)]
        self.classes_in_this_experience = list(range(first[data.step], first[data.step + 1]))
        self.previous_classes = list(range(1, first[data.step]))
        self.classes_seen_so_far = list(range(1, first[data.step + 1]))
        self.future_classes = list(range(first[data.step + 1], first[-1]))


class SegmentationScenario(CLScenario[EagerCLStream[SegmentationExperience]]):
    """Avalanche's benchmark of a scenario: `train_stream`, `valid_stream`, `test_stream`, `joint_stream`.

    `test_stream[t]` is the complete test set of step t: never average over test experiences.
    `valid_stream[t]` holds what was taken from the training images of steps 0..t; it is empty by default.
    `test_rest_stream[t]` and `valid_rest_stream[t]` hold the other images, without a class known by step t.
    `joint_stream[t]` holds the training images of steps 0..t with the labels of all classes known by then.
    """

    def __init__(self, scenario: Scenario, streams: dict[str, list[SegmentationExperience]]) -> None:
        super().__init__([EagerCLStream(name, experiences) for name, experiences in streams.items()])
        self.scenario = scenario
        self.n_classes = len(scenario.class_names) - 1
        self.class_names = scenario.class_names


def load_benchmark(
    name: str,
    data_root: str | Path | None = None,
    *,
    size: int | None = None,
    normalisation: Normalisation | None = None,
    view: View | None = None,
    future_classes: FutureClasses = "background",
    tested: Tested = "known",
    void: TrainingVoid = "ignore",
    saliency: SaliencySource | None = None,
    valid_fraction: float = 0.0,
    valid_seed: int = 0,
    ram_budget: float = RAM_BUDGET,
    jpeg_draft: bool = False,
    train_list: str | Path | None = None,
    shared_ids: SharedIds = "refuse",
    max_megapixels: float = MAX_MEGAPIXELS,
) -> SegmentationScenario:
    """Return the Avalanche benchmark of a scenario such as `shapes-15-1-disjoint`.

    `size` squeezes every image to size x size pixels (None: as they are, for `shapes` 64 x 64). `normalisation` is what
    the network takes images by (`strategies.networks`); None leaves colours from 0 to 1. Of the valid and test streams
    `view` scales and crops the images, pixels of `future_classes` count as background or void (`ignore`) or have their
    own labels (`kept`; the one after the last class's is of classes that no step learns), and `tested` tells whether
    step t has the images with a class known by then or all (METHODS, Protocol). With `void` of `background` void pixels
    of training images are the background; else they stay void, and as a `negative` of every class count in the losses
    that are defined so. With `saliency` the background pixels of training images that it names have the label
    `UNKNOWN`. `valid_fraction` of the training images, drawn by `valid_seed`, go to the valid stream instead.
    Decoded images are kept in memory where they fit in `ram_budget` bytes; `jpeg_draft` is as for `packing.readers`.
    `train_list`, `shared_ids` and `max_megapixels` are those of `load_scenario`. Raises `DataError`.
    """
    return build_benchmark(
        load_scenario(name, data_root, train_list, shared_ids, max_megapixels=max_megapixels),
        size=size,
        normalisation=normalisation,
        view=view,
        future_classes=future_classes,
        tested=tested,
        void=void,
        saliency=saliency,
        valid_fraction=valid_fraction,
        valid_seed=valid_seed,
        ram_budget=ram_budget,
        jpeg_draft=jpeg_draft,
    )


def build_benchmark(
    scenario: Scenario,
    *,
    size: int | None = None,
    normalisation: Normalisation | None = None,
    view: View | None = None,
    future_classes: FutureClasses = "background",
    tested: Tested = "known",
    void: TrainingVoid = "ignore",
    saliency: SaliencySource | None = None,
    valid_fraction: float = 0.0,
    valid_seed: int = 0,
    ram_budget: float = RAM_BUDGET,
    jpeg_draft: bool = False,
    progress: Progress | None = None,
) -> SegmentationScenario:
    """Return the Avalanche benchmark of a computed scenario; see `load_benchmark`."""
    if not 0 <= valid_fraction < 1:
        raise DataError(f"valid_fraction {valid_fraction} is outside [0, 1)")
    imageset, groups = scenario.imageset, scenario.groups
    position = {c: i for i, c in enumerate((c for group in groups for c in group), 1)}
    squeezed = size or imageset.uniform_side
    pixels = readers(imageset, squeezed, ram_budget, progress, jpeg_draft)
    if saliency:
        require_saliency(saliency, imageset)
    kind = f"{squeezed or 'native'}{'-draft' if jpeg_draft else ''}"
    salient = saliency_of(saliency, imageset, pixels["train"], kind, progress) if saliency else None
    presence = {s: imageset.class_presence(s) for s in SPLITS}
    steps = range(len(groups))
    known = [tuple(c for group in groups[: t + 1] for c in group) for t in steps]

    test_others = {"background": BACKGROUND, "ignore": VOID, "kept": len(position) + 1}[future_classes]

    def experience(
        split: Split, places: np.ndarray, t: int, classes: Sequence[int], tests: bool = False
    ) -> SegmentationExperience:
        labels = {c: position[c] for c in classes}
        others = test_others if tests else BACKGROUND
        read, seen = (pixels[split], places, imageset.ids(split), presence[split]), view if tests else None
        data = AnnotatedImages(
            *read,
            t,
            labels,
            others,
            seen,
            normalisation,
            void_is_background=void == "background" and not tests,
            every_position=position,
            salient=None if tests else salient,
            all_unknown=saliency == "none" and not tests,
        )
        return SegmentationExperience(data, groups, classes != groups[t])

    def evaluated(split: Split, places: np.ndarray, t: int) -> SegmentationExperience:
        return experience(split, places, t, known[-1 if future_classes == "kept" else t], tests=True)

    train = training_parts(scenario, valid_fraction, valid_seed)
    held = np.flatnonzero(held_out(len(presence["train"]), valid_fraction, valid_seed))
    valid = valid_parts(scenario, valid_fraction, valid_seed)
    test, every = [step.test for step in scenario.steps], np.arange(len(presence["test"]))
    if tested == "all":
        valid, test = [held for _ in steps], [every for _ in steps]
    annotated = known if scenario.annotates_all_seen else groups
    return SegmentationScenario(
        scenario,
        {
            "train": [experience("train", train[t], t, annotated[t]) for t in steps],
            "valid": [evaluated("train", valid[t], t) for t in steps],
            f"valid{REST}": [evaluated("train", np.setdiff1d(held, valid[t]), t) for t in steps],
            "test": [evaluated("test", test[t], t) for t in steps],
            f"test{REST}": [evaluated("test", np.setdiff1d(every, test[t]), t) for t in steps],
            "joint": [experience("train", np.unique(np.concatenate(train[: t + 1])), t, known[t]) for t in steps],
        },
    )
