"""Random scale, crop and flip of an image and its annotation together (DeepLab practice)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from benchmarks.labels import VOID

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Augmentation:
    """What is done to a training image: scale drawn from `scale`, a square crop, a flip.

    `crop` is in pixels, None keeps the whole image; what the crop takes from outside the image is void.
    """

    scale: tuple[float, float] = (1.0, 1.0)
    crop: int | None = None
    flip: bool = True

    def __call__(self, image: Tensor, labels: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Return image (uint8 3 x H x W) and labels (uint8 H x W), augmented by draws from `rng`."""
        factor, down, right, mirrored = rng.random(4)
        if self.scale != (1.0, 1.0):
            image, labels = _scaled(image, labels, self.scale[0] + factor * (self.scale[1] - self.scale[0]))
        if self.crop is not None:
            image, labels = _cropped(image, labels, self.crop, down, right)
        if self.flip and mirrored < 0.5:
            image, labels = image.flip(-1), labels.flip(-1)
        return image, labels


def _scaled(image: Tensor, labels: Tensor, factor: float) -> tuple[Tensor, Tensor]:
    size = [max(1, round(side * factor)) for side in labels.shape]
    image = F.resize(image, size, InterpolationMode.BILINEAR, antialias=True)
    return image, F.resize(labels[None], size, InterpolationMode.NEAREST)[0]


def _cropped(image: Tensor, labels: Tensor, side: int, down: float, right: float) -> tuple[Tensor, Tensor]:
    below, beside = (max(0, side - s) for s in labels.shape)
    if below or beside:
        mean = [round(255 * m) for m in MEAN]
        image = torch.stack(
            [F.pad(c[None], [0, 0, beside, below], fill=m)[0] for c, m in zip(image, mean, strict=True)]
        )
        labels = F.pad(labels[None], [0, 0, beside, below], fill=VOID)[0]
    top = int(down * (labels.shape[0] - side + 1))
    left = int(right * (labels.shape[1] - side + 1))
    return image[:, top : top + side, left : left + side], labels[top : top + side, left : left + side]


@dataclass(frozen=True)
class View:
    """How an image is looked at in evaluation: its shorter side scaled to `side` pixels, then the central square.

    The convention of MiB's published code. Label maps are scaled by the nearest pixel.
    """

    side: int

    def __call__(self, image: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return image (uint8 3 x S x S) and labels (uint8 S x S)."""
        image, labels = _scaled(image, labels, self.side / min(labels.shape))
        return F.center_crop(image, [self.side]), F.center_crop(labels, [self.side])


def normalised(images: Tensor) -> Tensor:
    """Return uint8 images (..., 3, H, W) as float32 with ImageNet's mean and deviation taken out."""
    mean = torch.tensor(MEAN)[:, None, None] * 255
    std = torch.tensor(STD)[:, None, None] * 255
    return (images.float() - mean) / std
