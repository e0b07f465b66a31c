"""The settings: dataclasses with types, ranges and a sentence each."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass as validated

from strategies.learning.protocol import EpochProtocol, OfflineProtocol, OnlineProtocol, ProtocolName
from strategies.networks.settings import STRICT, Called, NetworkSettings, Precision

Interval = tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]]
"""From one value to another that is not below it."""
VALID_FRACTION = 0.1
"""Of the training images held out where the valid stream is asked for and no fraction is set."""


@validated(frozen=True, config=STRICT)
class BaseProtocol(EpochProtocol):
    """How the base model is trained (METHODS, Protocol)."""

    devices: Annotated[int, Field(ge=1, le=64), Called(("gpus", "num_gpus"))] = field(kw_only=True)
    """GPUs, or processes on the CPU, that share each batch; those of an offline increment too."""


@validated(frozen=True, config=STRICT)
class MemoryConfig:
    """BM, the memory's size in images."""

    size: Annotated[int, Field(ge=0), Called(("buffer", "buffer_size", "memory", "capacity"))]


@validated(frozen=True, config=STRICT)
class DataConfig:
    """What is done to images: squeezed to `size` x `size` (or as they are); in training scaled, cropped, flipped."""

    size: Annotated[int, Field(ge=16, le=4096), Called(("image_size", "resolution"))] | None
    scale: Interval
    crop: Annotated[int, Field(ge=16), Called(("crop_size",))] | None
    flip: bool
    workers: Annotated[int, Field(ge=0), Called(("num_workers",))]
    ram_gb: Annotated[float, Field(ge=0)]
    """Decoded images are kept in memory where both splits fit in so many GiB, else decoded by workers."""
    train_list: str | None
    """A file that names the training images in place of the data root's own list."""
    shared_ids: Literal["refuse", "allow"]
    """Whether images that the training and the test list name both are refused."""
    max_megapixels: Annotated[float, Field(gt=0, le=1_000_000)]
    """Larger images, in millions of pixels, are refused: a damaged file may claim any size."""
    # What follows has the values of runs older than the setting.
    augmentation: Literal["scale_crop", "resized_crop"] = "scale_crop"
    """Images are scaled by a factor from `scale` and cropped, or a box of them is resized to the crop."""
    area: Interval = (0.5, 2.0)
    """Of a resized crop's box, in parts of the image's; above 1 none is found and another one is drawn."""
    aspect: Interval = (3 / 4, 4 / 3)
    """Width by height of a resized crop's box."""
    padding: Literal["below_right", "around"] = "below_right"
    """Where a scaled image is smaller than the crop; around it by half of what its shorter side lacks."""
    fill: Literal["void", "background"] = "void"
    """The label of what is padded."""
    fill_colour: Literal["mean", "black"] = "mean"
    """The colour of what is padded: the mean that the network takes off, or black."""
    void: Literal["ignore", "background", "negative"] = "ignore"
    """In training void pixels are in no loss, or background, or a negative of every class for methods that know it."""
    jpeg_draft: bool = False
    """JPEGs that `size` squeezes are decoded at 1/2, 1/4 or 1/8 where that is not below it (Pillow's draft mode)."""


@validated(frozen=True, config=STRICT)
class EvaluationConfig:
    """What is evaluated, and by which conventions (METHODS, Protocol)."""

    batch_size: Annotated[int, Field(ge=1, le=65536)]
    future_classes: Literal["background", "ignore"]
    """Pixels of classes not yet known count as background, or are void; like `images` chosen anew at printing."""
    images: Literal["known", "all"]
    """Those with a pixel of a class known by the step, or all."""
    background_in_mean: bool
    """Whether tables and figures show the mean with the background; both are stored."""
    short_side: Annotated[int, Field(ge=16, le=4096)] | None
    """Scale the shorter side to so many pixels and take the central square; null: images as they are."""
    pictures: Annotated[int, Field(ge=0, le=10_000)]
    """Images, spread evenly over the last step's, whose predictions are kept after every step."""
    stream: Literal["test", "valid"]
    valid_fraction: Annotated[float, Field(ge=0, lt=1)]
    valid_seed: Annotated[int, Field(ge=0)]


@validated(frozen=True, config=STRICT)
class RuntimeConfig:
    """What determines a run's numbers beside its settings, independent of how many runs go side by side."""

    threads: Annotated[int, Field(ge=1, le=1024), Called(("num_threads",))]
    precision: Annotated[Precision, Called(("amp", "dtype"))]
    """Of the backbone: fp32, or bf16 autocast."""
    tf32: bool
    """Whether GPUs may compute fp32 convolutions and matrix products in TF32: 10 bits of mantissa instead of 23."""
    # What follows has the values of runs older than the setting.
    compile: bool = False
    """Whether torch.compile compiles the backbone for the passes of training; evaluation is computed as without."""
    fused: bool = False
    """Whether optimisers make their step in one kernel."""


Keep = Literal["last", "all", "none"]
"""Which networks of a run are kept: that after the last step, those after all, or none."""


@validated(frozen=True, config=STRICT)
class Config:
    """All settings of a run."""

    network: NetworkSettings
    """Of the network's own kind; see `bench.settings.networks`."""
    base: BaseProtocol
    incremental: OnlineProtocol | OfflineProtocol
    """By `protocol`."""
    memory: MemoryConfig
    data: DataConfig
    evaluation: EvaluationConfig
    runtime: RuntimeConfig
    strategies: dict[str, dict[str, Any]]
    keep: Keep = "last"
    """It changes no number, and specs from before it do not have it."""
    protocol: ProtocolName = "online"
    """How the increments are trained; specs from before it do not have it."""
    study: str | None = None
    """The digest of the study that settings were tuned in (`bench tune`); it changes no number."""
