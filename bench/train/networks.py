"""What settings make of networks and images."""

from __future__ import annotations

import torch

from bench.settings.schema import Config
from benchmarks.augmentation import Augmentation
from strategies.learning.protocol import BaseRecipe
from strategies.networks.build import build_network
from strategies.networks.network import SegmentationNetwork


def augmentation(config: Config) -> Augmentation:
    """Return what is done to every training image."""
    return Augmentation(config.data.scale, config.data.crop, config.data.flip)


def new_network(config: Config, recipe: BaseRecipe, classes: int, pretrained: bool) -> SegmentationNetwork:
    """Return an untrained network with the recipe's head, in the memory layout that convolutions like best."""
    network = build_network(config.network.name, classes, recipe.head, recipe.tau, pretrained)
    network.precision = config.runtime.precision
    return network.to(memory_format=torch.channels_last)
