"""`voc`: PASCAL VOC 2012 with the SBD annotations, 10,582 training and 1,449 validation images.

Everingham et al., The PASCAL Visual Object Classes Challenge, IJCV 2010; Hariharan et al., Semantic
Contours from Inverse Detectors, ICCV 2011 (SBD).

The data root is the parent of `VOCdevkit`. The label maps of the augmented training set come from
`VOCdevkit/VOC2012/SegmentationClassAug`, or else from `SegmentationClass` for VOC's own images and
from SBD's `cls/*.mat` (the layout that `torchvision.datasets.SBDataset` leaves in `DIR/sbd`).

The training list is `trainaug.txt` or `train_aug.txt` below `ImageSets/Segmentation`, `ImageSets/SegmentationAug`, in
`VOC2012`, `VOCdevkit`, the data root, or beside it; without one every label map that is not in `val.txt` trains.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from benchmarks.errors import DataError
from benchmarks.files import and_why, is_there
from benchmarks.imageset import Split
from benchmarks.sets.filed import FiledImageSet

SBD_FOLDERS = ("sbd", "SBD", "benchmark_RELEASE/dataset", ".")
TRAIN_LISTS = ("trainaug.txt", "train_aug.txt")
"""The names that the list of the augmented training set has in published code bases."""


@dataclass(frozen=True)
class Voc(FiledImageSet):
    """VOC 2012 below a data root."""

    name: ClassVar[str] = "voc"
    fixed_class_names: ClassVar[tuple[str, ...] | None] = (
        "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
        "dining table", "dog", "horse", "motorbike", "person", "potted plant", "sheep", "sofa", "train",
        "tv/monitor",
    )  # fmt: skip
    without_list: ClassVar[str] = "there is no list of the training images: all label maps train that val.txt lacks"
    published_counts: ClassVar[Mapping[Split, int]] = {"train": 10582, "test": 1449}
    published_sizes: ClassVar[Mapping[str, tuple[int, ...]]] = {
        "19-1-disjoint": (10034, 548),
        "19-1-overlapped": (10410, 548),
        "15-5-disjoint": (8437, 2145),
        "15-5-overlapped": (9568, 2145),
        "15-1-disjoint": (8437, 378, 299, 420, 500, 548),
        "15-1-overlapped": (9568, 487, 299, 491, 500, 548),
    }

    def __post_init__(self) -> None:
        if not self._devkit.is_dir():
            raise DataError(
                f"voc: no folder {self._devkit}{and_why(self._devkit)}; --data-root is the parent of VOCdevkit; "
                f"VOC 2012 and SBD are got with: bench data get voc --data-root {self.root}"
            )
        if not self._has_augmented and self._sbd is None:
            raise DataError(
                f"voc: neither the folder {self._augmented} nor SBD's "
                f"{self.root / 'sbd' / 'cls'} is there; SBD is got with: bench data get voc --data-root {self.root}"
            )

    @property
    def _devkit(self) -> Path:
        return self.root / "VOCdevkit" / "VOC2012"

    @cached_property
    def _has_augmented(self) -> bool:
        return self._augmented.is_dir()

    @property
    def _augmented(self) -> Path:
        return self._devkit / "SegmentationClassAug"

    @cached_property
    def _sbd(self) -> Path | None:
        return next((self.root / f for f in SBD_FOLDERS if (self.root / f / "cls").is_dir()), None)

    def own_list_file(self, split: Split) -> Path | None:
        """Return `val.txt`, or the list of the augmented training set where one of its usual names is there."""
        if split == "test":
            return self._list("val")
        return next(iter(self._train_lists), None)

    @property
    def rival_list(self) -> Path | None:
        """A second list of the augmented training set that says something else than the first."""
        if self.train_list:
            return None
        return next((file for file in self._train_lists[1:] if self._differs(file)), None)

    def _differs(self, file: Path) -> bool:
        return self.read_list(file) != self.read_list(self._train_lists[0])

    @cached_property
    def _train_lists(self) -> list[Path]:
        """The augmented training lists that are there; those beside the root count where it has none."""
        lists = self._devkit / "ImageSets"
        own = [lists / "Segmentation", lists / "SegmentationAug", self._devkit, self._devkit.parent, self.root]
        found = [folder / name for folder in own for name in TRAIN_LISTS]
        beside = [self.root.resolve().parent / name for name in TRAIN_LISTS]
        return [file for file in found if is_there(file)] or [file for file in beside if is_there(file)]

    def _list(self, name: str) -> Path:
        return self._devkit / "ImageSets" / "Segmentation" / f"{name}.txt"

    def ids_without_list(self, split: Split) -> tuple[str, ...]:
        """Return every image that has a label map, less the validation list: the published 10,582."""
        train = tuple(sorted(self._annotated_ids() - set(self.read_list(self._list("val")))))
        if not train:
            where = self._augmented if self._has_augmented else self._sbd
            raise DataError(f"voc: no label map in {where} beside those of the validation list")
        return train

    def _annotated_ids(self) -> set[str]:
        folder, extension = self.label_map_folders("train")[-1]
        ids = set(self.ids_in(folder, extension))
        return ids if self._has_augmented else ids | set(self.read_list(self._list("train")))

    @property
    def saliency_folders(self) -> list[Path]:
        """Where a folder of saliency maps is looked for: below the data root, or beside the photographs."""
        return [*super().saliency_folders, self._devkit / "saliency_map"]

    def photograph_folder(self, split: Split) -> Path:
        """Return where the photographs lie."""
        return self._devkit / "JPEGImages"

    def label_map_folders(self, split: Split) -> Sequence[tuple[Path, str]]:
        """Return where the label maps lie, and with which extension; VOC's own take precedence over SBD's."""
        return self._label_map_folders

    @cached_property
    def _label_map_folders(self) -> list[tuple[Path, str]]:
        if self._has_augmented:
            return [(self._augmented, ".png")]
        assert self._sbd is not None
        return [(self._devkit / "SegmentationClass", ".png"), (self._sbd / "cls", ".mat")]
