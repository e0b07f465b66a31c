"""Avalanche streams of a scenario: every experience knows its classes, every item is (image, labels, step).

Labels are positions in the order in which the classes are learned, 0 for the background and what is not annotated, 255
for void. A training item is annotated with its own step's classes alone; a test item of step t with every class known
by then, or with all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from avalanche.benchmarks import CLScenario
from avalanche.benchmarks.scenarios import EagerCLStream
from avalanche.benchmarks.scenarios.dataset_scenario import DatasetExperience
from avalanche.benchmarks.utils import AvalancheDataset
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from benchmarks.augmentation import Augmentation, Normalisation, View, normalised
from benchmarks.decoding import MAX_MEGAPIXELS
from benchmarks.division import tested_images
from benchmarks.errors import DataError
from benchmarks.imageset import SPLITS, Split
from benchmarks.labels import BACKGROUND, VOID, label_table
from benchmarks.loading import ordered_batches
from benchmarks.packing import Progress, Reader, readers
from benchmarks.scenarios import Scenario, SharedIds, held_out, load_scenario, training_parts

FutureClasses = Literal["background", "ignore", "kept"]
Tested = Literal["known", "all"]
REST = "_rest"  # ends the name of the stream of the images that `test` or `valid` leaves out
RAM_BUDGET = 4.0 * 2**30  # bytes of decoded images that are kept in memory by default


@dataclass(frozen=True)
class Exemplar:
    """A reference to one unaugmented training image and the annotation it arrived with.

    `classes` are the labels of the image's annotated classes, from its whole label map.
    """

    image_id: str
    step: int
    classes: frozenset[int]
    data: AnnotatedImages
    index: int

    def load(self, augmentation: Augmentation | None, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Return image (float32 3 x H x W, normalised) and annotation (int64 H x W), augmented anew."""
        image, labels = self.data.sample(self.index, augmentation, rng, again=True)
        return normalised(image, self.data.normalisation), labels.long()

    def bytes(self) -> int:
        """Return the size of the image and its annotation as uint8."""
        return sum(part.nbytes for part in self.data.annotated(self.index))


class AnnotatedImages(Dataset[tuple[Tensor, Tensor, int]]):
    """The images of one experience with the labels its step gives them."""

    def __init__(
        self,
        pixels: Reader,
        places: np.ndarray,
        ids: Sequence[str],
        presence: np.ndarray,
        step: int,
        positions: dict[int, int],
        others: int = BACKGROUND,
        view: View | None = None,
        normalisation: Normalisation | None = None,
    ) -> None:
        """`places` are the images' places in the split's list, `positions` the labels of annotated classes."""
        self.step = step
        self.normalisation = normalisation
        self.ids = tuple(ids[i] for i in places)
        self._pixels = pixels
        self._places = places
        self._view = view
        self._table = label_table(positions, others)
        raw = np.array(list(positions))
        labels = np.array(list(positions.values()))
        self._classes = [frozenset(labels[row].tolist()) for row in presence[places][:, raw]]

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, int]:
        image, labels = self.sample(index, None, None)
        return normalised(image, self.normalisation), labels.long(), self.step

    def annotated(self, index: int) -> tuple[Tensor, Tensor]:
        """Return image `index` (uint8 3 x H x W) and its annotation (uint8 H x W)."""
        image, labels = self.sample(index, None, None, again=True)
        return image.clone(), labels

    def sample(
        self, index: int, augmentation: Augmentation | None, rng: np.random.Generator | None, *, again: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Return image and annotation like `annotated`, augmented; `again` tells that it will be read again.

        The image may share its memory with what is kept: it must not be changed in place.
        """
        read = self._pixels.again if again else self._pixels.read
        image, labels = (torch.from_numpy(part) for part in read(int(self._places[index])))
        if augmentation is not None:
            assert rng is not None
            image, labels = augmentation(image, labels, rng)
        if self._view is not None:
            image, labels = self._view(image, labels)
        return image, torch.from_numpy(self._table[labels.numpy()])

    def exemplar(self, index: int) -> Exemplar:
        """Return the reference by which a memory keeps image `index`."""
        return Exemplar(self.ids[index], self.step, self._classes[index], self, index)

    def batches(
        self,
        batch_size: int,
        order: Sequence[int] | None = None,
        augmentation: Augmentation | None = None,
        seed: Sequence[int] = (0,),
        workers: int = 0,
        share: tuple[int, int] = (0, 1),
    ) -> DataLoader[Any]:
        """Return batches [images float32 B x 3 x H x W, labels int64 B x H x W, steps B, indices B].

        The augmentation of each image depends on `seed` and its place in `order` alone, so that any number
        of `workers` gives the same batches. Images that do not lie in memory are decoded by at least one worker.
        `share` (r, n) takes images r, r + n, ... of each batch alone; a batch that has none of them is left out.
        """
        workers = workers if self._pixels.kept else max(1, workers)
        picks = _Picks(self, range(len(self)) if order is None else order, augmentation, tuple(seed))
        first, every = share
        starts = range(0, len(picks), batch_size)
        shares = [list(range(len(picks))[start : start + batch_size][first::every]) for start in starts]
        prepared = partial(_for_training, self.normalisation)
        return ordered_batches(picks, [places for places in shares if places], _joined, prepared, workers)


@dataclass(frozen=True)
class _Picks(Dataset[tuple[Tensor, Tensor, int, int]]):
    data: AnnotatedImages
    order: Sequence[int]
    augmentation: Augmentation | None
    seed: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, position: int) -> tuple[Tensor, Tensor, int, int]:
        index = int(self.order[position])
        rng = np.random.default_rng([*self.seed, position])
        return *self.data.sample(index, self.augmentation, rng), self.data.step, index


def _joined(samples: Sequence[tuple[Tensor, Tensor, int, int]]) -> list[Tensor]:
    """Join samples (uint8 image, uint8 labels, step, index)."""
    images, labels, steps, indices = zip(*samples, strict=True)
    return [torch.stack(images), torch.stack(labels), torch.tensor(steps), torch.tensor(indices)]


def _for_training(normalisation: Normalisation | None, batch: Sequence[Tensor]) -> list[Tensor]:
    """Return a joined batch with its images normalised (float32) and its labels int64."""
    images, labels, steps, indices = batch
    return [normalised(images, normalisation), labels.long(), steps, indices]


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
    valid_fraction: float = 0.0,
    valid_seed: int = 0,
    ram_budget: float = RAM_BUDGET,
    train_list: str | Path | None = None,
    shared_ids: SharedIds = "refuse",
    max_megapixels: float = MAX_MEGAPIXELS,
) -> SegmentationScenario:
    """Return the Avalanche benchmark of a scenario such as `shapes-15-1-disjoint`.

    `size` squeezes every image to size x size pixels (None: as they are, for `shapes` 64 x 64). `normalisation` is what
    the network takes images by (`strategies.networks`); None leaves colours from 0 to 1. Of the valid and test streams
    `view` scales and crops the images, pixels of `future_classes` count as background or void (`ignore`) or have their
    own labels (`kept`; the one after the last class's is of classes that no step learns), and `tested` tells whether
    step t has the images with a class known by then or all (METHODS, Protocol). `valid_fraction` of the training
    images, drawn by `valid_seed`, go to the valid stream instead. Decoded images are kept in memory where they fit in
    `ram_budget` bytes. `train_list`, `shared_ids` and `max_megapixels` are those of `load_scenario`. Raises
    `DataError`.
    """
    return build_benchmark(
        load_scenario(name, data_root, train_list, shared_ids, max_megapixels=max_megapixels),
        size=size,
        normalisation=normalisation,
        view=view,
        future_classes=future_classes,
        tested=tested,
        valid_fraction=valid_fraction,
        valid_seed=valid_seed,
        ram_budget=ram_budget,
    )


def build_benchmark(
    scenario: Scenario,
    *,
    size: int | None = None,
    normalisation: Normalisation | None = None,
    view: View | None = None,
    future_classes: FutureClasses = "background",
    tested: Tested = "known",
    valid_fraction: float = 0.0,
    valid_seed: int = 0,
    ram_budget: float = RAM_BUDGET,
    progress: Progress | None = None,
) -> SegmentationScenario:
    """Return the Avalanche benchmark of a computed scenario; see `load_benchmark`."""
    if not 0 <= valid_fraction < 1:
        raise DataError(f"valid_fraction {valid_fraction} is outside [0, 1)")
    imageset, groups = scenario.imageset, scenario.groups
    position = {c: i for i, c in enumerate((c for group in groups for c in group), 1)}
    pixels = readers(imageset, size or imageset.uniform_side, ram_budget, progress)
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
        data = AnnotatedImages(*read, t, labels, others, seen, normalisation)
        return SegmentationExperience(data, groups, classes != groups[t])

    def evaluated(split: Split, places: np.ndarray, t: int) -> SegmentationExperience:
        return experience(split, places, t, known[-1 if future_classes == "kept" else t], tests=True)

    train = training_parts(scenario, valid_fraction, valid_seed)
    held = np.flatnonzero(held_out(len(presence["train"]), valid_fraction, valid_seed))
    valid = [held[places] for places in tested_images(presence["train"][held], groups)]
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
