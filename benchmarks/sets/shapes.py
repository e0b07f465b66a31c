"""`shapes`: 20 classes of textured silhouettes on clutter, generated from a seed in seconds.

The data set stands in for VOC on a laptop: few objects per image, one frequent class, a long tail,
co-occurring classes, a void border around every object, distractors that no class owns. A class is a
(texture, hue) pair; a silhouette is shared by two classes, so neither colour nor outline alone tells it.

Pixels come from integer draws of `numpy.random.RandomState`, whose stream numpy guarantees, and from
correctly rounded arithmetic, so that equal seeds give equal bytes on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from benchmarks.imageset import Split
from benchmarks.labels import BACKGROUND, VOID
from benchmarks.sets.generated import GeneratedImageSet

SIDE = 64
SIZES: dict[Split, int] = {"train": 3000, "test": 400}
VERSION = 1
"""Raised with every change of a pixel; the checksum in the tests changes with it."""
FREQUENT = 15
"""The class that stands in a third of the images, as `person` does in VOC."""

HUES = {
    "red": (205, 60, 55),
    "yellow": (200, 170, 50),
    "green": (65, 165, 70),
    "blue": (60, 100, 205),
    "violet": (165, 75, 185),
}
TEXTURES = ("plain", "striped", "checked", "dotted")
SILHOUETTES = ("disc", "square", "triangle", "diamond", "ring", "cross", "half-disc", "hexagon", "arrow", "bar")
CLASS_NAMES = (
    "background",
    *(f"{TEXTURES[c % 4]} {tuple(HUES)[c % 5]} {SILHOUETTES[c % 10]}" for c in range(20)),
)

OBJECT_COUNTS = (1, 1, 1, 1, 2, 2, 2, 3, 3, 4)
"""Objects per image, each entry equally likely."""


_Y, _X = np.mgrid[0:SIDE, 0:SIDE].astype(np.float64)


@dataclass(frozen=True)
class Shapes(GeneratedImageSet):
    """3,000 training and 400 test images of 64 x 64 pixels, made from a seed on the first use."""

    name: ClassVar[str] = "shapes"
    fixed_class_names: ClassVar[tuple[str, ...] | None] = CLASS_NAMES
    uniform_side: ClassVar[int | None] = SIDE
    sizes: ClassVar[Mapping[Split, int]] = SIZES
    version: ClassVar[int] = VERSION

    def generate(self, split: Split, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return an image (uint8 64 x 64 x 3) and its label map (uint8 64 x 64)."""
        return generate(split, index, self.seed)


def generate(split: Split, index: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return image `index` of a split: uint8 (64, 64, 3) and its full label map, uint8 (64, 64)."""
    rng = np.random.RandomState([seed, 0 if split == "train" else 1, index])
    image = clutter(rng)
    label_map = np.full((SIDE, SIDE), BACKGROUND, dtype=np.uint8)
    for _ in range(rng.randint(0, 3)):
        _paint_distractor(rng, image)
    classes = _classes(rng)
    for c in classes:
        _paint_object(rng, image, label_map, c)
    while not np.isin(label_map, classes).any():
        _paint_object(rng, image, label_map, classes[0])
    image += rng.randint(-14, 15, image.shape)
    return np.clip(image, 0, 255).astype(np.uint8), label_map


def _classes(rng: np.random.RandomState) -> list[int]:
    """Draw the classes of an image's objects: a long tail, and pairs that go together."""
    count = OBJECT_COUNTS[rng.randint(len(OBJECT_COUNTS))]
    first = FREQUENT if rng.randint(100) < 15 else _tail_class(rng)
    classes = [first]
    while len(classes) < count:
        roll = rng.randint(100)
        if roll < 35:
            classes.append(first)
        elif roll < 57:
            classes.append(FREQUENT)
        elif roll < 78:
            classes.append((first + 6) % 20 + 1)
        else:
            classes.append(_tail_class(rng))
    return classes


def _tail_class(rng: np.random.RandomState) -> int:
    """Draw one of the 20 classes; the rarest has about half the frequency of the most frequent."""
    while True:
        c = rng.randint(1, 21)
        if rng.randint(100) < 55 + 9 * (c * 7 % 6):
            return int(c)


def clutter(rng: np.random.RandomState) -> np.ndarray:
    """Low-frequency colour noise as int64 (64, 64, 3), by integer bilinear interpolation."""
    cells = 6
    corners = rng.randint(50, 190, (cells + 1, cells + 1, 3))
    at = np.arange(SIDE) * cells * 64 // SIDE
    low, part = at // 64, at % 64
    rows = corners[low] * (64 - part)[:, None, None] + corners[low + 1] * part[:, None, None]
    full = rows[:, low] * (64 - part)[None, :, None] + rows[:, low + 1] * part[None, :, None]
    return np.asarray(full // 4096, dtype=np.int64)


def _local(rng: np.random.RandomState, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates (u, v) centred on a random place, rotated by up to 0.5 rad, in units of `radius`."""
    cx, cy = rng.randint(8, SIDE - 8), rng.randint(8, SIDE - 8)
    angle = rng.randint(-500, 501) / 1000
    cos, sin = math.cos(angle), math.sin(angle)
    dx, dy = _X - cx, _Y - cy
    return (cos * dx + sin * dy) / radius, (cos * dy - sin * dx) / radius


def silhouette(kind: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Return bool (64, 64): the inside of an outline in the coordinates of `_local`."""
    r2 = u * u + v * v
    au, av = np.abs(u), np.abs(v)
    match kind:
        case "disc":
            inside = r2 < 0.9
        case "square":
            inside = np.maximum(au, av) < 0.85
        case "triangle":
            inside = (v < 0.8) & (2 * au - v < 0.95)
        case "diamond":
            inside = au + av < 1.15
        case "ring":
            inside = (r2 < 1.05) & (r2 > 0.25)
        case "cross":
            inside = (np.minimum(au, av) < 0.36) & (np.maximum(au, av) < 1.05)
        case "half-disc":
            inside = (r2 < 1.2) & (v < 0.15)
        case "hexagon":
            inside = (av < 0.85) & (au + 0.55 * av < 1.0)
        case "arrow":
            inside = ((u > -0.1) & (u + 1.2 * av < 1.05)) | ((u <= -0.1) & (u > -1.05) & (av < 0.4))
        case _:
            inside = (au < 1.25) & (av < 0.5)
    return np.asarray(inside)


def texture(kind: str, rng: np.random.RandomState, u: np.ndarray, v: np.ndarray, radius: float) -> np.ndarray:
    """Return what a texture adds to an object's colour, int64 (64, 64), in the object's own coordinates."""
    period = rng.randint(50, 66) / 10
    a = np.floor(u * radius / period * 2 + rng.randint(100) / 50).astype(np.int64)
    b = np.floor(v * radius / period * 2 + rng.randint(100) / 50).astype(np.int64)
    match kind:
        case "plain":
            return np.zeros_like(a)
        case "striped":
            return np.where(a % 2 == 0, 45, -45)
        case "checked":
            return np.where((a + b) % 2 == 0, 45, -45)
        case _:
            return np.where((a % 2 == 0) & (b % 2 == 0), -60, 25)


def _paint_object(rng: np.random.RandomState, image: np.ndarray, label_map: np.ndarray, c: int) -> None:
    name = CLASS_NAMES[c].split(" ")
    radius = rng.randint(95, 175) / 10
    u, v = _local(rng, radius)
    inside = silhouette(name[2], u, v)
    colour = np.asarray(HUES[name[1]]) + rng.randint(-22, 23, 3)
    pattern = texture(name[0], rng, u, v, radius)
    if rng.randint(100) < 25:
        inside &= _occluder(rng)
    image[inside] = (colour + pattern[..., None])[inside]
    border = _dilated(inside) & ~inside
    label_map[border] = VOID
    label_map[inside] = c


def _occluder(rng: np.random.RandomState) -> np.ndarray:
    """True where a half plane through the image's middle part lets an object be seen."""
    angle = rng.randint(0, 6284) / 1000
    offset = rng.randint(-16, 17)
    along = math.cos(angle) * (_X - SIDE / 2) + math.sin(angle) * (_Y - SIDE / 2)
    return np.asarray(along < 12 + offset)


def _paint_distractor(rng: np.random.RandomState, image: np.ndarray) -> None:
    """A blob in one of the classes' hues, speckled as no class is."""
    radius = rng.randint(50, 110) / 10
    u, v = _local(rng, radius)
    inside = u * u + v * v * (1 + rng.randint(0, 150) / 100) + u * v < 1
    colour = np.asarray(tuple(HUES.values())[rng.randint(5)]) + rng.randint(-30, 31, 3)
    speckle = rng.randint(-55, 56, (SIDE, SIDE, 1))
    image[inside] = (colour + speckle)[inside]


def _dilated(mask: np.ndarray) -> np.ndarray:
    """The mask and its eight neighbours."""
    wide = mask.copy()
    wide[1:] |= mask[:-1]
    wide[:-1] |= mask[1:]
    wider = wide.copy()
    wider[:, 1:] |= wide[:, :-1]
    wider[:, :-1] |= wide[:, 1:]
    return wider
