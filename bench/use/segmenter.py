"""`bench.load`: a network that segments images of any size, as its run was evaluated."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from bench.plan.devices import resolved_device
from bench.settings.schema import RuntimeConfig
from bench.train.computing import computing
from bench.use.loading import KeptNetwork, kept_file, require_of_run
from bench.use.pixels import AnImage, Labels, Pixels, pixels_of
from benchmarks.augmentation import View, normalised
from benchmarks.paths import user_path
from benchmarks.resampling import image_by_pillow, labels_by_pillow
from benchmarks.sets.photographs import orientation_of, read_photograph, turned, turned_back
from reports.palettes import voc_palette

if TYPE_CHECKING:
    from bench.train.network_file import Kept

_LARGE = 2
"""Times the side of a training crop: where images are evaluated as they are, those of a longer shorter side are scaled
to the crop's side, so that things are about as large as in training and memory suffices."""


def load(run: str | Path, step: int | None = None, device: str = "auto") -> Segmenter:
    """Return the network that a run has kept, by default after its last step; `run` may also be the network's file.

    Raises `bench.settings.errors.RequestError`, one line, where there is none, it is damaged, or it needs what is not
    installed.
    """
    path, on = user_path(run), torch.device(resolved_device(device))
    if path.is_file():
        return Segmenter(KeptNetwork(path, on))
    file = kept_file(path, step)
    network = KeptNetwork(file, on)
    require_of_run(network.kept, path, file)
    return Segmenter(network)


class Segmenter:
    """Segments images of any size with a kept network.

    An image is squeezed or scaled as those of the run's evaluation were; each pixel gets the label of the pixel that it
    lies in then. Where evaluation took a central square the whole image is taken. Labels are the data set's own class
    ids, 0 the background.
    """

    def __init__(self, network: KeptNetwork) -> None:
        self.network = network
        self.runtime = RuntimeConfig(self.kept.threads, self.kept.precision, self.kept.tf32)

    @property
    def kept(self) -> Kept:
        """What is known of the network."""
        return self.network.kept

    @property
    def class_names(self) -> dict[int, str]:
        """Names by the class ids in label maps."""
        return dict(zip(self.kept.classes, self.kept.class_names, strict=True))

    @property
    def palette(self) -> npt.NDArray[np.uint8]:
        """Colours by class id, (256, 3); what is no class has VOC's."""
        colours = voc_palette()
        colours[self.kept.classes] = self.kept.palette
        return colours

    def predict(self, image: AnImage, short_side: int | None = None) -> Labels:
        """Return the label map uint8 (H, W) of one image.

        `image` is a PIL image, an array (H, W, 3) or (H, W), a tensor (3, H, W), or a file's path. Arrays and tensors
        are uint8, or float from 0 to 1. A PIL image is turned as its EXIF orientation says before it is segmented, and
        its label map back: it lies upon the pixels as they are stored. That of a file is upright. `short_side` scales
        the shorter side to so many pixels in place of the run's way. Raises `RequestError`, and `DataError` for a file.
        """
        if isinstance(image, (str, Path)):
            photograph = read_photograph(user_path(image))
            return self.labels_of([turned(photograph.pixels, photograph.orientation)], short_side)[0]
        if isinstance(image, Image.Image):
            orientation = orientation_of(image)
            upright = turned(pixels_of(image), orientation)
            labels = self.labels_of([upright], short_side)[0]
            return np.ascontiguousarray(turned_back(labels, orientation))
        return self.labels_of([pixels_of(image)], short_side)[0]

    def labels_of(self, images: Sequence[Pixels], short_side: int | None = None) -> list[Labels]:
        """Return the label maps uint8 (H, W) of images uint8 (H, W, 3) that have one `input_size`."""
        size = self.input_size(images[0].shape[:2], short_side)
        resized = [image_by_pillow(np.ascontiguousarray(pixels.transpose(2, 0, 1)), size) for pixels in images]
        with computing(self.runtime), torch.no_grad():
            batch = normalised(torch.from_numpy(np.stack(resized)), self.kept.normalisation)
            outputs = self.network.classes(batch.to(self.network.device)).to("cpu", torch.uint8).numpy()
        maps = np.array(self.kept.classes, dtype=np.uint8)[outputs]
        return [labels_by_pillow(labels, pixels.shape[:2]) for labels, pixels in zip(maps, images, strict=True)]

    def input_size(self, size: Sequence[int], short_side: int | None = None) -> list[int]:
        """Return the height and width at which an image of a size is given to the network."""
        if short_side is not None:
            return View(short_side).scaled(size)
        if self.kept.size is not None:
            return [self.kept.size] * 2
        if self.kept.short_side is not None:
            return View(self.kept.short_side).scaled(size)
        crop = self.kept.crop
        return View(crop).scaled(size) if crop and min(size) > _LARGE * crop else list(size)
