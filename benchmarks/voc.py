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

import numpy as np

from benchmarks.cache import kept_text
from benchmarks.errors import DataError
from benchmarks.files import content_digest, read_ids, read_image, read_mask, stamp_of
from benchmarks.imageset import SPLITS, ImageSet, Presence, Split
from benchmarks.presence import cached_presence

SBD_FOLDERS = ("sbd", "SBD", "benchmark_RELEASE/dataset", ".")


@dataclass(frozen=True)
class Voc(ImageSet):
    """VOC 2012 below a data root; only the label maps and lists are needed until an image is read."""

    root: Path

    name: ClassVar[str] = "voc"
    class_names: ClassVar[tuple[str, ...]] = (
        "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
        "dining table", "dog", "horse", "motorbike", "person", "potted plant", "sheep", "sofa", "train",
        "tv/monitor",
    )  # fmt: skip
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
                f"voc: no folder {self._devkit}; --data-root is the parent of VOCdevkit; VOC 2012 is got with: "
                f'python -c "from torchvision.datasets import VOCSegmentation as V; '
                f"V('{self.root}', year='2012', download=True)\""
            )
        if not self._has_augmented and self._sbd is None:
            raise DataError(
                f"voc: neither the folder {self._devkit / 'SegmentationClassAug'} nor SBD's "
                f'{self.root / "sbd" / "cls"} is there; SBD is got with: python -c "from torchvision.datasets '
                f"import SBDataset as S; S('{self.root / 'sbd'}', mode='segmentation', download=True)\""
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

    def ids(self, split: Split) -> tuple[str, ...]:
        """Return the ids of `trainaug.txt` (derived where it is absent) or of `val.txt`."""
        return self._ids[split]

    @cached_property
    def _ids(self) -> dict[Split, tuple[str, ...]]:
        test = self._listed("val")
        if (self._devkit / "ImageSets" / "Segmentation" / "trainaug.txt").is_file():
            train = self._listed("trainaug")
        else:
            train = tuple(sorted(self._annotated_ids() - set(test)))
            if not train:
                where = self._devkit / "SegmentationClassAug" if self._has_augmented else self._sbd
                raise DataError(f"voc: no label map in {where} beside those of the validation list")
        return {"train": train, "test": test}

    def _listed(self, name: str) -> tuple[str, ...]:
        return read_ids(self._devkit / "ImageSets" / "Segmentation" / f"{name}.txt")

    def _annotated_ids(self) -> set[str]:
        """Every image that has a label map: the published 10,582 are these less the validation list."""
        if self._has_augmented:
            return {p.stem for p in (self._devkit / "SegmentationClassAug").glob("*.png")}
        assert self._sbd is not None
        return {p.stem for p in (self._sbd / "cls").glob("*.mat")} | set(self._listed("train"))

    def mask_path(self, image_id: str) -> Path:
        """Return where the label map of an image lies; VOC's own takes precedence over SBD's."""
        if self._has_augmented:
            return self._devkit / "SegmentationClassAug" / f"{image_id}.png"
        own = self._devkit / "SegmentationClass" / f"{image_id}.png"
        if own.is_file() or self._sbd is None:
            return own
        return self._sbd / "cls" / f"{image_id}.mat"

    def image_path(self, image_id: str) -> Path:
        """Return where the photograph of an image lies."""
        return self._devkit / "JPEGImages" / f"{image_id}.jpg"

    def mask_paths(self, split: Split) -> list[Path]:
        """Return the label maps of a split in the order of its list."""
        return [self.mask_path(i) for i in self.ids(split)]

    def presence(self, split: Split) -> Presence:
        """Return the labels of every image of a split."""
        return cached_presence(self.name, self.mask_paths(split))

    def stamp(self) -> str:
        """Return a key of the files' names, sizes and times."""
        masks = [path for split in SPLITS for path in self.mask_paths(split)]
        return stamp_of([*self._image_paths(), *masks], f"voc: no file at {{}}; the data root is {self.root}")

    def images_digest(self) -> str:
        """Return the SHA-256 of the photographs' content."""
        paths = self._image_paths()
        stamp = stamp_of(paths, f"voc: no photograph at {{}}; the data root is {self.root}")
        return kept_text("images", f"voc-{stamp[:20]}", lambda: content_digest(paths))

    def _image_paths(self) -> list[Path]:
        return [self.image_path(i) for split in SPLITS for i in self.ids(split)]

    def read(self, split: Split, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return an image (uint8 H x W x 3) and its label map (uint8 H x W)."""
        image_id = self.ids(split)[index]
        mask_path, image_path = self.mask_path(image_id), self.image_path(image_id)
        label_map = read_mask(mask_path)
        image = read_image(image_path)
        if image.shape[:2] != label_map.shape:
            raise DataError(
                f"voc: {image_path} is {image.shape[1]} x {image.shape[0]} pixels, its label map {mask_path} "
                f"is {label_map.shape[1]} x {label_map.shape[0]}; both must have one size"
            )
        return image, label_map
