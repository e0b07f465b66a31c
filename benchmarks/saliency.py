"""Which pixels of a training image are salient: SSUL calls those of the background, of no class of the step, unknown.

By saliency maps in files, `saliency_map/ID.png`, or by a stand-in that is computed, the spectral residual.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from benchmarks.cache import cache_folder, keep, kept_text, sealed, unsealed
from benchmarks.decoding import MAX_MEGAPIXELS
from benchmarks.errors import DataError
from benchmarks.files import content_digest, read_mask, stamp_of
from benchmarks.imageset import ImageSet
from benchmarks.labels import UNKNOWN, SaliencySource
from benchmarks.packing import Progress, Reader
from benchmarks.resampling import labels_by_pillow
from benchmarks.sets.filed import FiledImageSet

FOLDER = "saliency_map"
CELLS = 64
"""The spectral residual is that of an image of so many pixels a side."""
ABOVE_MEAN = 3.0
"""A pixel is salient whose value is above so many times the image's mean (Hou & Zhang, Sec. 3)."""


class Saliency(Protocol):
    """Tells which pixels of a training image are salient."""

    def __call__(self, index: int, size: Sequence[int]) -> np.ndarray:
        """Return bool (H, W) of the image at `index` of the list, which is read at a size (H, W)."""
        ...


def saliency_of(
    source: SaliencySource, imageset: ImageSet, pixels: Reader, kind: str, progress: Progress | None = None
) -> Saliency | None:
    """Return what tells a set's salient pixels where its images are read by `pixels`, whose pixels are of a `kind`.

    It is None where all of the background is unknown. Raises `DataError`.
    """
    if source == "maps":
        return SaliencyMaps(imageset)
    if source == "spectral":
        return SpectralResidual(_spectral_maps(imageset, pixels, kind, progress))
    return None


def require_saliency(source: SaliencySource, imageset: ImageSet) -> None:
    """Raise `DataError` where a set's saliency maps are not all there, or a class has the unknown one's label."""
    if imageset.class_count >= UNKNOWN:
        raise DataError(f"{imageset.name} has {imageset.class_count} classes; with an unknown one {UNKNOWN - 1} can be")
    if source == "maps":
        map_paths(imageset)


# ---------------------------------------------------------------------------------------------------------- files


def map_paths(imageset: ImageSet) -> list[Path]:
    """Return the saliency map of every training image, in the list's order; raise `DataError` where one is missing."""
    ids, folder = imageset.ids("train"), map_folder(imageset)
    if folder is None:
        where = f"no folder {imageset.saliency_folders[0]}" if imageset.saliency_folders else "its images are generated"
        raise DataError(f"{imageset.name} has no saliency maps, {where}; {_WAYS_OUT}")
    if lacking := lacking_maps(ids, folder):
        count = f"{len(lacking):,} of {len(ids):,} training images have no saliency map"
        raise DataError(f"{imageset.name}: {count}, {folder / lacking[0]}.png for one; {_WAYS_OUT}")
    return [folder / f"{image_id}.png" for image_id in ids]


_WAYS_OUT = "saliency=spectral computes a stand-in, saliency=none takes all of the background as unknown"


def map_folder(imageset: ImageSet) -> Path | None:
    """Return the folder of a set's saliency maps, if there is one."""
    return next((folder for folder in imageset.saliency_folders if folder.is_dir()), None)


def lacking_maps(ids: Iterable[str], folder: Path) -> list[str]:
    """Return the ids of the images that have no map in a folder."""
    there = {file.stem for file in folder.glob("*.png")}
    return [image_id for image_id in ids if image_id not in there]


def maps_digest(imageset: ImageSet) -> str:
    """Return the SHA-256 of all training images' saliency maps, each of them having been decoded once.

    Raises `DataError` where one is missing, damaged or of another size than its label map.
    """
    paths = map_paths(imageset)
    key = stamp_of(paths, lambda path: f"{imageset.name}: no saliency map at {path}")

    def digest() -> str:
        for fault in unusable_maps(imageset, imageset.ids("train")):
            raise DataError(fault)
        return content_digest(paths)

    return kept_text("saliency", f"{imageset.name}-{key[:20]}", digest)


def unusable_maps(imageset: ImageSet, ids: Iterable[str]) -> Iterator[str]:
    """Yield what is wrong with images' saliency maps: which are damaged or of another size than the label map."""
    folder = map_folder(imageset)
    assert folder is not None and isinstance(imageset, FiledImageSet)
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        faults = pool.map(lambda image_id: _fault(imageset, image_id, folder / f"{image_id}.png"), ids)
        yield from (fault for fault in faults if fault)


def _fault(imageset: FiledImageSet, image_id: str, path: Path) -> str | None:
    try:
        values = read_mask(path, imageset.max_megapixels)
        labels = read_mask(imageset.mask_path("train", image_id), imageset.max_megapixels)
    except DataError as error:
        return str(error)
    if values.shape == labels.shape:
        return None
    sizes = [f"{width} x {height}" for height, width in (values.shape, labels.shape)]
    return f"{path} is {sizes[0]}, its label map {sizes[1]}; both must have one size"


@dataclass(frozen=True)
class SaliencyMaps:
    """Grey PNGs of the images' own sizes; a pixel is salient if its value is above 0 (SSUL)."""

    imageset: ImageSet

    @cached_property
    def _paths(self) -> list[Path]:
        return map_paths(self.imageset)

    def __call__(self, index: int, size: Sequence[int]) -> np.ndarray:
        """Return bool (H, W): a map is squeezed as label maps are."""
        values = read_mask(self._paths[index], getattr(self.imageset, "max_megapixels", MAX_MEGAPIXELS))
        return labels_by_pillow(values, size) > 0


# ------------------------------------------------------------------------------------------------------- computed


@dataclass(frozen=True)
class SpectralResidual:
    """Maps of 64 x 64 cells, bits packed, uint8 (N, 512)."""

    packed: np.ndarray

    def __call__(self, index: int, size: Sequence[int]) -> np.ndarray:
        """Return bool (H, W): that of the cell in which a pixel's centre lies."""
        cells = np.unpackbits(self.packed[index]).reshape(CELLS, CELLS)
        return labels_by_pillow(cells, size) > 0


def _spectral_maps(imageset: ImageSet, pixels: Reader, kind: str, progress: Progress | None) -> np.ndarray:
    """Return the training images' maps, packed, from the cache or to it."""
    path = cache_folder("saliency") / f"{imageset.name}-{imageset.stamp()[:20]}-{kind}.npy"
    try:
        return np.asarray(np.load(io.BytesIO(unsealed(path.read_bytes())), allow_pickle=False))
    except (OSError, ValueError):
        cache_folder("saliency", write=True)
    count, maps = len(imageset.ids("train")), []
    for index in range(count):
        maps.append(np.packbits(spectral_residual(pixels.read(index)[0])))
        if progress:
            progress(f"{imageset.name}: saliency of the train images", index + 1, count)
    buffer = io.BytesIO()
    np.save(buffer, np.stack(maps))
    keep(path, sealed(buffer.getvalue()))
    return np.stack(maps)


def spectral_residual(image: np.ndarray) -> np.ndarray:
    """Return bool (64, 64), the salient cells of an image (uint8 3 x H x W).

    Hou & Zhang, Saliency Detection: A Spectral Residual Approach, CVPR 2007, Eq. 1 to 4: what the logarithm of the
    image's amplitude spectrum has over its mean of 3 x 3 neighbours, with the image's own phase, gives the map, which
    is squared and smoothed; an image of one colour has none. The image is squeezed to 64 x 64 pixels, where the paper
    keeps its aspect.
    """
    from scipy.ndimage import gaussian_filter, uniform_filter

    grey = Image.fromarray(image.mean(0, dtype=np.float32)).resize((CELLS, CELLS), Image.Resampling.BILINEAR)
    pixels = np.asarray(grey, dtype=np.float64)
    if pixels.min() == pixels.max():
        return np.zeros_like(pixels, dtype=bool)
    spectrum = np.fft.fft2(pixels)
    amplitude = np.log(np.abs(spectrum) + np.finfo(np.float64).tiny)
    residual = amplitude - uniform_filter(amplitude, 3, mode="nearest")
    saliency = gaussian_filter(np.abs(np.fft.ifft2(np.exp(residual + 1j * np.angle(spectrum)))) ** 2, 2.5)
    return np.asarray(saliency > ABOVE_MEAN * saliency.mean())
