"""Photographs of any depth, mode and EXIF orientation: by value where a rule says how, else refused by name."""

import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from benchmarks.errors import DataError, UnclearError
from benchmarks.sets.photographs import read_photograph

HEIGHT, WIDTH = 3, 4
GREY = np.array([[0, 1, 128, 129], [257, 5000, 32767, 32768], [65278, 65407, 65534, 65535]], np.uint16)
SCALED = np.array([[0, 0, 0, 1], [1, 19, 127, 128], [254, 255, 255, 255]])
"""By hand: 128 / 257 = 0.498, 129 / 257 = 0.502, 32767 / 257 = 127.498, 32768 / 257 = 127.502, ..."""


def grey(path: Path) -> np.ndarray:
    pixels = read_photograph(path).pixels
    assert pixels.dtype == np.uint8 and pixels.shape == (HEIGHT, WIDTH, 3)
    assert (pixels == pixels[:, :, :1]).all()
    return np.asarray(pixels[:, :, 0])


def tiff(path: Path, values: np.ndarray, bits: int, photometric: int = 1) -> Path:
    """Write grey values as an uncompressed little-endian TIFF of so many bits a sample, as TIFF 6.0 lays it out."""
    height, width = values.shape
    rows = ["".join(f"{value:012b}" for value in row) for row in values]
    packed = b"".join(int(row, 2).to_bytes(len(row) // 8, "big") for row in rows)
    data = values.astype("<u2").tobytes() if bits == 16 else packed
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 273: 0, 277: 1, 278: height, 279: len(data)}
    tags[273] = 8 + 2 + 12 * len(tags) + 4
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    path.write_bytes(struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + entries + struct.pack("<I", 0) + data)
    return path


@pytest.mark.parametrize("extension", ["png", "tif", "pgm"])
def test_16_bit_is_divided_by_257(tmp_path: Path, extension: str) -> None:
    path = tmp_path / f"a.{extension}"
    Image.fromarray(GREY).save(path)
    assert (grey(path) == SCALED).all()
    assert read_photograph(path).wide


def test_12_bit_that_the_file_declares_are_scaled_by_4095(tmp_path: Path) -> None:
    values = np.array([[0, 8, 9, 16], [2047, 2048, 4000, 4095], [1, 2, 3, 4]])
    expected = [[0, 0, 1, 1], [127, 128, 249, 255], [0, 0, 0, 0]]
    assert grey(tiff(tmp_path / "a.tif", values, 12)).tolist() == expected


def test_a_dark_image_of_16_bit_is_not_stretched_by_its_own_range(tmp_path: Path) -> None:
    Image.fromarray(np.full((HEIGHT, WIDTH), 5140, np.uint16)).save(tmp_path / "a.png")
    assert (grey(tmp_path / "a.png") == 20).all()
    Image.fromarray(np.zeros((HEIGHT, WIDTH), np.uint16)).save(tmp_path / "b.png")
    assert (grey(tmp_path / "b.png") == 0).all()


@pytest.mark.parametrize(
    ("image", "extension", "said"),
    [
        (Image.fromarray(GREY // 16), "png", "no value above 4095: 12 bit, or very dark"),
        (Image.fromarray(GREY // 16), "tif", "no value above 4095: 12 bit, or very dark"),
        (Image.fromarray(np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)), "tif", "no known range"),
        (Image.fromarray(np.linspace(0, 255, 12, dtype=np.float32).reshape(3, 4)), "tif", "no known range"),
        (Image.fromarray(GREY.astype(np.int32)), "tif", "no known range"),
        (Image.new("RGBA", (4, 3), (200, 0, 0, 254)), "png", "transparent"),
        (Image.new("LA", (4, 3), (200, 0)), "png", "transparent"),
        (Image.new("P", (4, 3)), "png", "transparent"),
    ],
)
def test_what_can_be_read_in_more_than_one_way_is_refused(
    tmp_path: Path, image: Image.Image, extension: str, said: str
) -> None:
    path = tmp_path / f"a.{extension}"
    image.save(path, **({"transparency": 0} if image.mode == "P" else {}))
    with pytest.raises(UnclearError, match=said) as error:
        read_photograph(path)
    assert str(error.value).startswith(f"{path} ") and "\n" not in str(error.value)


def test_16_bit_with_0_as_white_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnclearError, match="0 as white"):
        read_photograph(tiff(tmp_path / "a.tif", GREY, 16, photometric=0))
    assert (grey(tiff(tmp_path / "b.tif", GREY, 16)) == SCALED).all()


@pytest.mark.parametrize(
    ("mode", "colour", "extension", "expected"),
    [
        ("1", 1, "png", (255, 255, 255)),
        ("L", 77, "png", (77, 77, 77)),
        ("LA", (77, 255), "png", (77, 77, 77)),
        ("RGBA", (1, 2, 3, 255), "png", (1, 2, 3)),
        ("CMYK", (0, 0, 0, 55), "tif", (200, 200, 200)),
        ("RGB", (1, 2, 3), "bmp", (1, 2, 3)),
    ],
)
def test_modes_of_8_bit_and_less(
    tmp_path: Path, mode: str, colour: int | tuple[int, ...], extension: str, expected: tuple[int, ...]
) -> None:
    Image.new(mode, (4, 3), colour).save(tmp_path / f"a.{extension}")
    photograph = read_photograph(tmp_path / f"a.{extension}")
    assert (photograph.pixels == expected).all()
    assert not photograph.wide


# --------------------------------------------------------------------------------------------------- orientations


def stored(path: Path, size: tuple[int, int], orientation: int) -> Image.Image:
    """Save a photograph of `size` (width, height), all pixels different, with an EXIF orientation; return it plain."""
    width, height = size
    plain = Image.fromarray(np.arange(3 * width * height, dtype=np.uint8).reshape(height, width, 3))
    exif = Image.Exif()
    exif[0x0112] = orientation
    plain.save(path, exif=exif)
    return plain


@pytest.mark.parametrize("extension", ["png", "tif"])
@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_a_turned_photograph_is_applied_where_only_then_the_sizes_agree(
    tmp_path: Path, orientation: int, extension: str
) -> None:
    path = tmp_path / f"a.{extension}"
    plain = stored(path, (4, 3), orientation)
    tagged = plain.copy()
    tagged.getexif()[0x0112] = orientation
    seen = np.asarray(ImageOps.exif_transpose(tagged))
    assert (read_photograph(path).over(path, (4, 3)) == seen).all()
    assert (read_photograph(path).over(path, (3, 4)) == np.asarray(plain)).all()
    with pytest.raises(DataError, match=f"4 x 3 pixels before its EXIF orientation {orientation} .* is 9 x 9"):
        read_photograph(path).over(path, (9, 9))


UNDECIDED = [*((turn, (4, 3)) for turn in (2, 3, 4)), *((turn, (4, 4)) for turn in range(2, 9))]
"""Of those with sides of two lengths these keep them; on a square all do."""


@pytest.mark.parametrize("extension", ["png", "tif"])
@pytest.mark.parametrize(("orientation", "size"), UNDECIDED)
def test_an_orientation_that_sizes_do_not_decide_is_refused(
    tmp_path: Path, orientation: int, size: tuple[int, int], extension: str
) -> None:
    path = tmp_path / f"a.{extension}"
    stored(path, size, orientation)
    with pytest.raises(UnclearError, match=f"orientation {orientation}.*remove the tag or turn the pixels"):
        read_photograph(path).over(path, size[::-1])


@pytest.mark.parametrize("orientation", [1, 0, 9])
def test_no_orientation_turns_nothing(tmp_path: Path, orientation: int) -> None:
    plain = stored(tmp_path / "a.png", (4, 4), orientation)
    assert (read_photograph(tmp_path / "a.png").over(tmp_path, (4, 4)) == np.asarray(plain)).all()


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_jpeg_that_is_decoded_smaller_is_turned_as_the_whole_one_is(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    side = np.zeros((64, 96, 3), dtype=np.uint8)
    side[:32, :48] = 200  # the upper left quarter as stored
    Image.fromarray(side).save(tmp_path / "a.jpg", exif=exif)
    seen = (96, 64) if orientation == 6 else (64, 96)
    small = read_photograph(tmp_path / "a.jpg", least=16).over(tmp_path, seen)
    assert small.shape == (seen[0] // 4, seen[1] // 4, 3)
    bright = small[: len(small) // 2, small.shape[1] // 2 :] if orientation == 6 else small[:8, :12]
    assert bright[2:-2, 2:-2].min() > 180 and small.mean() < 60
    with pytest.raises(DataError, match="both must have one size"):
        read_photograph(tmp_path / "a.jpg", least=16).over(tmp_path, small.shape[:2])
