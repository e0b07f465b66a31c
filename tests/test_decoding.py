"""Image files of any kind, sound, damaged, enormous or none at all: an image, or one line that names the file."""

import struct
import sys
import zlib
from pathlib import Path

import pytest
from damaged_images import FORMATS, damaged, outcomes
from PIL import Image
from PIL import __version__ as PILLOW
from torch._utils import ExceptionWrapper

from bench.screen.faults import explained
from benchmarks.decoding import opened
from benchmarks.errors import FileError
from benchmarks.files import read_mask
from benchmarks.sets.photographs import EXTENSIONS, read_photograph

ESCAPED = {"AVIF": (11, 37), "BLP": (41, 118), "DDS": (7, 25), "PSD": (132,)}
"""Damages for which Pillow 13 raises RuntimeError, an error of its own, NotImplementedError, OverflowError."""
DAMAGES = range(30)


@pytest.mark.filterwarnings("ignore")  # of metadata that is passed over
@pytest.mark.parametrize("name", FORMATS)
def test_a_damaged_file_of_any_format_is_an_image_or_one_line(name: str) -> None:
    path = Path(f"a {name}")
    try:
        content = FORMATS[name]()
    except (KeyError, OSError) as error:
        pytest.skip(f"Pillow {PILLOW} writes no {name} here: {error}")
    assert outcomes(content, path)[0] == ("read" if name != "SPIDER" else "UnclearError")
    for i in (*DAMAGES, *ESCAPED.get(name, ())):
        outcomes(damaged(content, f"{name} {i}"), path, max_megapixels=2)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "an empty file"),
        (b'{"shapes": []}', "not an image that Pillow reads"),
        (b"\0\5\26\7Mac OS X", "not an image that Pillow reads"),
        (b"\0\0\0\30ftypheic\0\0\0\0mif1heic", "not an image that Pillow reads, but heic; save it as PNG or JPEG"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS, its content was not fetched"),
        (b"/annex/objects/SHA256E-s1--0.png\n", "a pointer of git-annex, its content was not fetched"),
    ],
)
def test_what_is_no_image_is_told_as_what_it_is(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(content)
    for read in (read_photograph, read_mask):
        with pytest.raises(FileError) as error:
            read(path)
        assert str(error.value).startswith(f"cannot decode {path} ({said}")


def test_an_image_is_read_up_to_the_limit_and_refused_above(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("L", (100, 50)).save(path)
    for read in (read_photograph, read_mask):
        read(path, 0.005)
        with pytest.raises(FileError, match=r"--max-megapixels 1 \(data\.max_megapixels\) reads it"):
            read(path, 0.0049)


@pytest.mark.filterwarnings("ignore:Image size")  # ignored by the module, before pytest sets its own filters
def test_the_limit_may_be_above_pillows_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
    header = b"IHDR" + struct.pack(">IIBBBBB", 20000, 20000, 8, 0, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n\0\0\0\x0d" + header + struct.pack(">I", zlib.crc32(header)) + b"\0\0\0\0IDAT"
    with pytest.raises(FileError, match=r"cannot decode a\.png \(400 megapixels; --max-megapixels 400 "):
        opened(content, Path("a.png")).__enter__()
    with opened(content, Path("a.png"), 400) as image:
        assert image.size == (20000, 20000)


def test_memory_that_a_file_asks_for_in_vain_is_told_with_its_name() -> None:
    told = r"cannot decode a\.bmp \(there is no memory for its pixels\)"
    with pytest.raises(FileError, match=told) as error, opened(FORMATS["BMP"](), Path("a.bmp")):
        raise MemoryError
    assert explained(error.value) == str(error.value)


def test_a_job_tells_it_in_the_same_line_whoever_read_the_file(tmp_path: Path) -> None:
    """The DataLoader puts a worker's traceback above it."""
    path = tmp_path / "a.png"
    path.write_bytes(b"")
    try:
        read_photograph(path)
    except FileError as error:
        line, wrapped = explained(error), ExceptionWrapper(sys.exc_info(), "in DataLoader worker process 0")
    assert line == f"cannot decode {path} (an empty file)"
    with pytest.raises(FileError) as raised:
        wrapped.reraise()
    assert explained(raised.value) == line


def test_every_extension_of_a_format_that_pillow_decodes_is_a_photographs() -> None:
    Image.init()
    containers = {"BUFR", "GRIB", "HDF5", "MPEG"}  # Pillow knows them, and decodes them with a plug-in or not at all
    decoded = {extension for extension, kind in Image.EXTENSION.items() if kind in set(Image.OPEN) - containers}
    assert decoded <= set(EXTENSIONS)
    assert not {".json", ".txt", ".xml", ".csv", ".npy", ".mat", ".db", ".pdf", ".svg"} & set(EXTENSIONS)
