"""Photographs from files: any depth becomes 8 bit by a stated rule, and EXIF turns where that alone fits the label map.

What can be read in more than one way is refused by name: nothing is guessed from an image's own range of values.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

from benchmarks.decoding import MAX_MEGAPIXELS, opened
from benchmarks.errors import DataError, UnclearError
from benchmarks.files import NO_EXTENSION, read_bytes

Size = tuple[int, ...]
"""Height and width."""

EXTENSIONS = (
    NO_EXTENSION,
    ".apng", ".avif", ".avifs", ".blp", ".bmp", ".bw", ".cur", ".dcx", ".dds", ".dib", ".emf", ".eps", ".fit", ".fits",
    ".flc", ".fli", ".ftc", ".ftu", ".gbr", ".gif", ".icb", ".icns", ".ico", ".iim", ".im", ".j2c", ".j2k", ".jfif",
    ".jp2", ".jpc", ".jpe", ".jpeg", ".jpf", ".jpg", ".jpx", ".mpo", ".msp", ".pbm", ".pcd", ".pcx", ".pfm", ".pgm",
    ".png", ".pnm", ".ppm", ".ps", ".psd", ".pxr", ".qoi", ".ras", ".rgb", ".rgba", ".sgi", ".tga", ".tif", ".tiff",
    ".vda", ".vst", ".webp", ".wmf", ".xbm", ".xpm",
    ".heic", ".heif", ".hif", ".jxl",
)  # fmt: skip
"""By which a file counts as a photograph: Pillow's, and those of photographs that it does not read, to be told so.

Files of other names lie beside them: a labeller's `.json`, captions, `Thumbs.db`.
"""
AS_STORED = 1
"""The EXIF orientation that turns nothing."""
_TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1),
    8: lambda pixels: np.rot90(pixels),
}
_BACK = {6: 8, 8: 6}
"""The orientations whose turn is not its own inverse."""
_SWAPPING = (5, 6, 7, 8)

_EIGHT_BIT = ("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")
_WITH_ALPHA = ("LA", "PA", "RGBA", "RGBa")
_WIDE = ("I;16", "I;16B", "I;16L", "I;16N")
_SCALED_TO_16_BIT = ("PNG", "PPM")
"""Formats whose grey of more than 8 bit Pillow gives as 0..65535 where it gives 32 bit numbers."""
_IN_DOUBT = 4096
"""A 16-bit photograph without a value from here on may be one of 12 bit."""


@dataclass(frozen=True)
class Photograph:
    """A decoded photograph: uint8 h x w x 3, and what EXIF says of its orientation (1 to 8)."""

    path: Path
    pixels: np.ndarray
    """As stored, or as a JPEG reduced in decoding."""
    orientation: int
    wide: bool
    """Whether the file holds more than 8 bit a value."""
    size: Size
    """Height and width as stored."""

    def over(self, label_map: Path, size: Size) -> np.ndarray:
        """Return the pixels, turned where they then fit its label map and as stored do not.

        Raises `DataError` where neither has that size, and `UnclearError` where both do.
        """
        fitting = fitting_orientations(self.size, self.orientation, size)
        if not fitting:
            told = f"{self.path} is {size_told(self.size, self.orientation)}, its label map {label_map} is"
            raise DataError(f"{told} {size[1]} x {size[0]}; both must have one size")
        if len(fitting) > 1:
            raise UnclearError(f"{self.path} {orientation_unclear(self.orientation)}")
        return np.ascontiguousarray(turned(self.pixels, fitting[0]))


def read_photograph(path: Path, max_megapixels: float = MAX_MEGAPIXELS, least: int | None = None) -> Photograph:
    """Return a photograph; a JPEG may be decoded at 1/2, 1/4 or 1/8, its sides no shorter than `least` pixels.

    Raises `DataError` where it is damaged or of more than `max_megapixels`, `UnclearError` where its values may mean
    several.
    """
    return decode_photograph(read_bytes(path), path, max_megapixels, least)


def decode_photograph(
    content: bytes, path: Path, max_megapixels: float = MAX_MEGAPIXELS, least: int | None = None
) -> Photograph:
    """Return the photograph that a file's content holds; see `read_photograph`."""
    with opened(content, path, max_megapixels) as image:
        orientation, size = orientation_of(image), (image.height, image.width)
        reduced = least is not None and image.draft(None, (least, least)) is not None  # of no other format
        image.load()
        pixels, wide = _eight_bit(image, path)
        if orientation != AS_STORED and image.format == "TIFF" and orientation_of(image) == AS_STORED:
            pixels = turned_back(pixels, orientation)  # Pillow has turned it
        return Photograph(path, pixels, orientation, wide, size if reduced else pixels.shape[:2])


def turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Return an array of shape (H, W, ...) as an EXIF orientation says it is to be seen (EXIF 2.3, tag 0x0112)."""
    return _TURNS[orientation](pixels) if orientation != AS_STORED else pixels


def turned_back(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Return as it is stored what `turned` gave."""
    return turned(pixels, _BACK.get(orientation, orientation))


def fitting_orientations(size: Size, orientation: int, wanted: Size) -> Sequence[int]:
    """Return which of the two readings, as stored and as EXIF turns it, give an image the wanted size."""
    sizes = {AS_STORED: size, orientation: size[::-1] if orientation in _SWAPPING else size}
    return [reading for reading, given in sizes.items() if tuple(given) == tuple(wanted)]


def size_told(size: Size, orientation: int) -> str:
    """Return a size in words, with that in which EXIF would have it."""
    told = f"{size[1]} x {size[0]} pixels"
    return told if orientation == AS_STORED else f"{told} before its EXIF orientation {orientation} is applied"


def orientation_unclear(orientation: int) -> str:
    """Return what is wrong with an orientation that fits a label map as well as none, as the end of a sentence."""
    return (
        f"has EXIF orientation {orientation}, and its label map fits it turned and as stored; remove the tag or turn "
        f"the pixels (docs/data.md, Photographs)"
    )


def orientation_of(image: Image.Image) -> int:
    """Return what EXIF says of an image's orientation, 1 to 8; `AS_STORED` where it says nothing."""
    orientation = image.getexif().get(ExifTags.Base.Orientation)
    return orientation if orientation in _TURNS else AS_STORED


def _eight_bit(image: Image.Image, path: Path) -> tuple[np.ndarray, bool]:
    """Return uint8 H x W x 3, and whether the values had to be scaled to 8 bit."""
    if image.mode in _WIDE or (image.mode == "I" and image.format in _SCALED_TO_16_BIT):
        grey = _scaled(image, path)
        return np.repeat(grey[:, :, None], 3, axis=2), True
    if image.mode not in _EIGHT_BIT + _WITH_ALPHA:
        raise UnclearError(f"{path} holds values of no known range (mode {image.mode}); save it as 8 or 16 bit")
    if image.mode in _WITH_ALPHA or "transparency" in image.info:
        if image.convert("RGBA").getchannel("A").getextrema() != (255, 255):
            raise UnclearError(f"{path} {_TRANSPARENT}")
        image = image.convert("RGBA")
    return np.asarray(image.convert("RGB")), False


def _scaled(image: Image.Image, path: Path) -> np.ndarray:
    """Return grey of more than 8 bit as uint8 H x W: 255 v / (2^bits - 1), bits being those that the file declares."""
    tags = getattr(image, "tag_v2", {})
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        raise UnclearError(f"{path} holds 16 bit with 0 as white, which is not read rightly; save it with 0 as black")
    bits = tags.get(_BITS_PER_SAMPLE, (16,))[0]
    values = np.asarray(image).astype(np.int32)
    if (values == image.info.get("transparency", -1)).any():
        raise UnclearError(f"{path} {_TRANSPARENT}")
    if bits == 16 and 0 < values.max() < _IN_DOUBT:
        told = f"{path} is of 16 bit and has no value above {values.max()}"
        raise UnclearError(f"{told}: 12 bit, or very dark; save it as 8 bit")
    most = 2**bits - 1
    return np.asarray((255 * values + most // 2) // most, dtype=np.uint8)


_TRANSPARENT = "holds transparent pixels; lay it on a background and save it without alpha"
_BITS_PER_SAMPLE = 258
_PHOTOMETRIC = 262
_WHITE_IS_ZERO = 0
"""Tags of TIFF 6.0."""
