"""Resized images and label maps: edges stay at the same place in both, evaluation's view is that of published code."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from conftest import VOC_DATA
from PIL import Image

from benchmarks.augmentation import Augmentation, View
from benchmarks.labels import VOID
from benchmarks.packing import DecodingReader
from benchmarks.resampling import resized, resized_by_pillow
from reports.pictures import _reduced

PHOTOGRAPHS = VOC_DATA / "voc-photos" / "VOCdevkit" / "VOC2012"
Pair = tuple[np.ndarray, np.ndarray]

# ------------------------------------------------------------------------------------------------------- a ramp


def ramp(height: int, width: int, start: int) -> Pair:
    """An image (3, H, W) that rises by 4 a pixel over 64 columns, and labels (H, W) that count these columns."""
    columns = np.clip(np.arange(width) - start, 0, 63).astype(np.uint8)
    return np.tile(4 * columns, (3, height, 1)), np.tile(columns, (height, 1))


def distances(image: np.ndarray, labels: np.ndarray) -> list[float]:
    """How far to the right of the image's own crossing each edge of the labels lies, in pixels of the result."""
    row = labels[0][labels[0] != VOID]
    values = image[0, 0, : len(row)].astype(float)
    seen = [k for k in range(8, 57) if row.min() < k <= row.max() and values.min() < 4 * k - 2 < values.max()]
    crossings = np.interp([4 * k - 2 for k in seen], values, np.arange(len(row)) + 0.5)
    return [float((row < k).sum() - crossing) for k, crossing in zip(seen, crossings, strict=True)]


def augmented(crop: int | None) -> Callable[[Pair, np.random.Generator], Pair]:
    def augment(pair: Pair, rng: np.random.Generator) -> Pair:
        image, labels = Augmentation((0.5, 2.0), crop, flip=False)(*map(torch.from_numpy, pair), rng)
        return image.numpy(), labels.numpy()

    return augment


def squeezed(pair: Pair, rng: np.random.Generator) -> Pair:
    class OneImage:
        def read(self, split: str, index: int) -> Pair:
            return pair[0].transpose(1, 2, 0), pair[1]

    imageset: Any = OneImage()
    return DecodingReader(imageset, "train", int(rng.integers(50, 150)), 1).read(0)


def viewed(pair: Pair, rng: np.random.Generator) -> Pair:
    side = int(min(pair[1].shape) * rng.uniform(0.5, 2.0))
    image, labels = View(side)(*map(torch.from_numpy, pair))
    return image.numpy(), labels.numpy()


def pictured(pair: Pair, rng: np.random.Generator) -> Pair:
    """Figures reduce what has more than 300 pixels."""
    more = int(rng.integers(240, 400))
    channel, labels = (np.pad(part, (0, more), "edge") for part in (pair[0][0], pair[1]))
    return _reduced(channel, Image.Resampling.LANCZOS)[None], _reduced(labels, Image.Resampling.NEAREST)


PATHS = {
    "scaled": augmented(None),
    "scaled and cropped": augmented(48),
    "squeezed": squeezed,
    "viewed": viewed,
    "pictured": pictured,
}


@pytest.mark.parametrize("path", PATHS)
def test_edges_are_at_the_same_place_in_image_and_labels(path: str) -> None:
    rng, found = np.random.default_rng(7), list[float]()
    for draw in range(400):
        width = int(rng.integers(70, 100))
        image, labels = ramp(int(rng.integers(60, 100)), width, int(rng.integers(0, width - 63)))
        if draw % 2:
            found += distances(*PATHS[path]((image, labels), rng))
        else:
            image, labels = PATHS[path]((image.transpose(0, 2, 1), labels.T), rng)
            found += distances(image.transpose(0, 2, 1), labels.T)
    assert len(found) > 10_000
    assert max(map(abs, found)) < 0.6  # half a pixel, and what eight bits leave open
    assert abs(np.mean(found)) < 0.02  # by chance: 0.012 with torch 2.6


def test_torch_and_pillow_resize_alike() -> None:
    """Labels differ at most where a new pixel's centre lies on the border between two pixels."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (3, 75, 100), np.uint8)
    labels = rng.integers(0, 256, (75, 100), np.uint8)
    for height, width in [(37, 53), (60, 80), (75, 101), (128, 171), (150, 200), (149, 199)]:
        ours, mapped = resized(torch.from_numpy(image), torch.from_numpy(labels), (height, width))
        theirs, expected = resized_by_pillow(image, labels, (height, width))
        assert np.abs(ours.numpy().astype(int) - theirs).max() <= 2
        on_a_border = [[(2 * i + 1) * own % (2 * n) == 0 for i in range(n)] for own, n in ((75, height), (100, width))]
        sure = ~np.logical_or.outer(*map(np.array, on_a_border))
        assert sure.any() and np.array_equal(mapped.numpy()[sure], expected[sure])


# ----------------------------------------------------------------------------------------- evaluation's view


def mibs_view(photograph: Image.Image, mask: Image.Image, side: int) -> tuple[Image.Image, Image.Image]:
    """Cermelli et al.'s transforms as Pillow does them: Resize(side), CenterCrop(side)."""
    width, height = photograph.size
    if width < height:
        width, height = side, int(side * height / width)
    else:
        width, height = int(side * width / height), side
    left, top = round((width - side) / 2.0), round((height - side) / 2.0)
    square = (left, top, left + side, top + side)
    photograph = photograph.resize((width, height), Image.Resampling.BILINEAR).crop(square)
    return photograph, mask.resize((width, height), Image.Resampling.NEAREST).crop(square)


def assert_mibs_view(photograph: Image.Image, mask: Image.Image, side: int) -> None:
    image = torch.from_numpy(np.array(photograph).transpose(2, 0, 1))
    seen, labels = View(side)(image, torch.from_numpy(np.array(mask)))
    expected, expected_labels = map(np.asarray, mibs_view(photograph, mask, side))
    assert np.array_equal(seen.numpy().transpose(1, 2, 0), expected)
    assert np.array_equal(labels.numpy(), expected_labels)


@pytest.mark.parametrize("side", [512, 513, 24])  # MiB's, SSUL's, a reduction
@pytest.mark.parametrize("size", [(500, 375), (333, 500), (38, 35), (35, 38), (91, 91), (24, 61)])
def test_view_is_mibs_pixel_for_pixel(size: tuple[int, int], side: int) -> None:
    rng = np.random.default_rng(0)
    photograph = Image.fromarray(rng.integers(0, 256, (*size[::-1], 3), np.uint8))
    assert_mibs_view(photograph, Image.fromarray(rng.integers(0, 256, size[::-1], np.uint8)), side)


@pytest.mark.skipif(not PHOTOGRAPHS.is_dir(), reason=f"no photographs at {PHOTOGRAPHS}")
def test_view_of_real_photographs_is_mibs_pixel_for_pixel() -> None:
    masks = sorted((PHOTOGRAPHS / "SegmentationClassAug").glob("*.png"))[::67][:60]
    assert len(masks) == 60
    for path in masks:
        photograph = Image.open(PHOTOGRAPHS / "JPEGImages" / f"{path.stem}.jpg").convert("RGB")
        assert_mibs_view(photograph, Image.open(path), 512)
