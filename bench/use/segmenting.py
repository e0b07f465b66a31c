"""`bench predict`: label maps, and overlays, of images in files."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console

from bench.screen.view import reading
from bench.use.photographs import Photograph
from bench.use.pixels import Labels, Pixels
from bench.use.segmenter import Segmenter
from benchmarks.errors import DataError, printable
from benchmarks.sets.photographs import read_photograph, turned
from reports.label_maps import write_label_map, write_overlay

MOST_PIXELS = 50_000_000
"""Of the images that are in memory together."""
_TOLD = 4
"""Classes of an image that are told."""


@dataclass(frozen=True)
class Asked:
    """How images are segmented, and what is written of each."""

    overlay: bool
    short_side: int | None
    max_megapixels: float


def segment(segmenter: Segmenter, photographs: Sequence[Photograph], asked: Asked, console: Console) -> list[Path]:
    """Segment images and write what is asked for; return those that could not be read, each having been told of."""
    unread: list[Path] = []
    done = 0
    with reading(console) as advance:
        progress = advance if console.is_terminal else lambda *_: None  # elsewhere each image has its line
        progress("images segmented", 0, len(photographs))
        for batch in _together(_read(photographs, asked, unread, console), segmenter, asked):
            images = [pixels for _, pixels in batch]
            for (photograph, pixels), labels in zip(batch, segmenter.labels_of(images, asked.short_side), strict=True):
                _write(segmenter, photograph, pixels, labels, asked.overlay)
                if not console.is_terminal:
                    _say(console, f"{photograph.label_map}  {_classes_told(segmenter, labels)}")
            done += len(batch)
            progress("images segmented", done + len(unread), len(photographs))
    return unread


def _read(
    photographs: Iterable[Photograph], asked: Asked, unread: list[Path], console: Console
) -> Iterator[tuple[Photograph, Pixels]]:
    """Yield images upright, and tell of those that cannot be read."""
    for photograph in photographs:
        try:
            image = read_photograph(photograph.path, asked.max_megapixels)
        except DataError as error:
            unread.append(photograph.path)
            print(f"bench: {printable(' '.join(str(error).split()))}", file=sys.stderr)
            continue
        yield photograph, np.ascontiguousarray(turned(image.pixels, image.orientation))


def _together(
    images: Iterable[tuple[Photograph, Pixels]], segmenter: Segmenter, asked: Asked
) -> Iterator[list[tuple[Photograph, Pixels]]]:
    """Yield batches as the run evaluated them: as many, where they are of one size to the network and not too large."""
    batch: list[tuple[Photograph, Pixels]] = []
    size: list[int] = []
    for photograph, pixels in images:
        own = segmenter.input_size(pixels.shape[:2], asked.short_side)
        held = sum(other.size for _, other in batch) // 3
        if batch and (own != size or len(batch) == segmenter.kept.batch_size or held > MOST_PIXELS):
            yield batch
            batch = []
        batch.append((photograph, pixels))
        size = own
    if batch:
        yield batch


def _write(segmenter: Segmenter, photograph: Photograph, pixels: Pixels, labels: Labels, overlay: bool) -> None:
    write_label_map(photograph.label_map, labels, segmenter.palette)
    if overlay:
        write_overlay(photograph.overlay, pixels, labels, segmenter.class_names, segmenter.palette)


def _classes_told(segmenter: Segmenter, labels: Labels) -> str:
    """The classes of the largest parts of an image and their shares."""
    shares = np.bincount(labels.ravel(), minlength=256) / labels.size
    largest = [label for label in np.argsort(-shares, kind="stable")[:_TOLD].tolist() if shares[label] > 0]
    return ", ".join(f"{segmenter.class_names[label]} {100 * shares[label]:.1f} %" for label in largest)


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
