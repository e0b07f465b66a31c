"""What the label maps of an image set hold together: colours, absent classes, frequencies, sizes of steps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.division import RULES, overlapped
from benchmarks.imageset import Split
from benchmarks.labels import VOID
from benchmarks.names import class_groups, parse_name
from benchmarks.obtain.faults import Fault, Kind, SeenImage
from benchmarks.obtain.report import ClassFrequency, StepSizes
from benchmarks.scenarios import classes_told
from benchmarks.sets.filed import FiledImageSet


def palette_faults(images: Iterable[SeenImage]) -> Iterator[Fault]:
    """Yield where palettes give other colours to a label that is in use: there it may mean another class."""
    paths: dict[int, dict[bytes, list[Path]]] = {}
    for image in images:
        for label, colour in image.label_map.colours.items():
            paths.setdefault(label, {}).setdefault(colour, []).append(image.label_map.path)
    for label, by_colour in paths.items():
        if len(by_colour) > 1:
            (colour, most), (other, fewer) = sorted(by_colour.items(), key=lambda found: -len(found[1]))[:2]
            told = f"label {label} is #{colour.hex()} in {len(most)} label maps, {most[0].name} among them, and"
            yield Fault(Kind.PALETTES, fewer[0], f"{told} #{other.hex()} in {len(fewer)}, here")


def absent_classes(
    imageset: FiledImageSet, names: Sequence[str], pixels: Mapping[Split, np.ndarray]
) -> Iterator[Fault]:
    """Yield the classes that no sound label map of a split holds."""
    kinds: Mapping[Split, Kind] = {"train": Kind.NO_TRAINING_IMAGE, "test": Kind.NO_TEST_IMAGE}
    for split, kind in kinds.items():
        counts = pixels[split].sum(axis=0)
        if absent := [c for c in range(1, len(names)) if not counts[c]]:
            yield Fault(kind, imageset.root, classes_told(absent, names))


def pixel_counts(images: Iterable[SeenImage]) -> np.ndarray:
    """Return int64 (sound label maps, 256): pixels by label."""
    rows = [image.label_map.pixels for image in images if image.label_map.pixels is not None]
    return np.array(rows, dtype=np.int64).reshape(-1, VOID + 1)


def frequencies(names: Sequence[str], pixels: Mapping[Split, np.ndarray]) -> Iterator[ClassFrequency]:
    """Yield how often each label stands in the rows of `pixel_counts`, void last."""
    for label, name in (*enumerate(names), (VOID, "void")):
        columns = {split: rows[:, label] for split, rows in pixels.items()}
        yield ClassFrequency(
            label,
            name,
            images={split: int((column > 0).sum()) for split, column in columns.items()},
            pixels={split: int(column.sum()) for split, column in columns.items()},
        )


def scenario_sizes(imageset: FiledImageSet, pixels: np.ndarray) -> Iterator[StepSizes]:
    """Divide the training images with sound label maps into the steps of each scenario with published sizes."""
    for rest, published in imageset.published_sizes.items():
        name = parse_name(f"{imageset.name}-{rest}")
        groups = class_groups(name, imageset.class_names)
        rule = overlapped if name.setup == "overlapped" else RULES[imageset.disjoint_rule]
        steps = rule(pixels[:, : imageset.class_count + 1] > 0, groups)
        yield StepSizes(str(name), published, tuple(len(step) for step in steps))
