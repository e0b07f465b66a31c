"""What a plug-in imports from: these names stay where they are, whatever moves behind them.

A method is a subclass of `Method`, `CrossEntropy`, `StreamReplay` or `Distilling`; its hooks get a `Strategy`. A
package declares it as an entry point of the group `bench.strategies`.
"""

from strategies.learning.losses import (
    BASE_LOSSES,
    binary_cross_entropy,
    class_confidences,
    composite_loss,
    cross_entropy,
    distillation,
    image_losses,
    latent_nll,
    one_hot,
    one_vs_rest,
    own_classes,
    pixel_count,
    relabel,
    unbiased_cross_entropy,
    unbiased_distillation,
    without_unlabelled,
)
from strategies.learning.memory import (
    POLICIES,
    ClassBalanced,
    ConfidenceMemory,
    Exemplar,
    HerdingMemory,
    Memory,
    Reservoir,
    StreamMemory,
    balanced,
    herding_order,
)
from strategies.learning.method import CrossEntropy, CrossEntropyParameters, Distilling, Method, Replay, StreamReplay
from strategies.learning.protocol import BaseRecipe, OnlineProtocol
from strategies.learning.strategy import Strategy
from strategies.learning.template import OnlineTemplate
from strategies.networks.build import build_network
from strategies.networks.heads import CosineHead, LinearHead
from strategies.networks.network import SegmentationNetwork, batch_statistics, evaluation_mode, trained_parameters
from strategies.networks.settings import STRICT

__all__ = [
    "BASE_LOSSES",
    "POLICIES",
    "STRICT",
    "BaseRecipe",
    "ClassBalanced",
    "ConfidenceMemory",
    "CosineHead",
    "CrossEntropy",
    "CrossEntropyParameters",
    "Distilling",
    "Exemplar",
    "HerdingMemory",
    "LinearHead",
    "Memory",
    "Method",
    "OnlineProtocol",
    "OnlineTemplate",
    "Replay",
    "Reservoir",
    "SegmentationNetwork",
    "Strategy",
    "StreamMemory",
    "StreamReplay",
    "balanced",
    "batch_statistics",
    "binary_cross_entropy",
    "build_network",
    "class_confidences",
    "composite_loss",
    "cross_entropy",
    "distillation",
    "evaluation_mode",
    "herding_order",
    "image_losses",
    "latent_nll",
    "one_hot",
    "one_vs_rest",
    "own_classes",
    "pixel_count",
    "relabel",
    "trained_parameters",
    "unbiased_cross_entropy",
    "unbiased_distillation",
    "without_unlabelled",
]
