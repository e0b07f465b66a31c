"""`scenes`: 150 classes in rooms, streets and landscapes, generated from a seed in seconds.

The data set stands in for ADE20K on a laptop: every pixel of a scene but those of a few patches of clutter is
labelled, an image holds 5 to 12 classes, a class's share of the pixels falls roughly with its id from 6 % down to
0.06 %, and classes go together: a kind of scene has its own layers (streets and landscapes share the skies)
and its own objects, which come in themes.

A class is a (texture, hue, form) triple. Classes c, c + 50 and c + 100 have the same texture and hue, in different
forms: neither colour nor texture nor outline alone tells a class.

Pixels are made as those of `shapes`: equal seeds give equal bytes on every machine.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import ClassVar

import numpy as np

from benchmarks.imageset import Split
from benchmarks.labels import BACKGROUND
from benchmarks.sets.generated import GeneratedImageSet
from benchmarks.sets.shapes import SILHOUETTES, clutter, silhouette, texture

SIDE = 64
SIZES: dict[Split, int] = {"train": 4000, "test": 500}
VERSION = 1
"""Raised with every change of a pixel; the checksum in the tests changes with it."""
CLASSES_PER_IMAGE = (5, 12)
THEMES = 3
"""Groups of objects in each kind of scene; most objects of an image are of one theme."""

HUES = {
    "blue": (60, 95, 205),
    "orange": (225, 130, 45),
    "yellow": (215, 200, 70),
    "pink": (225, 130, 180),
    "green": (70, 150, 60),
    "brown": (110, 75, 45),
    "teal": (55, 165, 160),
    "red": (200, 55, 55),
    "violet": (140, 70, 185),
    "grey": (135, 135, 140),
}
TEXTURES = ("plain", "striped", "checked", "dotted", "banded")
_FORM_TABLE = """
sky       sky       wall      wall      field     floor    wall      building  pavement  sky
field     hill      floor     road      disc      building ceiling   diamond   half-disc pavement
road      field     hill      floor     bar       water    building  wood      triangle  curtain
fence     cross     arrow     rug       square    ring     path      hexagon   disc      diamond
window    half-disc bar       triangle  cross     arrow    square    ring      hexagon   disc
wall      half-disc diamond   bar       building  triangle field     cross     hill      arrow
floor     square    ring      hexagon   pavement  disc     road      ring      hexagon   ceiling
disc      diamond   half-disc water     disc      diamond  half-disc curtain   bar       triangle
cross     fence     bar       triangle  cross     wood     arrow     square    ring      rug
hexagon   disc      diamond   half-disc bar       triangle cross     arrow     square    ring
hexagon   disc      ceiling   diamond   half-disc bar      triangle  water     cross     bar
triangle  cross     arrow     curtain   square    ring     hexagon   disc      fence     diamond
half-disc bar       triangle  cross     wood      arrow    square    ring      hexagon   disc
rug       diamond   half-disc bar       triangle  cross    bar       path      triangle  cross
arrow     square    ring      window    hexagon   disc     diamond   half-disc bar       triangle
"""
FORMS = tuple(_FORM_TABLE.split())
"""The form of every class by id, a region's name or a silhouette. A column has one hue, a row one texture."""
CLASS_NAMES = (
    "background",
    *(f"{TEXTURES[i // 10 % 5]} {tuple(HUES)[i % 10]} {form}" for i, form in enumerate(FORMS)),
)

Layers = list[tuple[str, np.ndarray]]
"""Regions from the back to the front: the form, and bool (64, 64), where it is painted."""

_row, _column = np.mgrid[0:SIDE, 0:SIDE]


@dataclass(frozen=True)
class Scenes(GeneratedImageSet):
    """4,000 training and 500 test images of 64 x 64 pixels, made from a seed on the first use."""

    name: ClassVar[str] = "scenes"
    disjoint_rule: ClassVar[str] = "ade"
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
    canvas = _Canvas(clutter(rng), np.full((SIDE, SIDE), BACKGROUND, dtype=np.uint8))
    kind = rng.randint(len(_LAYOUTS))
    horizon, layers = _LAYOUTS[kind](rng)
    drawn = _paint_regions(rng, canvas, layers)
    objects = _Objects(kind, rng.randint(THEMES), horizon, drawn)
    fewest, most = CLASSES_PER_IMAGE
    _paint_objects(rng, canvas, objects, max(2, rng.randint(fewest, most + 1) - len(drawn)))
    while canvas.visible_classes < fewest:
        _paint_objects(rng, canvas, objects, 1)
    return _lit(rng, canvas.image), canvas.label_map


@dataclass(frozen=True)
class _Canvas:
    """An image (int64 64 x 64 x 3) and its label map (uint8 64 x 64) while they are painted."""

    image: np.ndarray
    label_map: np.ndarray

    @property
    def visible_classes(self) -> int:
        return int(np.count_nonzero(np.bincount(self.label_map.ravel())[1:]))

    def paint(self, c: int, window: tuple[slice, slice], inside: np.ndarray, colours: np.ndarray) -> None:
        """Paint class c where `inside`, bool (h, w) of the window, with colours (h, w, 3)."""
        np.copyto(self.image[window], colours, where=inside[..., None])
        self.label_map[window][inside] = c


class _Pool:
    """Classes of which one is drawn, the more often the smaller its id."""

    def __init__(self, classes: Iterable[int]) -> None:
        self.classes = tuple(classes)
        self._bounds = tuple(accumulate(20_000 // (c + 28) for c in self.classes))

    def draw(self, rng: np.random.RandomState) -> int:
        return self.classes[bisect_right(self._bounds, rng.randint(self._bounds[-1]))]


@dataclass
class _Objects:
    """The objects of an image: its kind of scene, theme and horizon, and all classes drawn so far."""

    kind: int
    theme: int
    horizon: int
    drawn: set[int]

    def draw(self, rng: np.random.RandomState) -> int:
        """Draw a class that the image does not hold yet, mostly one of its theme."""
        while True:
            theme = self.theme if rng.randint(100) < 75 else rng.randint(THEMES)
            c = _OBJECTS[self.kind][theme].draw(rng)
            if c not in self.drawn:
                self.drawn.add(c)
                return c


def _room(rng: np.random.RandomState) -> tuple[int, Layers]:
    horizon = rng.randint(34, 46)
    layers = [("wall", _row < horizon), ("floor", _row >= horizon)]
    if rng.randint(100) < 55:
        layers.append(("ceiling", _row < rng.randint(7, 13)))
    if rng.randint(100) < 50:
        left, top = rng.randint(4, 44), rng.randint(10, 16)
        layers.append(("window", _box(left, left + rng.randint(12, 20), top, top + rng.randint(12, 18))))
    if rng.randint(100) < 50:
        left = 0 if rng.randint(2) else SIDE - 12
        layers.append(("curtain", _box(left, left + 12, rng.randint(4, 12), horizon + rng.randint(0, 6))))
    if rng.randint(100) < 50:
        layers.append(("rug", _ellipse(rng.randint(16, 48), rng.randint(horizon + 7, 60), rng.randint(16, 26), 8)))
    return horizon, layers


def _street(rng: np.random.RandomState) -> tuple[int, Layers]:
    horizon = rng.randint(30, 40)
    layers = [("sky", _row < horizon), ("pavement", _row >= horizon)]
    left = rng.randint(-8, 6)
    while left < SIDE - 8:
        right = left + rng.randint(18, 32)
        layers.append(("building", _box(left, right, horizon - rng.randint(12, 28), horizon)))
        left = right + max(0, rng.randint(-8, 10))
    if rng.randint(100) < 45:
        layers.append(("fence", _box(0, SIDE, horizon - rng.randint(6, 9), horizon)))
    if rng.randint(100) < 85:
        aside = 10 * abs(_column - rng.randint(20, 44))
        half_width = rng.randint(30, 90) + rng.randint(5, 11) * (_row - horizon)
        layers.append(("road", (_row >= horizon) & (aside < half_width)))
    return horizon, layers


def _landscape(rng: np.random.RandomState) -> tuple[int, Layers]:
    horizon = rng.randint(28, 38)
    layers = [("sky", _row < horizon), ("hill", _below(rng, horizon - 14, 9)), ("field", _row >= horizon)]
    if rng.randint(100) < 60:
        layers.append(("wood", _below(rng, horizon - 5, 3) & (_row < horizon + 2)))
    if rng.randint(100) < 60:
        shore = rng.randint(horizon + 4, 48)
        layers.append(("water", _below(rng, shore, 3) & ~_below(rng, shore + rng.randint(9, 15), 3)))
    if rng.randint(100) < 45:
        aside = abs(10 * (_column - rng.randint(10, 54)) - rng.randint(-8, 9) * (_row - horizon))
        layers.append(("path", (_row >= horizon) & (aside < 30 + 2 * (_row - horizon))))
    return horizon, layers


def _box(left: int, right: int, top: int, bottom: int) -> np.ndarray:
    return np.asarray((_column >= left) & (_column < right) & (_row >= top) & (_row < bottom))


def _ellipse(x: int, y: int, width: int, height: int) -> np.ndarray:
    return np.asarray(((_column - x) * height) ** 2 + ((_row - y) * width) ** 2 < (width * height) ** 2)


def _below(rng: np.random.RandomState, y: int, swing: int) -> np.ndarray:
    """True below a line that rises and falls around y by up to `swing` pixels."""
    heights = 16 * y + rng.randint(-16 * swing, 16 * swing + 1, SIDE // 16 + 1)
    at, part = np.divmod(np.arange(SIDE), 16)
    return np.asarray(16 * 16 * _row >= heights[at] * (16 - part) + heights[at + 1] * part)


_LAYOUTS: tuple[Callable[[np.random.RandomState], tuple[int, Layers]], ...] = (_room, _street, _landscape)
"""The kinds of scene; each gives the row of its horizon and its layers."""


def _object_pool(kind: int, theme: int) -> _Pool:
    """Return the objects of a theme; one class in eight lives in all kinds of scene, the others in one."""
    objects = (c for c, form in enumerate(FORMS, 1) if form in SILHOUETTES)
    return _Pool(c for c in objects if (c % 3 == kind or c % 8 == 0) and c // 3 % THEMES == theme)


_REGIONS = {form: _Pool(c for c, own in enumerate(FORMS, 1) if own == form) for form in {*FORMS} - {*SILHOUETTES}}
_OBJECTS = [[_object_pool(kind, theme) for theme in range(THEMES)] for kind in range(len(_LAYOUTS))]


def _paint_regions(rng: np.random.RandomState, canvas: _Canvas, layers: Layers) -> set[int]:
    """Paint the layers, leave patches of clutter between them, and return the layers' classes."""
    patch = np.zeros((SIDE, SIDE), dtype=bool)
    for _ in range(rng.randint(1, 4)):
        patch |= _ellipse(*rng.randint(4, 60, 2), *rng.randint(6, 13, 2))
    classes = [_REGIONS[form].draw(rng) for form, _ in layers]
    for c, (_, inside) in zip(classes, layers, strict=True):
        colours = _colours(rng, c, _column[:1], _row[:, :1], 1.0)
        canvas.paint(c, (slice(None), slice(None)), inside & ~patch, colours)
    return set(classes)


def _paint_objects(rng: np.random.RandomState, canvas: _Canvas, objects: _Objects, count: int) -> None:
    """Paint objects of `count` further classes, one or two of each: what hangs, then what stands, the far first."""
    classes = [objects.draw(rng) for _ in range(count)]
    classes += [c for c in classes if rng.randint(100) < 30]
    heights = {True: (5, objects.horizon - 3), False: (objects.horizon, 60)}
    for y, c in sorted((rng.randint(*heights[_hangs(c)]), c) for c in classes):
        nearness = abs(y - objects.horizon)
        _paint_object(rng, canvas, c, y, (10 * rng.randint(60, 90) + 16 * nearness) / 100)


def _hangs(c: int) -> bool:
    """Whether objects of class c are found above the horizon: one class in four."""
    return c % 4 == 3


def _paint_object(rng: np.random.RandomState, canvas: _Canvas, c: int, y: int, radius: float) -> None:
    """Paint an object of class c at row y, tilted by up to 0.4 rad."""
    x = rng.randint(4, SIDE - 4)
    reach = int(1.4 * radius)
    rows, columns = (slice(max(0, at - reach), min(SIDE, at + reach + 1)) for at in (y, x))
    half = rng.randint(-20, 21) / 100  # the tangent of half the tilt: a library's sine may differ in its last bit
    sin, cos = 2 * half / (1 + half * half), (1 - half * half) / (1 + half * half)
    dx, dy = _column[:1, columns] - x, _row[rows, :1] - y
    u, v = (cos * dx + sin * dy) / radius, (cos * dy - sin * dx) / radius
    inside = silhouette(FORMS[c - 1], u, v)
    canvas.paint(c, (rows, columns), inside, _colours(rng, c, u, v, radius))


def _colours(rng: np.random.RandomState, c: int, u: np.ndarray, v: np.ndarray, radius: float) -> np.ndarray:
    """Return one instance's colours, int64 (h, w, 3), at coordinates u (right) and v (down) in units of `radius`."""
    pattern, hue, _ = CLASS_NAMES[c].split(" ")
    colour = np.asarray(HUES[hue]) + rng.randint(-18, 19, 3)
    along, across, pattern = (v, u, "striped") if pattern == "banded" else (u, v, pattern)
    return np.asarray(colour + texture(pattern, rng, along, across, radius)[..., None])


def _lit(rng: np.random.RandomState, image: np.ndarray) -> np.ndarray:
    """Return the image as uint8 under light that varies slowly in strength and colour, with noise."""
    light = (clutter(rng) - 120) // 4 + rng.randint(-12, 13)
    lit = image + light + rng.randint(-14, 15, image.shape)
    return np.asarray(np.clip(lit, 0, 255), dtype=np.uint8)
