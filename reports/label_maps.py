"""Label maps of images that nobody has annotated: as PNGs with a palette, and laid over their images."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image

from reports.atomic import write_atomic_bytes
from reports.palettes import Palette

if TYPE_CHECKING:
    from reports.picture_legend import Legend

Labels = npt.NDArray[np.uint8]

_INCHES = 6.0
"""The longer side of an overlay's picture."""
_LEAST_INCHES = 2.5
"""What a legend needs of width."""
_OPACITY = 0.6
"""Of a class's colour; the background has none."""


def write_label_map(path: Path, labels: Labels, palette: Palette) -> None:
    """Write labels (H, W) as a PNG of indices with the colours (256, 3) of all labels."""
    image = Image.fromarray(labels)
    image.putpalette(palette.tobytes())
    _write(path, image)


def write_overlay(
    path: Path, pixels: npt.NDArray[np.uint8], labels: Labels, names: Mapping[int, str], palette: Palette
) -> None:
    """Write a PNG of an image (H, W, 3) under the colours of its labels (H, W), the classes that occur named below it.

    The picture's longer side is 1,200 pixels, whatever the image's is. `names` are those of all
    labels that may occur.
    """
    from reports.lettering import DPI, labels_of
    from reports.picture_legend import Legend
    from reports.style import house_style

    factor = _INCHES * DPI / max(labels.shape)
    size = (max(1, round(labels.shape[1] * factor)), max(1, round(labels.shape[0] * factor)))
    width = max(size[0], round(_LEAST_INCHES * DPI))
    with house_style(names.values()):
        shown = [label for label in np.unique(labels).tolist() if label] or [0]
        legend = Legend({label: labels_of([names[label]], "class", label)[0] for label in shown})
        below = _drawn(legend, palette, width / DPI, DPI)
    page = Image.new("RGB", (width, size[1] + below.height), "white")
    page.paste(_under(pixels, labels, palette, size), ((width - size[0]) // 2, 0))
    page.paste(below, (0, size[1]))
    _write(path, page, compress_level=1)  # photographs cannot be pressed much, and the usual level takes long to see it


def _drawn(legend: Legend, palette: Palette, width: float, dpi: int) -> Image.Image:
    """A legend, so many inches wide."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    height = legend.height(width) + 0.15
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    legend.draw(axes, palette, 0.1, width)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[:, :, :3])


def _under(pixels: npt.NDArray[np.uint8], labels: Labels, palette: Palette, size: tuple[int, int]) -> Image.Image:
    """An image under the colours of its labels, at a size (width, height)."""
    image = Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS)
    shown = Image.fromarray(labels).resize(size, Image.Resampling.NEAREST)
    opacity = shown.point([0] + [round(255 * _OPACITY)] * 255)
    return Image.composite(Image.fromarray(palette[np.asarray(shown)]), image, opacity)


def _write(path: Path, image: Image.Image, **settings: int) -> None:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **settings)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic_bytes(path, buffer.getvalue())
