"""Random scale or area, crop and flip of an image and its annotation together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from benchmarks.labels import VOID
from benchmarks.resampling import resized, resized_by_pillow

Colour = tuple[float, float, float]
"""Red, green and blue, each from 0 to 1."""
BLACK: Colour = (0.0, 0.0, 0.0)
Box = tuple[int, int, int, int]
"""Top, left, height and width, in pixels."""


class Normalisation(Protocol):
    """What a network takes images by: (colour - mean) / deviation."""

    @property
    def mean(self) -> Colour:
        """What is taken off."""

    @property
    def deviation(self) -> Colour:
        """What is divided by."""


@dataclass(frozen=True)
class Augmentation:
    """What is done to a training image: scale drawn from `scale`, a square crop, a flip.

    `crop` is in pixels, None keeps the whole image; what the crop takes from outside the image has the label `fill` and
    the colour `outside`, usually the mean of what the network takes off. That lies below and to the right of the image,
    or `around` it: half of what its shorter side lacks is added at each border, and the crop lies anywhere in the whole
    (SSUL). Of a scaled image only what the crop keeps is computed, from the nearest whole pixels of the image.
    """

    scale: tuple[float, float] = (1.0, 1.0)
    crop: int | None = None
    flip: bool = True
    outside: Colour = BLACK
    fill: int = VOID
    around: bool = False

    def __call__(self, image: Tensor, labels: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Return image (uint8 3 x H x W) and labels (uint8 H x W), augmented by draws from `rng`."""
        drawn, down, right, mirrored = rng.random(4)
        factor = self.scale[0] + drawn * (self.scale[1] - self.scale[0])
        if self.crop is not None:
            image, labels = self._scaled_crop(image, labels, factor, self.crop, (down, right))
        elif factor != 1.0:
            image, labels = resized(image, labels, [_scaled(length, factor) for length in labels.shape])
        if self.flip and mirrored < 0.5:
            image, labels = image.flip(-1), labels.flip(-1)
        return image, labels

    def _scaled_crop(
        self, image: Tensor, labels: Tensor, factor: float, side: int, at: tuple[float, float]
    ) -> tuple[Tensor, Tensor]:
        """Return the square of `side` pixels at `at` (down, right), in [0, 1), of the image scaled by `factor`."""
        lacking = side - _scaled(min(labels.shape), factor)
        border = (lacking + 1) // 2 if self.around and lacking > 0 else 0
        y, x = (_window(length, factor, side, place, border) for length, place in zip(labels.shape, at, strict=True))
        image, labels = _cut(image, labels, (y.start, x.start, y.own, x.own))
        image, labels = resized(image, labels, [y.shown, x.shown])
        return self._padded(image, labels, side, (y.before, x.before))

    def _padded(self, image: Tensor, labels: Tensor, side: int, corner: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Return a square of `side` pixels that has the image at `corner` (down, right)."""
        if list(labels.shape) == [side, side]:
            return image, labels
        rows, columns = (slice(at, at + length) for at, length in zip(corner, labels.shape, strict=True))
        square, mapped = _grey_levels(self.outside).repeat(1, side, side), labels.new_full((side, side), self.fill)
        square[:, rows, columns], mapped[rows, columns] = image, labels
        return square, mapped


class _Window(NamedTuple):
    """What a crop shows of an image along one axis, in pixels."""

    start: int
    own: int
    """How many of the image's own from there on."""
    shown: int
    """How many these are in the crop."""
    before: int
    """How many of the crop lie before the image."""


def _window(length: int, factor: float, side: int, at: float, border: int) -> _Window:
    """Return what a crop at `at` shows of the scaled image, at both ends of which `border` scaled pixels are added."""
    scaled = _scaled(length, factor)
    if not border:
        shown = min(side, scaled)
        own = _own(shown, length, scaled)
        return _Window(int(at * (length - own + 1)), own, shown, 0)
    first = int(at * (scaled + 2 * border - side + 1)) - border
    begin = max(first, 0)
    shown = min(first + side, scaled) - begin
    own = _own(shown, length, scaled)
    return _Window(min(round(begin * length / scaled), length - own), own, shown, begin - first)


def _own(shown: int, length: int, scaled: int) -> int:
    """Return how many of an image's own pixels are so many of the scaled ones."""
    return min(length, max(1, round(shown * length / scaled)))


def _scaled(length: int, factor: float) -> int:
    return max(1, round(length * factor))


TRIES = 10
"""So often a box is drawn for a resized crop before the central one is taken."""


@dataclass(frozen=True)
class ResizedCrop:
    """What is done to a training image: a box of it resized to a square, a flip (MiB, PLOP, DKD).

    The box's area is drawn evenly from `area`, in parts of the image's, and the logarithm of its width by its height
    evenly between those of `aspect`, until the box is no larger than the image; it lies anywhere in it. After `TRIES`
    of them it is the largest central box with an aspect within the bounds, the whole image where that has one. `crop`
    is the square's side in pixels; None keeps the image's own height and width.
    """

    area: tuple[float, float] = (0.5, 2.0)
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    crop: int | None = None
    flip: bool = True

    def __call__(self, image: Tensor, labels: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Return image (uint8 3 x H x W) and labels (uint8 H x W), augmented by draws from `rng`."""
        height, width = labels.shape
        size = (height, width) if self.crop is None else (self.crop, self.crop)
        image, labels = resized(*_cut(image, labels, self.box(height, width, rng)), size)
        if self.flip and rng.random() < 0.5:
            image, labels = image.flip(-1), labels.flip(-1)
        return image, labels

    def box(self, height: int, width: int, rng: np.random.Generator) -> Box:
        """Return the box drawn in an image of a size."""
        narrow, wide = (math.log(bound) for bound in self.aspect)
        for area, aspect, down, right in rng.random((TRIES, 4)).tolist():
            pixels = height * width * (self.area[0] + area * (self.area[1] - self.area[0]))
            ratio = math.exp(narrow + aspect * (wide - narrow))
            rows, columns = round(math.sqrt(pixels / ratio)), round(math.sqrt(pixels * ratio))
            if 0 < rows <= height and 0 < columns <= width:
                return int(down * (height - rows + 1)), int(right * (width - columns + 1)), rows, columns
        return self.central_box(height, width)

    def central_box(self, height: int, width: int) -> Box:
        """Return the largest box at the centre of an image of a size that has an aspect within the bounds."""
        rows = min(height, max(1, round(width / self.aspect[0])))
        columns = min(width, max(1, round(height * self.aspect[1])))
        return (height - rows) // 2, (width - columns) // 2, rows, columns


AnyAugmentation = Augmentation | ResizedCrop


def _cut(image: Tensor, labels: Tensor, box: Box) -> tuple[Tensor, Tensor]:
    top, left, height, width = box
    rows, columns = slice(top, top + height), slice(left, left + width)
    return image[:, rows, columns], labels[rows, columns]


@dataclass(frozen=True)
class View:
    """How an image is looked at in evaluation: its shorter side scaled to `side` pixels, then the central square.

    MiB's view, pixel for pixel: Pillow's filters, the longer side truncated to whole pixels (500 x 375 becomes 682 x
    512 with `side` 512), the square's corner rounded, halves to even.
    """

    side: int

    def __call__(self, image: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return image (uint8 3 x S x S) and labels (uint8 S x S)."""
        pixels = resized_by_pillow(image.numpy(), labels.numpy(), self.scaled(labels.shape))
        image, labels = (F.center_crop(torch.from_numpy(part), [self.side]) for part in pixels)
        return image, labels

    def scaled(self, size: Sequence[int]) -> list[int]:
        """Return the height and width to which an image of a size is scaled, before the square is taken."""
        return [int(self.side * length / min(size)) for length in size]


def normalised(images: Tensor, by: Normalisation | None) -> Tensor:
    """Return uint8 images (..., 3, H, W) as float32, normalised as a network takes them; from 0 to 1 without one."""
    pixels = images.to(torch.float32, copy=True)  # then in place: memory that is new takes the most of the time
    if by is None:
        return pixels.div_(255)
    return pixels.sub_(_levels(by.mean, images.device)).div_(_levels(by.deviation, images.device))


@cache
def _levels(colour: Colour, device: torch.device) -> Tensor:
    """Return a colour float32 (3, 1, 1), from 0 to 255; kept on its device, for which nothing then waits."""
    return (torch.tensor(colour)[:, None, None] * 255).to(device)


@cache
def _grey_levels(colour: Colour) -> Tensor:
    """Return a colour uint8 (3, 1, 1)."""
    return torch.tensor([round(255 * part) for part in colour], dtype=torch.uint8)[:, None, None]
