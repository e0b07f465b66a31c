"""The one place where the content of an image file is decoded: whatever a decoder raises is one line with its name.

Pillow's decoders raise nearly anything for a damaged file, and refuse a large image without telling which.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from benchmarks.errors import DataError, FileError

MAX_MEGAPIXELS = 179.0
"""The largest image that is read by default, in millions of pixels: Pillow's limit, against files that fill memory."""

warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # above half the limit, without a name


@contextmanager
def opened(content: bytes, path: Path, max_megapixels: float = MAX_MEGAPIXELS) -> Iterator[Image.Image]:
    """Open the image that a file's content holds; what is raised within the block counts as the decoder's too.

    Raises `FileError`, one line with the file's name, for whatever Pillow raises and for an image of more than
    `max_megapixels`; a `DataError` of the block stays as it is.
    """
    _let_pillow_read(max_megapixels)
    try:
        with Image.open(io.BytesIO(content)) as image:
            if (megapixels := math.prod(image.size) / 1e6) > max_megapixels:
                raise FileError.of("cannot decode", path, _too_large(megapixels))
            yield image
    except DataError:
        raise
    except MemoryError:  # not as a cause: it would be told as the machine's, without the file that asked for so much
        raise FileError.of("cannot decode", path, "there is no memory for its pixels") from None
    except Exception as error:
        raise FileError.of("cannot decode", path, _reason(error, content)) from error


def _let_pillow_read(megapixels: float) -> None:
    """Raise Pillow's own limit, twice its `MAX_IMAGE_PIXELS`, where it is lower: decoders ask it of parts of a file."""
    if Image.MAX_IMAGE_PIXELS is not None:
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, math.ceil(megapixels * 1e6 / 2))


def _too_large(megapixels: float) -> str:
    return f"{megapixels:,.0f} megapixels; --max-megapixels {math.ceil(megapixels)} (data.max_megapixels) reads it"


def _reason(error: Exception, content: bytes) -> str:
    if isinstance(error, UnidentifiedImageError):
        return _unknown(content)
    text = " ".join(str(error).split())
    if isinstance(error, Image.DecompressionBombError) and (pixels := re.search(r"(\d+) pixels", text)):
        return _too_large(int(pixels[1]) / 1e6)
    return f"{type(error).__name__} {text}".strip() if isinstance(error, LookupError) or not text else text


def _unknown(content: bytes) -> str:
    """Return what a content is in which Pillow sees no image."""
    if not content:
        return "an empty file"
    if content.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS, its content was not fetched: git lfs pull"
    if content.startswith(b"/annex/objects/"):
        return "a pointer of git-annex, its content was not fetched: git annex get"
    if content[4:8] == b"ftyp":
        return f"not an image that Pillow reads, but {content[8:12].decode('ascii', 'replace')}; save it as PNG or JPEG"
    return "not an image that Pillow reads"
