"""`ade`: ADE20K's scene-parsing benchmark, 20,210 training and 2,000 validation images, 150 classes.

Zhou et al., Scene Parsing through ADE20K Dataset, CVPR 2017; the layout is that of ADEChallengeData2016.

The data root is the parent of `ADEChallengeData2016`. Label 0, "other objects", is the background; class ids and
names are those of `objectInfo150.txt`, of whose synonyms the first is taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from benchmarks.errors import DataError
from benchmarks.filed import FiledImageSet
from benchmarks.imageset import Split

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
    }

    def __post_init__(self) -> None:
        for folder in (self._folder("annotations", split) for split in FOLDERS):
            if not folder.is_dir():
                raise DataError(
                    f"ade: no folder {folder}; --data-root is the parent of ADEChallengeData2016; ADE20K is got "
                    f"with: bench data get ade --data-root {self.root}"
                )

    def _folder(self, kind: str, split: Split) -> Path:
        return self.root / "ADEChallengeData2016" / kind / FOLDERS[split]

    def list_file(self, split: Split) -> Path | None:
        """Return None: the benchmark's splits are folders."""
        return None

    def ids_without_list(self, split: Split) -> tuple[str, ...]:
        """Return the names of all label maps of a split, sorted, as all code bases list them."""
        ids = tuple(sorted(p.stem for p in self._folder("annotations", split).glob("*.png")))
        if not ids:
            raise DataError(f"ade: no label map in {self._folder('annotations', split)}")
        return ids

    def image_path(self, split: Split, image_id: str) -> Path:
        """Return where the photograph of an image lies."""
        return self._folder("images", split) / f"{image_id}.jpg"

    def mask_path(self, split: Split, image_id: str) -> Path:
        """Return where the label map of an image lies."""
        return self._folder("annotations", split) / f"{image_id}.png"
