"""What a check of an image set has found: its faults, and what the sound label maps hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.imageset import Split
from benchmarks.obtain.faults import Fault, Kind


@dataclass(frozen=True)
class SplitCounts:
    """A split's images: in its list, with both files there, with a sound label map, and in the published list."""

    listed: int
    found: int
    sound_label_maps: int
    published: int | None


@dataclass(frozen=True)
class ClassFrequency:
    """How often a label stands in the sound label maps: images and pixels, by split."""

    label: int
    name: str
    images: Mapping[Split, int]
    pixels: Mapping[Split, int]


@dataclass(frozen=True)
class StepSizes:
    """A scenario's training images per step: as published, and as the sound label maps give them."""

    scenario: str
    published: tuple[int, ...]
    computed: tuple[int, ...]


@dataclass(frozen=True)
class SaliencyMaps:
    """What was looked at for saliency maps of the training images, which `ssul` reads, and what is missing of them."""

    folder: Path
    there: bool
    lacking: tuple[str, ...] = ()
    """Ids of images without one."""
    unusable: tuple[str, ...] = ()
    """What is wrong with those that cannot be used."""


@dataclass(frozen=True)
class Report:
    """What a check has found below a data root."""

    dataset: str
    root: Path
    faults: tuple[Fault, ...]
    warnings: tuple[Fault, ...]
    """What may be as it should be: training takes it."""
    list_remark: str
    """Which training list is in use."""
    splits: Mapping[Split, SplitCounts]
    unlisted: Mapping[Path, tuple[str, ...]]
    """Files that no list names, by folder."""
    frequencies: tuple[ClassFrequency, ...]
    """By label, void last; empty where the number of classes is not known."""
    sizes: tuple[StepSizes, ...]
    saliency: SaliencyMaps

    @property
    def faults_by_kind(self) -> dict[Kind, list[Fault]]:
        """The faults of each kind that there is."""
        return _by_kind(self.faults)

    @property
    def warnings_by_kind(self) -> dict[Kind, list[Fault]]:
        """The warnings of each kind that there is."""
        return _by_kind(self.warnings)

    def as_dict(self) -> dict[str, Any]:
        """Return what `bench data check --json` prints."""
        return {
            "dataset": self.dataset,
            "data_root": str(self.root),
            "sound": not self.faults,
            "splits": {split: vars(counts) for split, counts in self.splits.items()},
            "faults": _as_dicts(self.faults),
            "warnings": _as_dicts(self.warnings),
            "list": self.list_remark,
            "unlisted": {str(folder): list(names) for folder, names in self.unlisted.items()},
            "frequencies": [vars(frequency) for frequency in self.frequencies],
            "step_sizes": [vars(sizes) for sizes in self.sizes],
            "saliency_maps": {**vars(self.saliency), "folder": str(self.saliency.folder)},
        }


def _by_kind(told: Sequence[Fault]) -> dict[Kind, list[Fault]]:
    return {kind: found for kind in Kind if (found := [fault for fault in told if fault.kind is kind])}


def _as_dicts(told: Sequence[Fault]) -> list[dict[str, str]]:
    return [{"kind": f.kind.value, "path": str(f.path), "detail": f.detail} for f in told]
