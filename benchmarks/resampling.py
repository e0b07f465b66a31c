"""An image and its label map at another size, both about pixel centres, so that edges stay where they are.

Pixel i covers [i, i + 1) and has its centre at i + 1/2. Images are filtered bilinearly, antialiased where they are
reduced; a label is that of the pixel in which the new pixel's centre lies.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from torch import Tensor


def resized(image: Tensor, labels: Tensor, size: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return image (uint8 3 x H x W) and labels (uint8 H x W) at `size`, height and width.

    For training, where every image is resized anew: twice as fast as Pillow and within two grey levels of it.
    """
    from torchvision.transforms.v2 import InterpolationMode
    from torchvision.transforms.v2 import functional as F  # torch is not imported where images are only read

    if list(labels.shape) == list(size):
        return image, labels
    image = F.resize(image, list(size), InterpolationMode.BILINEAR, antialias=True)
    return image, F.resize(labels[None], list(size), InterpolationMode.NEAREST_EXACT)[0]


def resized_by_pillow(image: np.ndarray, labels: np.ndarray, size: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Return image (uint8 3 x H x W) and labels (uint8 H x W) at `size`, height and width, with Pillow's pixels.

    For evaluation: published code resizes with Pillow.
    """
    return image_by_pillow(image, size), labels_by_pillow(labels, size)


def image_by_pillow(image: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Return an image (uint8 3 x H x W) at `size`, height and width, with Pillow's pixels."""
    return np.stack([_plane(channel, size, Image.Resampling.BILINEAR) for channel in image])


def labels_by_pillow(labels: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Return labels (uint8 H x W) at `size`, height and width: each is that of the pixel in which its centre lies."""
    return _plane(labels, size, Image.Resampling.NEAREST)


def _plane(pixels: np.ndarray, size: Sequence[int], resampling: Image.Resampling) -> np.ndarray:
    height, width = size
    return np.array(Image.fromarray(pixels).resize((width, height), resampling))
