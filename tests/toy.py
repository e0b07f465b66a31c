"""A toy stream, runs on it, and an onlooker that writes down every update: shared by the tests of the methods.

The toy's full label maps hold classes of other steps than the one an image arrives in, and the class ids
are learned in another order than they are numbered, so that a wrong annotation cannot go unseen.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor

from bench.settings.merging import resolve_config
from bench.train.template import make_template
from benchmarks.imageset import ImageSet, Presence, Split
from benchmarks.names import ScenarioName
from benchmarks.scenarios import compute_scenario
from benchmarks.streams import SegmentationScenario, build_benchmark
from strategies.learning.method import Method
from strategies.learning.protocol import BaseRecipe
from strategies.learning.registry import method_class
from strategies.learning.template import OnlineTemplate
from strategies.networks.build import build_network
from strategies.networks.network import PassTally, SegmentationNetwork
from strategies.networks.settings import OF_IMAGENET

VOID = 255
BATCH = 4
FLOAT32 = 2e-5
"""Relative error of a mean over a batch that was computed in single precision."""

# ------------------------------------------------------------------------------------------------ the toy stream

GROUPS = ((3, 1, 5), (2,), (6, 4))
"""Class ids by step."""
LEARNED = ([1, 2, 3], [4], [5, 6])
"""Their labels, by step: the place in the order of learning."""
LABEL_OF = {raw: 1 + i for i, raw in enumerate(raw for group in GROUPS for raw in group)}

TRAIN: tuple[tuple[int, ...], ...] = (
    *((2,), (2, 6), (1,), (6, 3), (3,), (2, 3), (4,), (5,), (2, 1), (3, 1), (6,), (2, 5), (1, 5)),
    *((2, 3, 1), (4, 1), (3, 5), (2,), (6, 4), (2, 4, 1), (1,), (2, 1), (6, 5), (3,), (2, 3), (4,)),
)
"""Class ids of each training image; in the overlapped setup step 1 has 10 images and step 2 has 9."""
TEST: tuple[tuple[int, ...], ...] = ((1,), (2,), (3, 6), (4,), (5, 2), (6,), (1, 4))
BATCHES = (3, 3)
"""Incoming batches of step 1 (4, 4, 2 images) and step 2 (4, 4, 1)."""


class Toy(ImageSet):
    """Images of 16 x 16 pixels of noise; each class a square with a void border in a quadrant of its own."""

    name: ClassVar[str] = "toy"
    fixed_class_names: ClassVar[tuple[str, ...] | None] = ("background", "one", "two", "three", "four", "five", "six")

    @classmethod
    def open(cls, data_root: Path | None) -> Toy:
        return cls()

    def _classes(self, split: Split) -> tuple[tuple[int, ...], ...]:
        return TRAIN if split == "train" else TEST

    def ids(self, split: Split) -> tuple[str, ...]:
        return tuple(f"{split}-{i}" for i in range(len(self._classes(split))))

    def read(self, split: Split, index: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng([split == "test", index])
        image = rng.integers(0, 120, (16, 16, 3)).astype(np.uint8)
        label_map = np.zeros((16, 16), dtype=np.uint8)
        quadrants = rng.permutation(4)
        for c, quadrant in zip(self._classes(split)[index], quadrants, strict=False):
            top, left = 8 * (quadrant // 2), 8 * (quadrant % 2)
            label_map[top : top + 7, left : left + 7] = VOID
            label_map[top + 1 : top + 6, left + 1 : left + 6] = c
            image[top + 1 : top + 6, left + 1 : left + 6] += np.array([20 * c, 120 - 20 * c, 60], dtype=np.uint8)
        return image, label_map

    def presence(self, split: Split) -> Presence:
        labels = np.zeros((len(self._classes(split)), 256), dtype=bool)
        for i, classes in enumerate(self._classes(split)):
            labels[i, [0, *classes]] = True
        return Presence(labels, digest=split)

    def images_digest(self) -> str:
        return "toy"

    def stamp(self) -> str:
        return "toy"


@cache
def benchmark() -> SegmentationScenario:
    return build_benchmark(
        compute_scenario(ScenarioName("toy", "3+1+2", "overlapped"), Toy(), GROUPS), normalisation=OF_IMAGENET
    )


def full_label_map(image_id: str) -> np.ndarray:
    return Toy().read("train", int(image_id.removeprefix("train-")))[1]


def annotation(image_id: str, tau: int) -> np.ndarray:
    """The labels step tau gives an image, straight from the definition: its own classes, void, and 0."""
    full = full_label_map(image_id)
    labels = np.where(full == VOID, VOID, 0).astype(np.int64)
    for raw in GROUPS[tau]:
        labels[full == raw] = LABEL_OF[raw]
    return labels


def told(labels: Any, tau: Any) -> np.ndarray:
    """What the cross-entropy takes of annotations (B, H, W) by default: nothing of label 0 where tau > 0."""
    labels, tau = np.asarray(labels), np.asarray(tau)
    return np.where((labels == 0) & (tau[:, None, None] > 0), VOID, labels)


def arrivals(step: int) -> set[str]:
    """The images of a step in the overlapped setup: those with a pixel of its classes."""
    return {f"train-{i}" for i, classes in enumerate(TRAIN) if set(classes) & set(GROUPS[step])}


@cache
def id_by_content() -> dict[bytes, tuple[str, bool]]:
    """Image id and whether it is mirrored, by the normalised pixels."""
    found = {}
    for step in range(3):
        data = benchmark().train_stream[step].data
        for i, image_id in enumerate(data.ids):
            image = data[i][0]
            found[image.numpy().tobytes()] = (image_id, False)
            found[image.flip(-1).contiguous().numpy().tobytes()] = (image_id, True)
    return found


# -------------------------------------------------------------------------------------------------- running it


@dataclass
class Iteration:
    """One update as an onlooker sees it."""

    step: int
    images: Tensor
    labels: np.ndarray
    tau: np.ndarray
    indices: list[int]
    ids: list[str]
    mirrored: list[bool]
    logits: np.ndarray
    logits_gradient: Tensor
    loss: float
    confidence: np.ndarray | None
    evaluated_logits: np.ndarray | None
    parameters: list[Tensor]
    gradients: list[Tensor]
    parameters_after: list[Tensor] = field(default_factory=list)

    @property
    def incoming(self) -> list[str]:
        return [name for name, index in zip(self.ids, self.indices, strict=True) if index >= 0]

    @property
    def replayed(self) -> list[str]:
        return [name for name, index in zip(self.ids, self.indices, strict=True) if index < 0]

    @property
    def planted(self) -> np.ndarray:
        """The annotations the images arrived with, not taken from the batch."""
        return np.stack(
            [
                annotation(name, tau)[:, ::-1] if mirrored else annotation(name, tau)
                for name, tau, mirrored in zip(self.ids, self.tau.tolist(), self.mirrored, strict=True)
            ]
        )

    @property
    def told(self) -> np.ndarray:
        """What the cross-entropy takes of them by default."""
        return told(self.planted, self.tau)

    @property
    def arguments(self) -> dict[str, Any]:
        """The reference's arguments."""
        known = [list(classes) for classes in LEARNED[: self.step + 1]]
        return {"logits": self.logits, "labels": self.planted, "tau": self.tau, "classes_of_step": known}


class Onlooker(SupervisedPlugin):
    """Writes down every update; `look` also runs a copy of the network in eval mode before each forward pass."""

    def __init__(self, look: bool = False) -> None:
        super().__init__()
        self.look = look
        self.iterations: list[Iteration] = []
        self.starts: list[dict[str, Any]] = []
        self.optimizer_steps = Counter[int]()

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        step = strategy.experience.data.step
        strategy.optimizer.register_step_post_hook(lambda *_: self.optimizer_steps.update([step]))
        self.starts.append(
            {
                "confidence": copy.copy(getattr(strategy.method, "confidence", None)),
                "optimizer": strategy.optimizer,
                "optimizer_state": len(strategy.optimizer.state),
            }
        )

    def after_forward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        strategy.mb_output.retain_grad()

    def before_forward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        self.evaluated = None
        if self.look:
            tally = strategy.network.tally
            before = tally.passes, tally.images
            with torch.no_grad():
                self.evaluated = copy.deepcopy(strategy.network).eval()(strategy.mb_x).double().numpy()
            tally.passes, tally.images = before

    def after_backward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        images, labels, steps, indices = strategy.mbatch
        known = [id_by_content()[image.contiguous().numpy().tobytes()] for image in images]
        parameters = list(strategy.network.parameters())
        self.iterations.append(
            Iteration(
                step=strategy.experience.data.step,
                images=images.clone(),
                labels=labels.clone().numpy(),
                tau=steps.clone().numpy(),
                indices=indices.tolist(),
                ids=[name for name, _ in known],
                mirrored=[mirrored for _, mirrored in known],
                logits=strategy.mb_output.detach().double().numpy(),
                logits_gradient=strategy.mb_output.grad.clone(),
                loss=strategy.loss.item(),
                confidence=copy.copy(getattr(strategy.method, "confidence", None)),
                evaluated_logits=self.evaluated,
                parameters=[p.detach().clone() for p in parameters],
                gradients=[p.grad.clone() for p in parameters],
            )
        )

    def after_update(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        self.iterations[-1].parameters_after = [p.detach().clone() for p in strategy.network.parameters()]


@dataclass
class Run:
    """A finished run; `weights[t]` is the network's state after step t."""

    template: OnlineTemplate
    onlooker: Onlooker
    weights: list[dict[str, Tensor]]
    costs: list[Any]

    @property
    def iterations(self) -> list[Iteration]:
        return self.onlooker.iterations

    def of(self, step: int) -> list[Iteration]:
        return [i for i in self.iterations if i.step == step]


@cache
def base_model(recipe: BaseRecipe) -> dict[str, Tensor]:
    """Weights of 60 updates on the base step: sure of some pixels and not of others."""
    data = benchmark().train_stream[0].data
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        network = build_network("small", 3, recipe.head, recipe.tau).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    for _ in range(20):
        for images, labels, _, _ in data.batches(6):
            loss = torch.nn.functional.cross_entropy(network(images), labels, ignore_index=VOID)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
    return network.state_dict()


def make(
    name: str | type[Method],
    plugins: Sequence[SupervisedPlugin] = (),
    seed: int = 0,
    settings: Sequence[str] = (),
    scenario: str = "toy-3-1-overlapped",
    **parameters: Any,
) -> OnlineTemplate:
    """The template of a method, on a base network trained for a moment, in eval mode as a run gets it."""
    config = resolve_config("shapes", None, None, ["data.flip=false", "memory.size=60", *settings])
    method: type[Method] = method_class(name) if isinstance(name, str) else name
    given = method.Parameters(**parameters)
    recipe: BaseRecipe = method.recipe(given)
    network = build_network("small", 3, recipe.head, recipe.tau)
    network.load_state_dict(base_model(recipe))
    network.eval()
    return make_template(network, method, given, config, scenario, seed, torch.device("cpu"), plugins)


def run(
    name: str | type[Method],
    plugins: Sequence[SupervisedPlugin] = (),
    look: bool = False,
    evaluate: bool = False,
    **options: Any,
) -> Run:
    onlooker = Onlooker(look)
    template = make(name, [*plugins, onlooker], **options)
    weights, costs = [], []
    for t, experience in enumerate(benchmark().train_stream):
        if t == 0:
            template.begin(experience)
        else:
            template.train(experience, eval_streams=[])
        if evaluate:
            template.eval(benchmark().test_stream[t])
        weights.append(copy.deepcopy(template.network.state_dict()))
        costs.append(template.cost)
    return Run(template, onlooker, weights, costs)


@cache
def plain(name: str, **parameters: Any) -> Run:
    """A run that tests share and must not change."""
    return run(name, **parameters)


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def statistics(state: dict[str, Tensor]) -> dict[str, Tensor]:
    kept = {k: v for k, v in state.items() if "running_" in k or "num_batches" in k}
    assert kept
    return kept


def rerun(network: SegmentationNetwork, *, train: bool) -> SegmentationNetwork:
    """A copy to compute with independently, in double precision, whose passes are not counted."""
    twin = copy.deepcopy(network).double().train(train)
    twin.tally = PassTally()
    return twin


def mean_nll(logits: Tensor, labels: Tensor) -> Tensor:
    """The cross-entropy over non-void pixels, written out: log of the sum of exponentials less the label's logit."""
    known = labels != VOID
    scores = logits.permute(0, 2, 3, 1)[known]
    scores = scores - scores.detach().amax(1, keepdim=True)  # large ones have no exponential
    return (scores.exp().sum(1).log() - scores[torch.arange(len(scores)), labels[known]]).mean()


class Loads:
    """Writes down every memory batch that a method loads: exemplars and tensors, by iteration."""

    def __init__(self) -> None:
        self.batches: list[tuple[list[Any], list[Tensor]]] = []

    def watch(self, template: OnlineTemplate) -> OnlineTemplate:
        load = template.load

        def written_down(exemplars: Sequence[Any]) -> list[Tensor]:
            batch = load(exemplars)
            self.batches.append((list(exemplars), [part.clone() for part in batch]))
            return batch

        template.load = written_down
        return template


def train(template: OnlineTemplate, steps: Sequence[int] = (1, 2), fill: bool = True) -> OnlineTemplate:
    """Fill the memory and pass over the increments."""
    if fill:
        template.begin(benchmark().train_stream[0])
    for t in steps:
        template.train(benchmark().train_stream[t], eval_streams=[])
    return template
