"""A complete, small VOCdevkit with procedural images, for tests."""

from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = 20
VOID = 255


def make_voc_root(path: Path, train: int = 120, test: int = 40, size: tuple[int, int] = (48, 40)) -> Path:
    """Write `path`/VOCdevkit/VOC2012 with `train` and `test` images of about `size` (width, height); return `path`.

    Image i shows class 1 + i % 20 and, in two images of three, a smaller class id as well. With the default
    numbers every class leads six training and two test images, one third of which show it alone, so every step
    of every BASE-INC scenario has images of both kinds. `trainaug.txt` lists all training images, `train.txt`
    every second one, as VOC's own list is a part of the augmented one.
    """
    devkit = path / "VOCdevkit" / "VOC2012"
    photographs, masks = devkit / "JPEGImages", devkit / "SegmentationClassAug"
    lists = devkit / "ImageSets" / "Segmentation"
    for folder in (photographs, masks, lists):
        folder.mkdir(parents=True)
    ids = [f"2007_{i:06d}" for i in range(train + test)]
    for i, image_id in enumerate(ids):
        image, mask = _picture(i, size)
        Image.fromarray(image).save(photographs / f"{image_id}.jpg", quality=90)
        save_mask(mask, masks / f"{image_id}.png")
    for name, listed in {"train": ids[:train:2], "trainaug": ids[:train], "val": ids[train:]}.items():
        (lists / f"{name}.txt").write_text("".join(f"{i}\n" for i in listed))
    return path


def save_mask(mask: np.ndarray, path: Path) -> None:
    """Write a label map (uint8 H x W) as VOC does: a PNG whose palette is the labels' colours."""
    image = Image.fromarray(mask)
    image.putpalette(_palette())
    image.save(path)


def _picture(i: int, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.RandomState(i)
    width, height = size[0] + i % 5, size[1] + i % 3
    image = rng.randint(90, 130, (height, width, 3))
    mask = np.zeros((height, width), np.uint8)
    leading = 1 + i % CLASSES
    shown = [leading]
    if (i // CLASSES) % 3 and leading > 1:
        shown.insert(0, int(rng.randint(1, leading)))
    colours = np.array(_palette()).reshape(256, 3)
    for place, c in enumerate(shown):
        top, left = rng.randint(2, height // 3), 2 + place * (width // 2)
        bottom, right = top + height // 2, left + width // 2 - 4
        mask[top - 1 : bottom + 1, left - 1 : right + 1] = VOID
        mask[top:bottom, left:right] = c
        image[top:bottom, left:right] = colours[c] + rng.randint(-20, 21, 3)
    return np.clip(image, 0, 255).astype(np.uint8), mask


def _palette() -> list[int]:
    """The devkit's label colours: three bits of the label spread over the high bits of R, G and B, and so on."""
    colours = np.zeros((256, 3), int)
    labels = np.arange(256)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= ((labels >> channel) & 1) << (7 - bit)
        labels = labels >> 3
    return [int(v) for v in colours.ravel()]
