"""The boxes that a resized crop draws, and what is made of them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms import transforms as torchvisions
from toy import benchmark

from benchmarks.augmentation import TRIES, Augmentation, ResizedCrop

SIZES = [(375, 500), (500, 333), (64, 64), (200, 500), (90, 30), (4, 3)]
"""Of 4 x 3, landscape, portrait, square, too wide, too narrow, tiny: height and width."""


def noise(height: int, width: int) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng([height, width])
    image = torch.from_numpy(rng.integers(0, 256, (3, height, width), np.uint8))
    return image, torch.from_numpy(rng.choice(np.array([0, 3, 9, 20, 255], np.uint8), (height, width)))


# ------------------------------------------------------------------------------------------------------------- boxes


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_of_10_000_boxes_none_leaves_the_image_and_all_have_an_aspect_within_the_bounds(
    height: int, width: int
) -> None:
    rng, crop = np.random.default_rng(0), ResizedCrop()
    top, left, rows, columns = np.array([crop.box(height, width, rng) for _ in range(10_000)]).T
    assert (rows * columns <= height * width).all() and rows.min() >= 1 and columns.min() >= 1
    assert top.min() >= 0 and left.min() >= 0 and (top + rows).max() <= height and (left + columns).max() <= width
    # whole pixels: each side is half a pixel off at most
    assert ((columns + 0.5) / (rows - 0.5) >= 3 / 4).all() and ((columns - 0.5) / (rows + 0.5) <= 4 / 3).all()


def fitting(height: int, width: int, rng: np.random.Generator) -> float:
    """How probably a box fits, counted on a million of them by their height and width."""
    areas = height * width * rng.uniform(0.5, 2.0, 1_000_000)
    aspects = (4 / 3) ** rng.uniform(-1, 1, 1_000_000)
    return float(((areas * aspects <= width**2) & (areas / aspects <= height**2)).mean())


@pytest.mark.parametrize(("height", "width"), SIZES[:4])
def test_the_central_box_is_taken_as_often_as_ten_boxes_do_not_fit(
    height: int, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng, crop = np.random.default_rng(1), ResizedCrop()
    expected = (1 - fitting(height, width, rng)) ** 10
    taken: list[bool] = []
    monkeypatch.setattr(ResizedCrop, "central_box", lambda *_: taken.append(True) or (0, 0, 1, 1))
    for _ in range(10_000):
        crop.box(height, width, rng)
    # four deviations, and a percent for whole pixels
    assert abs(len(taken) / 10_000 - expected) < 4 * math.sqrt(expected * (1 - expected) / 10_000) + 0.01 * expected


def test_a_square_is_not_fitted_by_ten_boxes_as_often_as_the_integral_says() -> None:
    """P(a max(r, 1 / r) <= 1), a even in [0.5, 2], log r even in [-L, L]: ((1 - exp(-L)) / L - 1/2) / 1.5."""
    bound = math.log(4 / 3)
    assert fitting(64, 64, np.random.default_rng(2)) == pytest.approx(
        ((1 - math.exp(-bound)) / bound - 0.5) / 1.5, abs=0.002
    )


class Given:
    """`torch` for torchvision's rule: the draws are given, and numbers are doubles."""

    log, exp, tensor = np.log, np.exp, np.array

    def __init__(self, tries: np.ndarray) -> None:
        self.tries, self.drawn = tries, 0

    def empty(self, count: int) -> Given:
        return self

    def uniform_(self, low: float, high: float) -> np.float64:
        self.drawn += 1
        number, which = divmod(self.drawn - 1, 2)
        return np.float64(low + self.tries[number, which] * (high - low))

    def randint(self, low: int, high: int, size: tuple[int]) -> np.int64:
        self.drawn += 1
        number = (self.drawn - 1) // 2 - 1 if self.drawn % 2 else (self.drawn - 2) // 2 - 1
        return np.int64(low + self.tries[number, 3 - self.drawn % 2] * (high - low))


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_by_the_same_draws_a_box_is_torchvisions(height: int, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    crop, image = ResizedCrop(), torch.empty(3, height, width)
    for seed in range(300):
        monkeypatch.setattr(torchvisions, "torch", Given(np.random.default_rng(seed).random((TRIES, 4))))
        theirs = RandomResizedCrop.get_params(image, list(crop.area), list(crop.aspect))
        assert crop.box(height, width, np.random.default_rng(seed)) == tuple(map(int, theirs))


@pytest.mark.parametrize(
    ("height", "width", "box"),
    [
        (100, 120, (0, 0, 100, 120)),  # the whole image
        (100, 400, (0, 133, 100, 133)),  # 133.3 wide
        (400, 100, (133, 0, 133, 100)),
        (3, 4, (0, 0, 3, 4)),
        (1, 9, (0, 4, 1, 1)),
    ],
)
def test_the_central_box_is_the_largest_with_an_aspect_within_the_bounds(
    height: int, width: int, box: tuple[int, int, int, int]
) -> None:
    assert ResizedCrop(area=(1.1, 2.0)).box(height, width, np.random.default_rng(0)) == box


def test_a_central_box_has_a_pixel_at_least() -> None:
    assert ResizedCrop(aspect=(4.0, 5.0)).central_box(9, 1) == (4, 0, 1, 1)
    assert ResizedCrop(aspect=(0.1, 0.2)).central_box(1, 9) == (0, 4, 1, 1)


def test_a_box_lies_anywhere() -> None:
    rng, crop = np.random.default_rng(0), ResizedCrop(area=(8 * 8 / 120, 8 * 8 / 120), aspect=(1.0, 1.0))
    assert {crop.box(10, 12, rng) for _ in range(400)} == {(y, x, 8, 8) for y in range(3) for x in range(5)}


# ------------------------------------------------------------------------------------------------- image and labels


@pytest.mark.parametrize(("crop", "times"), [(4, 1), (8, 2), (12, 3)])
def test_the_box_is_resized_to_the_crop(crop: int, times: int) -> None:
    image, labels = noise(8, 8)
    quarter = ResizedCrop((0.25, 0.25), (1.0, 1.0), crop, flip=False)
    top, left, height, width = quarter.box(8, 8, np.random.default_rng(3))
    assert (height, width) == (4, 4) and (top, left) != (0, 0)
    seen, mapped = quarter(image, labels, np.random.default_rng(3))
    repeated = labels[top : top + 4, left : left + 4].repeat_interleave(times, 0).repeat_interleave(times, 1)
    assert torch.equal(mapped, repeated) and seen.shape == (3, crop, crop)
    if times == 1:
        assert torch.equal(seen, image[:, top : top + 4, left : left + 4])


def test_without_a_crop_the_image_keeps_its_size() -> None:
    image, labels = ResizedCrop()(*noise(30, 41), np.random.default_rng(0))
    assert image.shape == (3, 30, 41) and labels.shape == (30, 41)


def test_half_of_the_images_are_mirrored_and_else_as_without_the_flip() -> None:
    mirrored = 0
    for seed in range(200):
        plain, labels = ResizedCrop(crop=9, flip=False)(*noise(12, 11), np.random.default_rng(seed))
        image, mapped = ResizedCrop(crop=9)(*noise(12, 11), np.random.default_rng(seed))
        if not torch.equal(image, plain):
            image, mapped = image.flip(-1), mapped.flip(-1)
            mirrored += 1
        assert torch.equal(image, plain) and torch.equal(mapped, labels)
    assert abs(mirrored - 100) < 4 * math.sqrt(50)


@pytest.mark.parametrize(
    ("augmentation", "added"),
    [
        (ResizedCrop(crop=20), set()),
        (Augmentation((0.5, 2.0), 20), {255}),
        (Augmentation((0.5, 2.0), 20, fill=0, around=True), {0}),
    ],
)
def test_labels_are_those_from_before_and_what_is_padded(augmentation: Any, added: set[int]) -> None:
    image, labels = noise(24, 17)
    for own in ({3, 9, 20}, {3}):
        kept = torch.where(torch.isin(labels, torch.tensor(sorted(own))), labels, 3)
        seen = {
            value
            for seed in range(60)
            for value in augmentation(image, kept, np.random.default_rng(seed))[1].unique().tolist()
        }
        assert seen == own | added


def test_batches_depend_on_the_seed_and_the_place_alone() -> None:
    data, crop = benchmark().train_stream[1].data, ResizedCrop(crop=12)
    one, again, two, other = (
        list(data.batches(4, [3, 1, 3, 0, 2], crop, seed, workers))
        for seed, workers in (((7, 2), 0), ((7, 2), 0), ((7, 2), 2), ((7, 3), 0))
    )
    for batches, same in ((again, True), (two, True), (other, False)):
        assert torch.equal(batches[0][0], one[0][0]) == torch.equal(batches[0][1], one[0][1]) == same
    assert one[0][0].shape == (4, 3, 12, 12)
    assert not torch.equal(one[0][0][0], one[0][0][2])  # the same image at another place
