"""Random scale, crop and flip of an image and its annotation together (DeepLab practice)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from benchmarks.labels import VOID
from benchmarks.resampling import resized, resized_by_pillow

Colour = tuple[float, float, float]
"""Red, green and blue, each from 0 to 1."""


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

    `crop` is in pixels, None keeps the whole image; what the crop takes from outside the image is void, its colour
    `outside`, which is the mean of what the network takes off. Of a scaled image only what the crop keeps is computed,
    from the nearest whole pixels of the image.
    """

    scale: tuple[float, float] = (1.0, 1.0)
    crop: int | None = None
    flip: bool = True
    outside: Colour = (0.0, 0.0, 0.0)

    def __call__(self, image: Tensor, labels: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Return image (uint8 3 x H x W) and labels (uint8 H x W), augmented by draws from `rng`."""
        drawn, down, right, mirrored = rng.random(4)
        factor = self.scale[0] + drawn * (self.scale[1] - self.scale[0])
        if self.crop is not None:
            image, labels = _scaled_crop(image, labels, factor, self.crop, (down, right), self.outside)
        elif factor != 1.0:
            image, labels = resized(image, labels, [_scaled(length, factor) for length in labels.shape])
        if self.flip and mirrored < 0.5:
            image, labels = image.flip(-1), labels.flip(-1)
        return image, labels


def _scaled_crop(
    image: Tensor, labels: Tensor, factor: float, side: int, at: tuple[float, float], outside: Colour
) -> tuple[Tensor, Tensor]:
    """Return the square of `side` pixels at `at` (down, right), in [0, 1), of the image scaled by `factor`."""
    top, from_height, height = _window(labels.shape[0], factor, side, at[0])
    left, from_width, width = _window(labels.shape[1], factor, side, at[1])
    image = image[:, top : top + from_height, left : left + from_width]
    labels = labels[top : top + from_height, left : left + from_width]
    image, labels = resized(image, labels, [height, width])
    return _padded(image, labels, side, outside)


def _window(length: int, factor: float, side: int, at: float) -> tuple[int, int, int]:
    """Return along one axis where the crop begins, its length in the image's own pixels, and in scaled ones."""
    scaled = _scaled(length, factor)
    taken = min(side, scaled)
    own = min(length, max(1, round(taken * length / scaled)))
    return int(at * (length - own + 1)), own, taken


def _scaled(length: int, factor: float) -> int:
    return max(1, round(length * factor))


def _padded(image: Tensor, labels: Tensor, side: int, outside: Colour) -> tuple[Tensor, Tensor]:
    """Return a square of `side` pixels; what is added below and to the right is of the colour `outside` and void."""
    below, beside = (side - s for s in labels.shape)
    if not below and not beside:
        return image, labels
    fills = [round(255 * part) for part in outside]
    image = torch.stack([F.pad(c[None], [0, 0, beside, below], fill=f)[0] for c, f in zip(image, fills, strict=True)])
    return image, F.pad(labels[None], [0, 0, beside, below], fill=VOID)[0]


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
    if by is None:
        return images.float() / 255
    return (images.float() - _levels(by.mean)) / _levels(by.deviation)


@cache
def _levels(colour: Colour) -> Tensor:
    """Return a colour float32 (3, 1, 1), from 0 to 255."""
    return torch.tensor(colour)[:, None, None] * 255
