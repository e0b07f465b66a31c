"""What the draws of an augmentation decide, value by value: scale, place of the crop, flip, padding."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.augmentation import BLACK, Augmentation, _window, normalised
from strategies.networks.settings import OF_IMAGENET

VOID = 255


class Draws:
    """A generator that gives these numbers in [0, 1): scale, down, right, mirrored."""

    def __init__(self, scale: float = 0.0, down: float = 0.0, right: float = 0.0, mirrored: float = 0.9) -> None:
        self.numbers = [scale, down, right, mirrored]

    def random(self, count: int) -> list[float]:
        assert count == len(self.numbers)
        return self.numbers


def places(height: int, width: int) -> tuple[Tensor, Tensor]:
    """An image, and labels, whose values tell the place of each pixel: 16 y + x."""
    labels = (16 * torch.arange(height)[:, None] + torch.arange(width)).to(torch.uint8)
    return labels.expand(3, -1, -1).clone(), labels


def augmented(image: Tensor, labels: Tensor, augmentation: Augmentation, **draws: float) -> tuple[Tensor, Tensor]:
    rng: Any = Draws(**draws)
    return augmentation(image, labels, rng)


@pytest.mark.parametrize(
    ("drawn", "size"),
    [(0.0, (5, 8)), (0.25, (9, 14)), (0.5, (12, 20)), (1.0, (20, 32))],  # of 10 x 16: by 0.5, 0.875, 1.25, 2
)
def test_the_scale_is_drawn_evenly_between_its_bounds(drawn: float, size: tuple[int, int]) -> None:
    image, labels = augmented(*places(10, 16), Augmentation((0.5, 2.0), flip=False), scale=drawn)
    assert image.shape[1:] == labels.shape == size


def test_by_default_images_are_flipped_and_neither_scaled_nor_cropped() -> None:
    assert Augmentation() == Augmentation(scale=(1.0, 1.0), crop=None, flip=True)


def test_an_image_of_a_pixel_is_never_scaled_away() -> None:
    image, labels = augmented(*places(1, 9), Augmentation((0.1, 0.1), flip=False))
    assert image.shape == (3, 1, 1) and labels.shape == (1, 1)
    assert labels.item() == 4  # the middle one


def test_half_of_the_images_are_mirrored_left_to_right_if_any() -> None:
    image, labels = places(3, 4)
    for flip, mirrored, expected in ((True, 0.49, True), (True, 0.5, False), (False, 0.0, False)):
        got, mapped = augmented(image, labels, Augmentation(flip=flip), mirrored=mirrored)
        assert mapped[1].tolist() == ([19, 18, 17, 16] if expected else [16, 17, 18, 19])
        assert torch.equal(got[2], mapped)


def test_the_second_draw_places_the_crop_downwards_and_the_third_to_the_right() -> None:
    for down, right, corner in ((0.0, 0.0, 0), (0.99, 0.0, 16 * 2), (0.0, 0.99, 4), (0.5, 0.5, 16 * 1 + 2)):
        image, labels = augmented(*places(10, 12), Augmentation(crop=8, flip=False), down=down, right=right)
        expected = corner + 16 * torch.arange(8)[:, None] + torch.arange(8)
        assert torch.equal(labels, expected.to(torch.uint8))
        assert torch.equal(image[0], labels)


@pytest.mark.parametrize(
    ("length", "factor", "side", "at", "window"),
    [
        (100, 2.0, 64, 0.5, (34, 32, 64)),  # 64 of 200 scaled pixels are 32 of 100; 69 places to begin at
        (100, 2.0, 64, 0.999, (68, 32, 64)),  # the last of them
        (100, 0.5, 64, 0.999, (0, 100, 50)),  # all of it, smaller than the crop
        (100, 0.64, 64, 0.999, (0, 100, 64)),
        (90, 1.5, 64, 0.0, (0, 43, 64)),  # 42.67 pixels
        (3, 8.0, 1, 0.9, (2, 1, 1)),  # an eighth of a pixel is one
    ],
)
def test_a_crop_takes_from_the_image_what_it_shows_scaled(
    length: int, factor: float, side: int, at: float, window: tuple[int, int, int]
) -> None:
    assert _window(length, factor, side, at, border=0) == (*window, 0)


@pytest.mark.parametrize(
    ("length", "factor", "side", "border", "at", "window"),
    [
        (100, 0.5, 32, 4, 0.0, (0, 56, 28, 4)),  # of 4 + 50 + 4 pixels the first 32: 4 of the border, 28 of the image
        (100, 0.5, 32, 4, 0.5, (18, 64, 32, 0)),  # from 13 of 27 places on, the image's scaled pixel 9
        (100, 0.5, 32, 4, 0.999, (44, 56, 28, 0)),  # the last 28
        (3, 2.0, 4, 1, 0.999, (1, 2, 3, 0)),  # the last 3 of 6 are one and a half of 3: two, the last ones
    ],
)
def test_a_crop_that_may_lie_in_a_border_takes_what_it_shows_of_the_image(
    length: int, factor: float, side: int, border: int, at: float, window: tuple[int, int, int, int]
) -> None:
    assert _window(length, factor, side, at, border) == window


def test_a_crop_of_a_scaled_image_shows_the_part_at_its_place() -> None:
    image, labels = augmented(*places(8, 12), Augmentation((2.0, 2.0), crop=8, flip=False), down=0.99, right=0.5)
    expected = torch.tensor([[16 * (4 + y // 2) + 4 + x // 2 for x in range(8)] for y in range(8)])
    assert torch.equal(labels, expected.to(torch.uint8))
    assert (image[0].int() - labels.int()).abs().max() <= 9  # about the same place: half a row and half a column


@pytest.mark.parametrize(("height", "width"), [(5, 8), (8, 5), (5, 6)])
def test_what_a_crop_has_beyond_the_image_is_void_and_of_the_mean_colour_below_and_to_the_right(
    height: int, width: int
) -> None:
    before, known = places(height, width)
    image, labels = augmented(before, known, Augmentation(crop=8, flip=False, outside=OF_IMAGENET.mean))
    assert torch.equal(labels[:height, :width], known) and torch.equal(image[:, :height, :width], before)
    outside = torch.ones(8, 8, dtype=torch.bool)
    outside[:height, :width] = False
    assert (labels[outside] == VOID).all()
    assert image[:, outside].unique(dim=1).flatten().tolist() == [124, 116, 104]  # 255 times ImageNet's mean


FOUR = torch.tensor([[1, 2], [3, 4]], dtype=torch.uint8)
WIDE = torch.tensor([[1, 2, 3, 4]], dtype=torch.uint8)


@pytest.mark.parametrize(
    ("labels", "crop", "draws", "expected"),
    [
        (FOUR, 3, {}, [[0, 0, 0], [0, 1, 2], [0, 3, 4]]),  # one is lacking: one at each border, four places
        (FOUR, 3, {"right": 0.9}, [[0, 0, 0], [1, 2, 0], [3, 4, 0]]),
        (FOUR, 3, {"down": 0.9}, [[0, 1, 2], [0, 3, 4], [0, 0, 0]]),
        (
            FOUR,
            4,
            {"down": 0.9, "right": 0.9},
            [[0, 0, 0, 0], [0, 1, 2, 0], [0, 3, 4, 0], [0, 0, 0, 0]],
        ),  # two
        (WIDE, 3, {}, [[0, 0, 0], [0, 1, 2], [0, 0, 0]]),  # two in the height: the width is padded too, four places
        (WIDE, 3, {"right": 0.5}, [[0, 0, 0], [2, 3, 4], [0, 0, 0]]),
        (WIDE, 3, {"right": 0.9}, [[0, 0, 0], [3, 4, 0], [0, 0, 0]]),
        (WIDE.T, 3, {"down": 0.9}, [[0, 3, 0], [0, 4, 0], [0, 0, 0]]),
        (FOUR, 2, {"down": 0.9, "right": 0.9}, [[1, 2], [3, 4]]),  # none
    ],
)
def test_around_an_image_half_of_what_it_lacks_is_padded_at_each_border(
    labels: Tensor, crop: int, draws: dict[str, float], expected: list[list[int]]
) -> None:
    for fill, colour in ((0, BLACK), (VOID, (1.0, 1.0, 1.0))):
        padding = Augmentation(crop=crop, flip=False, outside=colour, fill=fill, around=True)
        image, mapped = augmented(labels.expand(3, -1, -1), labels, padding, **draws)
        wanted = torch.tensor(expected, dtype=torch.uint8)
        wanted[wanted == 0] = fill
        assert torch.equal(mapped, wanted) and torch.equal(image, wanted.expand(3, -1, -1))


def ssuls_crop(labels: np.ndarray, side: int, at: tuple[float, float]) -> np.ndarray:
    """All borders padded by half of what the width lacks, then by half of what the height lacks then; cropped."""
    for axis in (1, 0):
        if labels.shape[axis] < side:
            labels = np.pad(labels, (side - labels.shape[axis] + 1) // 2)
    top, left = (int(place * (length - side + 1)) for place, length in zip(at, labels.shape, strict=True))
    return labels[top : top + side, left : left + side]


def test_images_that_lack_in_any_way_are_padded_around_as_ssul_does() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        height, width, side = rng.integers(1, 15, 3).tolist()
        labels, (down, right) = rng.integers(1, 200, (height, width), np.uint8), rng.random(2).tolist()
        seen = torch.from_numpy(labels)
        padding = Augmentation(crop=side, flip=False, fill=0, around=True)
        image, mapped = augmented(seen.expand(3, -1, -1), seen, padding, down=down, right=right)
        if min(height, width) >= side:
            down, right = (int(at * (n - side + 1)) / (n - side + 1) for at, n in ((down, height), (right, width)))
        assert np.array_equal(mapped.numpy(), ssuls_crop(labels, side, (down, right)))
        assert torch.equal(image, mapped.expand(3, -1, -1))


def test_around_a_scaled_image_labels_and_colours_are_padded_at_the_same_pixels() -> None:
    """The image is 100 where there is one, so that neither filter moves anything but the padding."""
    rng, padded = np.random.default_rng(0), 0
    for _ in range(300):
        height, width, side = rng.integers(1, 40, 3).tolist()
        labels = torch.full((height, width), 100, dtype=torch.uint8)
        augmentation = Augmentation((0.3, 3.0), side, fill=0, around=True)
        image, mapped = augmentation(labels.expand(3, -1, -1), labels, rng)
        assert mapped.shape == (side, side) and torch.equal(image, mapped.expand(3, -1, -1))
        assert mapped.max() == 100  # something of the image is always seen
        padded += int(mapped.min() == 0)
    assert 100 < padded < 300


def test_normalised_images_have_the_networks_mean_and_deviation_taken_out() -> None:
    pixels = torch.tensor([[0, 255], [51, 0], [255, 102]], dtype=torch.uint8).view(3, 1, 2)
    expected = [(0 - 0.485) / 0.229, (1 - 0.485) / 0.229, (0.2 - 0.456) / 0.224]
    expected += [(0 - 0.456) / 0.224, (1 - 0.406) / 0.225, (0.4 - 0.406) / 0.225]
    assert normalised(pixels, OF_IMAGENET).dtype == torch.float32
    assert normalised(pixels[None], OF_IMAGENET).flatten().tolist() == pytest.approx(expected, abs=1e-6)


def test_without_a_network_images_are_from_0_to_1() -> None:
    pixels = torch.tensor([0, 51, 255], dtype=torch.uint8).view(3, 1, 1)
    assert normalised(pixels, None).flatten().tolist() == pytest.approx([0.0, 0.2, 1.0], abs=1e-7)
