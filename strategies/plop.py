"""PLOP: pseudo labels where the previous model is sure enough, and local POD of the maps on the way."""

from __future__ import annotations

import math
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from strategies.learning.local_pod import local_pod, with_new_as_background
from strategies.learning.method import Distilling
from strategies.learning.offline import OfflineTemplate
from strategies.learning.pseudo_labels import ThresholdRule, Uncertainty, UncertaintyCounts, pseudo_labels
from strategies.learning.search import Search
from strategies.learning.strategy import Strategy
from strategies.learning.tiled_offline import weighed_cross_entropy
from strategies.mib import share_background
from strategies.networks.features import LastFeatures
from strategies.networks.heads import LinearHead, StepwiseHead
from strategies.networks.settings import STRICT
from strategies.networks.stage_maps import StageMaps, last_activations

POD = Search(1e-4, 1e-1, "around 0.01 on VOC, 0.001 on ADE20K (PLOP's scripts)", log=True)
LOGITS_POD = Search(1e-6, 1e-2, "around 0.0005 on VOC, 0.00001 on ADE20K (PLOP's scripts)", log=True)


@dataclass(frozen=True, config=STRICT)
class PlopParameters:
    """Hyper-parameters of plop."""

    thresholds: ThresholdRule = "published"
    """Below which entropy a class's pseudo labels are taken: `published`, as PLOP's code computes it, by which on many
    classes all are; `median`, the class's median, as its paper has it."""
    pod_factor: Annotated[float, Field(ge=0), POD] = 0.01
    """Of local POD on the maps of the stages and on the features; PLOP's scripts have 0.01 on VOC, 0.001 on ADE20K."""
    logits_factor: Annotated[float, Field(ge=0), LOGITS_POD] = 0.0005
    """Of local POD on the logits; PLOP's scripts have 0.0005 on VOC, 0.00001 on ADE20K."""


class Plop(Distilling):
    """Cross-entropy with pseudo labels, weighed by how much of an image's background they fill, + local POD.

        L = -(1/N) Σ_i ν log p_i(ỹ_i) + sqrt(K/n) mean_l λ_l | Φ(h_l²) - Φ(ĥ_l²) |
        ỹ_i = y_i where that is a class; else argmax_k q_i(k) where u_i < τ of that output; else none
        ν = share of an image's background pixels with u_i < τ,  u_i the entropy of q_i, scaled

    q are the previous model's probabilities, n of the K outputs are new; h_l are the maps, Φ the means of the rows and
    columns of their windows, λ `pod_factor` and for logits `logits_factor`. New outputs start as MiB's do. Before a
    step's first update the previous model passes once over its images, from which each class's threshold τ comes.
    """

    citation: ClassVar[str] = (
        "Douillard et al., PLOP: Learning without Forgetting for Continual Semantic Segmentation, CVPR 2021"
    )
    Parameters: ClassVar[type[Any]] = PlopParameters
    protocols: ClassVar[tuple[str, ...]] = ("offline",)
    resumable: ClassVar[bool] = True
    parameters: PlopParameters
    thresholds: Tensor | None = None
    """Float32 (O,), of the present step."""

    def grow(self, strategy: Strategy, outputs: int) -> None:
        """Freeze the previous step's model, then append outputs that share the background's mass."""
        super().grow(strategy, outputs)
        self.thresholds = None
        if isinstance(strategy.network.head, LinearHead | StepwiseHead):
            share_background(strategy.network.head, outputs)

    def before_training_exp(self, strategy: Strategy, *args: Any, **kwargs: Any) -> None:
        """Have both networks leave their maps, those of stages from before their last activation."""
        activations = last_activations(self.old)
        both = strategy.network, self.old
        self.maps, self.old_maps = (StageMaps(network, None, activations) for network in both)
        self.features, self.old_features = (LastFeatures(network) for network in both)

    def before_training_epoch(self, strategy: OfflineTemplate, *args: Any, **kwargs: Any) -> None:
        """Before the step's first epoch find the thresholds: one pass of the previous model over it, on all devices."""
        if self.thresholds is None and not strategy.experience.annotates_all_seen:
            uncertainty = self.uncertainty(strategy)
            seen = UncertaintyCounts(uncertainty, strategy.device)
            for images, labels in strategy.looked_over():
                seen.add(self.old_logits(images), labels)
            self.thresholds = uncertainty.thresholds(strategy.devices.total(seen.counts)).to(strategy.device)

    def after_training_exp(self, strategy: Strategy, *args: Any, **kwargs: Any) -> None:
        """Leave the network as it was."""
        self.maps.detach()
        self.features.detach()

    def uncertainty(self, strategy: Strategy) -> Uncertainty:
        """Return how unsure the previous model's predictions are."""
        return Uncertainty(self.parameters.thresholds, self.old.outputs, strategy.network.outputs)

    def loss(self, strategy: Strategy) -> Tensor:
        """Return nu x cross-entropy with pseudo labels + local POD."""
        old_logits = self.old_logits(strategy.mb_x)  # leaves the old maps, too
        labels, shares = self.targets(strategy, old_logits)
        return weighed_cross_entropy(strategy.mb_output, labels, shares) + self.pod()

    def targets(self, strategy: Strategy, old_logits: Tensor) -> tuple[Tensor, Tensor]:
        """Return the labels (B, H, W) of the cross-entropy and the adaptive factors nu (B,).

        Where steps annotate every class seen so far (`sequential`) there is nothing to fill in.
        """
        labels = strategy.mb_y
        if self.thresholds is None:
            return labels, labels.new_ones(len(labels))
        return pseudo_labels(*self.uncertainty(strategy).of(old_logits), labels, self.thresholds)

    def pod(self) -> Tensor:
        """Return sqrt(K / n) times the mean over the maps of factor x local POD, n of the K outputs being new."""
        known, outputs = self.old.outputs, self.features.logits().shape[1]
        pairs = [(self.maps[name], self.old_maps[name]) for name in self.maps.names]
        pairs.append((self.features(), self.old_features()))
        terms = [self.parameters.pod_factor * local_pod(new, old) for new, old in pairs]
        logits = with_new_as_background(self.features.logits(), known)
        terms.append(self.parameters.logits_factor * local_pod(logits, self.old_features.logits()))
        return math.sqrt(outputs / (outputs - known)) * torch.stack(terms).mean()

    def state_dict(self) -> dict[str, Any]:
        """Return the step's thresholds."""
        return {"thresholds": self.thresholds}

    def load_state_dict(self, strategy: Strategy, state: dict[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        found = state["thresholds"]
        self.thresholds = None if found is None else found.to(strategy.device)
