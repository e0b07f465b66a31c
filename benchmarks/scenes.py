"""`scenes`: 150 classes in rooms, streets and landscapes, generated from a seed in seconds.

The data set stands in for ADE20K on a laptop: every pixel of a scene but a few patches of clutter is labelled,
an image holds 5 to 12 classes, their frequency falls with the class id over two orders of magnitude, and classes
go together: each kind of scene has layers of its own (a sky is shared) and objects that come in themes.

A class is a (texture, hue, form) triple. Classes c, c + 50 and c + 100 share texture and hue; where they are
objects they differ in the kind of scene they live in, mostly also in outline, so that neither colour nor outline
nor context alone tells a class.

Pixels are made as those of `shapes`: equal seeds give equal bytes on every machine.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import ClassVar

import numpy as np

from benchmarks.generated import GeneratedImageSet
from benchmarks.imageset import Split
from benchmarks.labels import BACKGROUND
from benchmarks.shapes import SILHOUETTES, _clutter, _silhouette, _texture

SIDE = 64
SIZES: dict[Split, int] = {"train": 4000, "test": 500}
VERSION = 1
"""Raised with every change of a pixel; the checksum in the tests changes with it."""
CLASSES_PER_IMAGE = (5, 12)

HUES = {
    "red": (200, 55, 55),
    "orange": (225, 130, 45),
    "yellow": (215, 200, 70),
    "green": (70, 150, 60),
    "teal": (55, 165, 160),
    "blue": (60, 95, 205),
    "violet": (140, 70, 185),
    "pink": (225, 130, 180),
    "brown": (110, 75, 45),
    "grey": (135, 135, 140),
}
TEXTURES = ("plain", "striped", "checked", "dotted", "banded")
FORMS = tuple(
    """
    sky sky sky wall wall wall wall field building pavement
    pavement pavement hill building floor field building road hill floor
    ceiling floor field floor field road road hill building curtain
    disc water fence rug diamond half-disc water wood fence path
    bar water triangle cross arrow wood ceiling wood square ring
    hexagon curtain disc ceiling diamond half-disc bar triangle cross arrow
    square ring hexagon fence window disc diamond half-disc bar triangle
    window path cross arrow square ring rug hexagon disc diamond
    half-disc bar triangle cross arrow square ring hexagon disc diamond
    half-disc bar diamond half-disc bar triangle rug cross arrow square
    ring hexagon square ring hexagon disc diamond half-disc bar triangle
    cross arrow square ring hexagon square ring hexagon disc diamond
    half-disc bar triangle cross arrow square ring arrow square ring
    hexagon disc diamond half-disc bar triangle cross arrow square ring
    hexagon disc curtain diamond half-disc bar triangle half-disc bar triangle
    """.split()
)
"""The form of every class by id: a region's name or a silhouette. A column shares a hue, a row a texture."""
CLASS_NAMES = (
    "background",
    *(f"{TEXTURES[i // 10 % 5]} {tuple(HUES)[i % 10]} {form}" for i, form in enumerate(FORMS)),
)

Layers = list[tuple[str, np.ndarray]]
"""Regions from the back to the front: the form, and bool (64, 64), where it is painted."""

_Y, _X = np.mgrid[0:SIDE, 0:SIDE]


@dataclass(frozen=True)
class Scenes(GeneratedImageSet):
    """4,000 training and 500 test images of 64 x 64 pixels, made from a seed on the first use."""

    name: ClassVar[str] = "scenes"
    dense: ClassVar[bool] = True
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
    canvas = _Canvas(_clutter(rng), np.full((SIDE, SIDE), BACKGROUND, dtype=np.uint8))
    kind = rng.randint(len(_LAYOUTS))
    horizon, layers = _LAYOUTS[kind](rng)
    drawn = _paint_regions(rng, canvas, layers)
    objects = _Objects(kind, rng.randint(_THEMES), horizon, drawn)
    fewest, most = CLASSES_PER_IMAGE
    _paint_objects(rng, canvas, objects, max(2, rng.randint(fewest + 1, most) - len(drawn)))
    while np.count_nonzero(np.bincount(canvas.label_map.ravel())[1:]) < fewest:
        _paint_objects(rng, canvas, objects, 1)
    return _lit(rng, canvas.image), canvas.label_map


@dataclass(frozen=True)
class _Canvas:
    """An image (int64 64 x 64 x 3) and its label map (uint8 64 x 64) while they are painted."""

    image: np.ndarray
    label_map: np.ndarray

    def paint(self, c: int, window: tuple[slice, slice], inside: np.ndarray, colours: np.ndarray) -> None:
        """Paint class c where `inside`, bool (h, w) of the window, with colours (h, w, 3)."""
        np.copyto(self.image[window], colours, where=inside[..., None])
        self.label_map[window][inside] = c


class _Pool:
    """Classes of which one is drawn, the more often the smaller its id."""

    def __init__(self, classes: Iterable[int]) -> None:
        self.classes = tuple(classes)
        self._bounds = tuple(accumulate(20_000 // (c + 8) for c in self.classes))

    def draw(self, rng: np.random.RandomState) -> int:
        return self.classes[bisect_right(self._bounds, rng.randint(self._bounds[-1]))]


@dataclass
class _Objects:
    """Which objects an image may hold: its kind of scene, its theme, its horizon, the classes drawn so far."""

    kind: int
    theme: int
    horizon: int
    drawn: set[int]

    def draw(self, rng: np.random.RandomState) -> int:
        """Draw a class that the image does not hold yet, mostly one of its theme."""
        while True:
            theme = self.theme if rng.randint(100) < 75 else rng.randint(_THEMES)
            c = _OBJECTS[self.kind][theme].draw(rng)
            if c not in self.drawn:
                self.drawn.add(c)
                return c


def _room(rng: np.random.RandomState) -> tuple[int, Layers]:
    horizon = rng.randint(34, 46)
    layers = [("wall", _Y < horizon), ("floor", _Y >= horizon)]
    if rng.randint(100) < 55:
        layers.append(("ceiling", rng.randint(7, 13) > _Y))
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
    layers = [("sky", _Y < horizon), ("pavement", _Y >= horizon)]
    left = rng.randint(-8, 6)
    while left < SIDE - 8:
        right = left + rng.randint(18, 32)
        layers.append(("building", _box(left, right, horizon - rng.randint(12, 28), horizon)))
        left = right + max(0, rng.randint(-8, 10))
    if rng.randint(100) < 45:
        layers.append(("fence", _box(0, SIDE, horizon - rng.randint(6, 9), horizon)))
    if rng.randint(100) < 85:
        near, slope = rng.randint(3, 9), rng.randint(5, 11)
        layers.append(("road", (_Y >= horizon) & (10 * abs(_X - rng.randint(20, 44)) < 10 * near + slope * (_Y - horizon))))
    return horizon, layers


def _landscape(rng: np.random.RandomState) -> tuple[int, Layers]:
    horizon = rng.randint(28, 38)
    layers = [("sky", _Y < horizon), ("hill", _below(rng, horizon - 14, 9)), ("field", _Y >= horizon)]
    if rng.randint(100) < 60:
        layers.append(("wood", _below(rng, horizon - 5, 3) & (horizon + 2 > _Y)))
    if rng.randint(100) < 60:
        shore = rng.randint(horizon + 4, 48)
        layers.append(("water", _below(rng, shore, 3) & ~_below(rng, shore + rng.randint(9, 15), 3)))
    if rng.randint(100) < 45:
        bend = 10 * rng.randint(10, 54) + rng.randint(-8, 9) * (_Y - horizon)
        layers.append(("path", (_Y >= horizon) & (abs(10 * _X - bend) < 30 + 2 * (_Y - horizon))))
    return horizon, layers


def _box(left: int, right: int, top: int, bottom: int) -> np.ndarray:
    return np.asarray((_X >= left) & (_X < right) & (_Y >= top) & (_Y < bottom))


def _ellipse(x: int, y: int, width: int, height: int) -> np.ndarray:
    return np.asarray(((_X - x) * height) ** 2 + ((_Y - y) * width) ** 2 < (width * height) ** 2)


def _below(rng: np.random.RandomState, y: int, swing: int) -> np.ndarray:
    """True below a line that rises and falls around y by up to `swing` pixels."""
    heights = 16 * y + rng.randint(-16 * swing, 16 * swing + 1, SIDE // 16 + 1)
    at, part = np.divmod(np.arange(SIDE), 16)
    return np.asarray(16 * 16 * _Y >= heights[at] * (16 - part) + heights[at + 1] * part)


_LAYOUTS: tuple[Callable[[np.random.RandomState], tuple[int, Layers]], ...] = (_room, _street, _landscape)
_THEMES = 3
_REGIONS = {
    form: _Pool(c for c, its in enumerate(FORMS, 1) if its == form) for form in sorted({*FORMS} - {*SILHOUETTES})
}
_OBJECTS = [
    [
        _Pool(
            c
            for c, form in enumerate(FORMS, 1)
            if form in SILHOUETTES and (c % 3 == kind or c % 8 == 0) and c // 3 % _THEMES == theme
        )
        for theme in range(_THEMES)
    ]
    for kind in range(len(_LAYOUTS))
]
"""The objects by kind of scene and theme; one class in eight lives in all kinds."""


def _paint_regions(rng: np.random.RandomState, canvas: _Canvas, layers: Layers) -> set[int]:
    """Paint the layers but for patches of clutter, and return their classes."""
    patch = np.zeros((SIDE, SIDE), dtype=bool)
    for _ in range(rng.randint(1, 4)):
        patch |= _ellipse(*rng.randint(4, 60, 2), *rng.randint(6, 13, 2))
    drawn = set()
    for form, inside in layers:
        c = _REGIONS[form].draw(rng)
        drawn.add(c)
        colours = _colours(rng, c, _X[:1], _Y[:, :1], 1.0)
        canvas.paint(c, (slice(None), slice(None)), inside & ~patch, colours)
    return drawn


def _paint_objects(rng: np.random.RandomState, canvas: _Canvas, objects: _Objects, count: int) -> None:
    """Paint objects of `count` further classes, one or two of each, the far ones first."""
    classes = [objects.draw(rng) for _ in range(count)]
    classes += [c for c in classes if rng.randint(100) < 30]
    places = [(rng.randint(*((5, objects.horizon - 3) if c % 4 == 3 else (objects.horizon, 60))), c) for c in classes]
    for y, c in sorted(places):
        distance = abs(y - objects.horizon)
        _paint_object(rng, canvas, c, y, (rng.randint(65, 95) + 2 * distance) / 10)


def _paint_object(rng: np.random.RandomState, canvas: _Canvas, c: int, y: int, radius: float) -> None:
    """Paint an object of class c at height y, tilted by up to 0.4 rad."""
    x = rng.randint(4, SIDE - 4)
    reach = int(1.4 * radius)
    rows, columns = (slice(max(0, at - reach), min(SIDE, at + reach + 1)) for at in (y, x))
    half = rng.randint(-20, 21) / 100  # the tangent of half the angle: no machine's own sine
    sin, cos = 2 * half / (1 + half * half), (1 - half * half) / (1 + half * half)
    dx, dy = _X[:1, columns] - x, _Y[rows, :1] - y
    u, v = (cos * dx + sin * dy) / radius, (cos * dy - sin * dx) / radius
    inside = _silhouette(FORMS[c - 1], u, v)
    canvas.paint(c, (rows, columns), inside, _colours(rng, c, u, v, radius))


def _colours(rng: np.random.RandomState, c: int, u: np.ndarray, v: np.ndarray, radius: float) -> np.ndarray:
    """Return the colours of one instance of class c, int64 (h, w, 3), in coordinates in units of `radius`."""
    texture, hue, _ = CLASS_NAMES[c].split(" ")
    colour = np.asarray(HUES[hue]) + rng.randint(-18, 19, 3)
    along, across, pattern = (v, u, "striped") if texture == "banded" else (u, v, texture)
    return np.asarray(colour + _texture(pattern, rng, along, across, radius)[..., None])


def _lit(rng: np.random.RandomState, image: np.ndarray) -> np.ndarray:
    """Return the image as uint8 under light that varies slowly in strength and colour, with noise."""
    light = (_clutter(rng) - 120) // 4 + rng.randint(-12, 13)
    return np.clip(image + light + rng.randint(-14, 15, image.shape), 0, 255).astype(np.uint8)
