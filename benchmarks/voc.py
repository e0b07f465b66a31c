"""`voc`: PASCAL VOC 2012 with the SBD annotations, 10,582 training and 1,449 validation images.

Everingham et al., The PASCAL Visual Object Classes Challenge, IJCV 2010; Hariharan et al., Semantic
Contours from Inverse Detectors, ICCV 2011 (SBD).

The data root is the parent of `VOCdevkit`. The label maps of the augmented training set come from
`VOCdevkit/VOC2012/SegmentationClassAug`, or else from `SegmentationClass` for VOC's own images and
from SBD's `cls/*.mat` (the layout that `torchvision.datasets.SBDataset` leaves in `DIR/sbd`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from benchmarks.errors import DataError
from benchmarks.filed import FiledImageSet
from benchmarks.imageset import Split

SBD_FOLDERS = ("sbd", "SBD", "benchmark_RELEASE/dataset", ".")


@dataclass(frozen=True)
class Voc(FiledImageSet):
    """VOC 2012 below a data root."""

    name: ClassVar[str] = "voc"
    fixed_class_names: ClassVar[tuple[str, ...] | None] = (
        "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
        "dining table", "dog", "horse", "motorbike", "person", "potted plant", "sheep", "sofa", "train",
        "tv/monitor",
    )  # fmt: skip
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
                f"voc: no folder {self._devkit}; --data-root is the parent of VOCdevkit; VOC 2012 and SBD are got "
                f"with: bench data get voc --data-root {self.root}"
            )
        if not self._has_augmented and self._sbd is None:
            raise DataError(
                f"voc: neither the folder {self._devkit / 'SegmentationClassAug'} nor SBD's "
                f"{self.root / 'sbd' / 'cls'} is there; SBD is got with: bench data get voc --data-root {self.root}"
            )

    @property
    def _devkit(self) -> Path:
        return self.root / "VOCdevkit" / "VOC2012"

    @cached_property
    def _has_augmented(self) -> bool:
        return (self._devkit / "SegmentationClassAug").is_dir()

    @cached_property
    def _sbd(self) -> Path | None:
        return next((self.root / f for f in SBD_FOLDERS if (self.root / f / "cls").is_dir()), None)

    def list_file(self, split: Split) -> Path | None:
        """Return `val.txt`, or `trainaug.txt` where it is there."""
        if split == "test":
            return self._list("val")
        return self._list("trainaug") if self._list("trainaug").is_file() else None

    def _list(self, name: str) -> Path:
        return self._devkit / "ImageSets" / "Segmentation" / f"{name}.txt"

    def ids_without_list(self, split: Split) -> tuple[str, ...]:
        """Return every image that has a label map, less the validation list: the published 10,582."""
        train = tuple(sorted(self._annotated_ids() - set(self.read_list(self._list("val")))))
        if not train:
            where = self._devkit / "SegmentationClassAug" if self._has_augmented else self._sbd
            raise DataError(f"voc: no label map in {where} beside those of the validation list")
        return train

    def _annotated_ids(self) -> set[str]:
        if self._has_augmented:
            return {p.stem for p in (self._devkit / "SegmentationClassAug").glob("*.png")}
        assert self._sbd is not None
        return {p.stem for p in (self._sbd / "cls").glob("*.mat")} | set(self.read_list(self._list("train")))

    def mask_path(self, split: Split, image_id: str) -> Path:
        """Return where the label map of an image lies; VOC's own takes precedence over SBD's."""
        if self._has_augmented:
            return self._devkit / "SegmentationClassAug" / f"{image_id}.png"
        own = self._devkit / "SegmentationClass" / f"{image_id}.png"
        if own.is_file() or self._sbd is None:
            return own
        return self._sbd / "cls" / f"{image_id}.mat"

    def image_path(self, split: Split, image_id: str) -> Path:
        """Return where the photograph of an image lies."""
        return self._devkit / "JPEGImages" / f"{image_id}.jpg"
