"""What settings make of networks and images."""

from __future__ import annotations

import torch

from bench.settings.schema import Config
from benchmarks.augmentation import BLACK, AnyAugmentation, Augmentation, ResizedCrop
from benchmarks.labels import BACKGROUND, VOID
from strategies.learning.protocol import BaseRecipe
from strategies.networks.build import build_network
from strategies.networks.network import SegmentationNetwork
from strategies.networks.registry import network_class
from strategies.networks.settings import Normalisation


def normalisation(config: Config) -> Normalisation:
    """Return what the network takes images by."""
    return network_class(config.network.name).normalisation(config.network)


def augmentation(config: Config) -> AnyAugmentation:
    """Return what is done to every training image."""
    data = config.data
    if data.augmentation == "resized_crop":
        return ResizedCrop(data.area, data.aspect, data.crop, data.flip)
    outside = BLACK if data.fill_colour == "black" else normalisation(config).mean
    fill = BACKGROUND if data.fill == "background" else VOID
    return Augmentation(data.scale, data.crop, data.flip, outside, fill, around=data.padding == "around")


def new_network(config: Config, recipe: BaseRecipe, classes: int, pretrained: bool) -> SegmentationNetwork:
    """Return an untrained network with the recipe's head, in the memory layout that convolutions like best.

    `pretrained` lets it start from the settings' weights.
    """
    network = build_network(config.network, classes, recipe.head, recipe.tau, pretrained)
    network.precision = config.runtime.precision
    if config.runtime.compile:
        network.compile_training()
    return network.to(memory_format=torch.channels_last)
