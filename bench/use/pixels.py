"""An image of Pillow's, NumPy's or torch's as 8-bit pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from torch import Tensor

from bench.settings.errors import RequestError

Pixels = npt.NDArray[np.uint8]
"""An image, H x W x 3."""
Labels = npt.NDArray[np.uint8]
"""A label map, H x W."""
AnImage = Image.Image | npt.NDArray[Any] | Tensor | str | Path
_EIGHT_BIT = ("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")


def pixels_of(image: Image.Image | npt.NDArray[Any] | Tensor) -> Pixels:
    """Return the pixels of an image as they are stored; raise `RequestError` for what is none.

    An array is (H, W, 3), or (H, W) of grey, a tensor (3, H, W) or (1, H, W); both of uint8, or float from 0 to 1.
    """
    if isinstance(image, Image.Image):
        if image.mode not in _EIGHT_BIT:
            raise RequestError(f"a PIL image of mode {image.mode}: convert it to RGB, on a background of your choice")
        return np.asarray(image.convert("RGB"))
    values = image.detach().cpu().numpy() if isinstance(image, Tensor) else image
    if isinstance(image, Tensor) and values.ndim == 3:
        values = values.transpose(1, 2, 0)
    return _of_three_channels(_eight_bit(values), tuple(image.shape))


def _eight_bit(values: npt.NDArray[Any]) -> Pixels:
    if values.dtype == np.uint8:
        return values
    if values.dtype.kind != "f":
        raise RequestError(f"an image of {values.dtype}: allowed are uint8, and float from 0 to 1")
    if not (values.size and values.min() >= 0 and values.max() <= 1):  # NaN is neither
        raise RequestError("an image of float has values outside of 0 to 1: is it normalised? give it as it was before")
    return np.asarray(np.rint(255 * values), dtype=np.uint8)


def _of_three_channels(pixels: Pixels, shape: tuple[int, ...]) -> Pixels:
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3) or not pixels.size:
        raise RequestError(f"an image of shape {shape}: allowed are (H, W, 3), (H, W), and of a tensor (3, H, W)")
    return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))
