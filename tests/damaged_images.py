"""Sound images in 28 formats, and damaged ones: what reading them must come to is an image or one line with the name.

    python tests/damaged_images.py [--damages 250] [FORMAT ...]

reads every damaged file as a photograph and as a label map, and prints how many of each format were read and refused.
`tests/test_decoding.py` does so with fewer. A format's damages are always the same.
"""

from __future__ import annotations

import argparse
import io
import random
import struct
import sys
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.decoding import MAX_MEGAPIXELS
from benchmarks.errors import DataError
from benchmarks.files import decode_mask, labels_in
from benchmarks.sets.photographs import decode_photograph

SIZE = (25, 20)
"""Width and height."""
Outcome = str
"""`read`, or the name of the kind of error that was raised, which was one line."""


def picture(mode: str) -> Image.Image:
    """Return an image without two equal rows."""
    values = np.random.default_rng(0).integers(0, 255, (SIZE[1], SIZE[0], 3)).astype(np.uint8)
    if mode == "I;16":
        return Image.fromarray(values[:, :, 0].astype(np.uint16) * 257)
    return Image.fromarray(values).convert(mode)


def saved(kind: str, mode: str = "RGB", **options: Any) -> bytes:
    """Return the file that Pillow writes."""
    buffer = io.BytesIO()
    picture(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def fits() -> bytes:
    """FITS 4.0, Sec. 3 and 4.4.1: cards of 80 characters, header and data in blocks of 2,880 bytes."""
    values = {"SIMPLE": "T", "BITPIX": 8, "NAXIS": 2, "NAXIS1": SIZE[0], "NAXIS2": SIZE[1]}
    header = "".join(f"{key:<8}= {value:>20}".ljust(80) for key, value in values.items()) + "END".ljust(80)
    return header.encode().ljust(2880) + picture("L").tobytes().ljust(2880, b"\0")


def sun() -> bytes:
    """Sun raster of 8 bit, rows of an even number of bytes (rasterfile.h)."""
    rows = np.pad(np.asarray(picture("L")), ((0, 0), (0, SIZE[0] % 2))).tobytes()
    return struct.pack(">8I", 0x59A66A95, *SIZE, 8, len(rows), 1, 0, 0) + rows


def psd() -> bytes:
    """Photoshop's format, Sec. File Header to Image Data: RGB, no colours, resources, or layers; uncompressed."""
    header = struct.pack(">4sH6xHIIHH", b"8BPS", 1, 3, SIZE[1], SIZE[0], 8, 3)
    return header + bytes(12) + struct.pack(">H", 0) + np.asarray(picture("RGB")).transpose(2, 0, 1).tobytes()


def xpm() -> bytes:
    """X PixMap 3, four colours."""
    colours = "".join(f'"{c} c #{32 * c:02x}00{255 - c:02x}",\n' for c in range(4))
    rows = "".join('"' + "".join(str(v % 4) for v in row) + '",\n' for row in np.asarray(picture("L")))
    return f'/* XPM */\nstatic char *a[] = {{\n"{SIZE[0]} {SIZE[1]} 4 1",\n{colours}{rows}}};\n'.encode()


def cur() -> bytes:
    """A Windows cursor: an icon of another type, with a hot spot."""
    return b"\0\0\2\0" + saved("ICO", bitmap_format="bmp", sizes=[(16, 16)])[4:]


def icns() -> bytes:
    """An icon of macOS that holds one PNG of 16 x 16 pixels."""
    buffer = io.BytesIO()
    picture("RGB").resize((16, 16)).save(buffer, "PNG")
    png = buffer.getvalue()
    return struct.pack(">4sI4sI", b"icns", 16 + len(png), b"icp4", 8 + len(png)) + png


def dcx() -> bytes:
    """Several PCX in one file: a magic number, their places, 0."""
    return struct.pack("<III", 0x3ADE68B1, 12, 0) + saved("PCX", "L")


FORMATS: dict[str, Callable[[], bytes]] = {
    "AVIF": lambda: saved("AVIF"),
    "BLP": lambda: saved("BLP", "P"),
    "BMP": lambda: saved("BMP"),
    "CUR": cur,
    "DCX": dcx,
    "DDS": lambda: saved("DDS", pixel_format="DXT1"),
    "FITS": fits,
    "GIF": lambda: saved("GIF", "P"),
    "ICNS": icns,
    "ICO": lambda: saved("ICO"),
    "IM": lambda: saved("IM", "P"),
    "JPEG": lambda: saved("JPEG", progressive=True),
    "JPEG2000": lambda: saved("JPEG2000"),
    "MPO": lambda: saved("MPO", save_all=True, append_images=[picture("RGB")]),
    "MSP": lambda: saved("MSP", "1"),
    "PCX": lambda: saved("PCX", "P"),
    "PNG": lambda: saved("PNG", "P"),
    "PPM": lambda: saved("PPM", "I;16"),
    "PSD": psd,
    "QOI": lambda: saved("QOI"),
    "SGI": lambda: saved("SGI"),
    "SPIDER": lambda: saved("SPIDER", "F"),
    "SUN": sun,
    "TGA": lambda: saved("TGA", "P", compression="tga_rle"),
    "TIFF": lambda: saved("TIFF", "P", compression="tiff_lzw"),
    "WEBP": lambda: saved("WEBP"),
    "XBM": lambda: saved("XBM", "1"),
    "XPM": xpm,
}
"""How a small file of each format is made; all that Pillow 13 reads, less EPS and WMF, which other programs decode,
and formats without a published description."""


def damaged(content: bytes, seed: str) -> bytes:
    """Return a file with one damage, drawn by a seed: cut off, bits or lengths changed, parts lost or doubled, ..."""
    rng = random.Random(seed)
    size, file = len(content), bytearray(content)
    start = rng.randrange(rng.choice((min(size, 64), size)))
    stop = min(size, start + rng.choice((1, 2, 4, 8, 64, size)))
    match rng.randrange(7):
        case 0:
            del file[start:]
        case 1:
            for place in rng.choices(range(size), k=rng.choice((1, 3, 20))):
                file[place] ^= 1 << rng.randrange(8)
        case 2:
            file[start:stop] = rng.randbytes(stop - start)
        case 3:
            file[start:stop] = rng.choice((b"\0", b"\xff", b"\x7f")) * (stop - start)
        case 4:
            del file[start:stop]
        case 5:
            file[start:start] = file[start:stop]
        case _:
            order = rng.choice(("little", "big"))
            file[start : start + 4] = rng.choice((0, 1, 2**31 - 1, 2**32 - 1, 10**5)).to_bytes(4, order)
    return bytes(file)


def outcomes(content: bytes, path: Path, max_megapixels: float = MAX_MEGAPIXELS) -> list[Outcome]:
    """Read a file as a photograph and as a label map, in both ways; raise what is neither an image nor one line."""

    def photograph() -> None:
        pixels = decode_photograph(content, path, max_megapixels).pixels
        assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3

    def label_map() -> None:
        labels = decode_mask(content, path, max_megapixels)[0]
        assert labels.dtype == np.uint8 and labels.ndim == 2

    def labels() -> None:
        assert labels_in(content, path, max_megapixels).shape == (256,)

    return [_outcome(read, path) for read in (photograph, label_map, labels)]


def _outcome(read: Callable[[], None], path: Path) -> Outcome:
    try:
        read()
    except DataError as error:
        told = str(error)
        assert str(path) in told and "\n" not in told and " object at 0x" not in told, told
        return type(error).__name__
    return "read"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("formats", nargs="*", metavar="FORMAT", help=f"default: {', '.join(FORMATS)}")
    parser.add_argument("--damages", type=int, default=250, metavar="N", help="of each format (default 250)")
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # of metadata that is passed over
    faults = 0
    for name in options.formats or FORMATS:
        content, path, counts = FORMATS[name](), Path(f"a {name}"), Counter[Outcome]()
        assert outcomes(content, path)[0] == "read" or name == "SPIDER", f"{name} is not read as it is"
        for i in range(options.damages):
            try:
                counts.update(outcomes(damaged(content, f"{name} {i}"), path))
            except Exception as error:
                faults += 1
                print(f"{name}, damage {i}: {type(error).__name__}: {error}")
        print(f"{name:<12} {', '.join(f'{kind} {count}' for kind, count in sorted(counts.items()))}", flush=True)
    print(f"{faults} of {options.damages * len(options.formats or FORMATS)} damaged files were neither read nor told")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
