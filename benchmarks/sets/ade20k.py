"""`ade`: ADE20K's scene-parsing benchmark, 20,210 training and 2,000 validation images, 150 classes.

Zhou et al., Scene Parsing through ADE20K Dataset, CVPR 2017; the layout is that of ADEChallengeData2016.

The data root is the parent of `ADEChallengeData2016`. Label 0, "other objects", is the background; class ids and
names are those of `objectInfo150.txt`, of whose synonyms the first is taken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from benchmarks.errors import DataError
from benchmarks.files import and_why
from benchmarks.imageset import Split
from benchmarks.sets.filed import FiledImageSet

FOLDERS: dict[Split, str] = {"train": "training", "test": "validation"}


@dataclass(frozen=True)
class Ade20k(FiledImageSet):
    """ADE20K below a data root."""

    name: ClassVar[str] = "ade"
    disjoint_rule: ClassVar[str] = "ade"
    fixed_class_names: ClassVar[tuple[str, ...] | None] = (
        "background", "wall", "building", "sky", "floor", "tree", "ceiling", "road", "bed", "windowpane", "grass",
        "cabinet", "sidewalk", "person", "earth", "door", "table", "mountain", "plant", "curtain", "chair", "car",
        "water", "painting", "sofa", "shelf", "house", "sea", "mirror", "rug", "field", "armchair", "seat", "fence",
        "desk", "rock", "wardrobe", "lamp", "bathtub", "railing", "cushion", "base", "box", "column", "signboard",
        "chest of drawers", "counter", "sand", "sink", "skyscraper", "fireplace", "refrigerator", "grandstand",
        "path", "stairs", "runway", "case", "pool table", "pillow", "screen door", "stairway", "river", "bridge",
        "bookcase", "blind", "coffee table", "toilet", "flower", "book", "hill", "bench", "countertop", "stove",
        "palm", "kitchen island", "computer", "swivel chair", "boat", "bar", "arcade machine", "hovel", "bus",
        "towel", "light", "truck", "tower", "chandelier", "awning", "streetlight", "booth", "television", "airplane",
        "dirt track", "apparel", "pole", "land", "bannister", "escalator", "ottoman", "bottle", "buffet", "poster",
        "stage", "van", "ship", "fountain", "conveyer belt", "canopy", "washer", "plaything", "swimming pool",
        "stool", "barrel", "basket", "waterfall", "tent", "bag", "minibike", "cradle", "oven", "ball", "food", "step",
        "tank", "trade name", "microwave", "pot", "animal", "bicycle", "lake", "dishwasher", "screen", "blanket",
        "sculpture", "hood", "sconce", "vase", "traffic light", "tray", "ashcan", "fan", "pier", "crt screen",
        "plate", "monitor", "bulletin board", "shower", "radiator", "glass", "clock", "flag",
    )  # fmt: skip
    published_counts: ClassVar[Mapping[Split, int]] = {"train": 20210, "test": 2000}
    published_sizes: ClassVar[Mapping[str, tuple[int, ...]]] = {
        "100-50-disjoint": (13452, 6744),
        "100-10-disjoint": (13452, 1130, 1200, 1366, 1550, 1498),
        "50-50-disjoint": (8219, 6384, 5593),
        "100-50-disjoint:order=mib-b": (10375, 9821),
        "100-10-disjoint:order=mib-b": (10375, 1362, 1346, 2084, 2609, 2420),
        "50-50-disjoint:order=mib-b": (6659, 7483, 6054),
    }
    class_orders: ClassVar[Mapping[str, tuple[int, ...]]] = {
        "mib-b": (
            1, 9, 14, 18, 22, 24, 25, 27, 28, 29, 32, 38, 42, 45, 46, 47, 48, 49, 54, 56, 58, 61, 62, 63,
            69, 74, 75, 76, 77, 81, 82, 84, 90, 93, 96, 100, 103, 104, 109, 117, 119, 121, 123, 128, 129,
            130, 134, 135, 136, 144,
            3, 5, 6, 8, 10, 12, 13, 19, 21, 23, 26, 31, 33, 34, 36, 39, 40, 43, 44, 53, 55, 57, 60, 70, 71,
            80, 86, 87, 91, 95, 99, 101, 105, 106, 107, 113, 116, 120, 125, 126, 131, 132, 133, 140, 142,
            143, 147, 148, 149, 150,
            11, 16, 50, 64, 66, 73, 89, 92, 145, 146,
            30, 37, 51, 52, 72, 85, 98, 114, 115, 138,
            2, 35, 65, 97, 110, 111, 112, 118, 124, 141,
            4, 7, 15, 41, 67, 78, 79, 88, 108, 139,
            17, 20, 59, 68, 83, 94, 102, 122, 127, 137,
        ),
    }  # fmt: skip
    """`mib-b`: the order of 50b, 100-50b and 100-10b, by step; Cermelli et al., CVPR 2020, `tasks.py` (MIT)."""

    def __post_init__(self) -> None:
        for folder in (self._folder("annotations", split) for split in FOLDERS):
            if not folder.is_dir():
                raise DataError(
                    f"ade: no folder {folder}{and_why(folder)}; --data-root is the parent of ADEChallengeData2016; "
                    f"ADE20K is got with: bench data get ade --data-root {self.root}"
                )

    def _folder(self, kind: str, split: Split) -> Path:
        return self.root / "ADEChallengeData2016" / kind / FOLDERS[split]

    def own_list_file(self, split: Split) -> Path | None:
        """Return None: the benchmark's splits are folders."""
        return None

    def ids_without_list(self, split: Split) -> tuple[str, ...]:
        """Return the names of all label maps of a split, sorted, as all code bases list them."""
        folder = self._folder("annotations", split)
        ids = self.ids_in(folder, ".png")
        if not ids:
            raise DataError(f"ade: no label map in {folder}")
        return ids

    def photograph_folder(self, split: Split) -> Path:
        """Return where a split's photographs lie."""
        return self._folder("images", split)

    def label_map_folders(self, split: Split) -> Sequence[tuple[Path, str]]:
        """Return where a split's label maps lie, and with which extension."""
        return [(self._folder("annotations", split), ".png")]
