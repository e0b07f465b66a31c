"""What a plug-in imports from: these names stay where they are, whatever moves behind them.

A method is a subclass of `Method`, `CrossEntropy`, `Distilling`, `StreamReplay` or several of them; its hooks get a
`Strategy`. A package declares it as an entry point of the group `bench.strategies`. A network is a subclass of
`Backbone`, its entry point of the group `bench.networks`.
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
from strategies.learning.offline import OfflineTemplate
from strategies.learning.protocol import BaseRecipe, EpochProtocol, OfflineProtocol, OnlineProtocol
from strategies.learning.search import Search
from strategies.learning.segmentation import SegmentationTemplate
from strategies.learning.strategy import Strategy
from strategies.learning.template import OnlineTemplate
from strategies.networks.backbone import Backbone, Stage
from strategies.networks.batchnorm import PooledBatchNorm
from strategies.networks.build import build_network
from strategies.networks.decoders import LightDecoder, aspp
from strategies.networks.heads import CosineHead, LinearHead
from strategies.networks.network import SegmentationNetwork, batch_statistics, evaluation_mode, trained_parameters
from strategies.networks.settings import OF_IMAGENET, STRICT, NetworkSettings, Normalisation
from strategies.networks.sources import Packaged, Published, Source, WeightsError, load_by_name

__all__ = [
    "BASE_LOSSES",
    "OF_IMAGENET",
    "POLICIES",
    "STRICT",
    "Backbone",
    "BaseRecipe",
    "ClassBalanced",
    "ConfidenceMemory",
    "CosineHead",
    "CrossEntropy",
    "CrossEntropyParameters",
    "Distilling",
    "EpochProtocol",
    "Exemplar",
    "HerdingMemory",
    "LightDecoder",
    "LinearHead",
    "Memory",
    "Method",
    "NetworkSettings",
    "Normalisation",
    "OfflineProtocol",
    "OfflineTemplate",
    "OnlineProtocol",
    "OnlineTemplate",
    "Packaged",
    "PooledBatchNorm",
    "Published",
    "Replay",
    "Reservoir",
    "Search",
    "SegmentationNetwork",
    "SegmentationTemplate",
    "Source",
    "Stage",
    "Strategy",
    "StreamMemory",
    "StreamReplay",
    "WeightsError",
    "aspp",
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
    "load_by_name",
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
