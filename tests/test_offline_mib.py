"""An offline run of MiB in float64 is a loop written by hand, number for number."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn
from toy import VOID, Toy

from benchmarks.imageset import Split
from benchmarks.names import ScenarioName
from benchmarks.scenarios import compute_scenario
from benchmarks.streams import SegmentationScenario, build_benchmark
from strategies.learning.offline import OfflineTemplate
from strategies.learning.protocol import OfflineProtocol
from strategies.learning.randomness import Seeds
from strategies.mib import Mib, MibParameters
from strategies.networks.heads import LinearHead
from strategies.networks.network import SegmentationNetwork
from strategies.networks.settings import OF_IMAGENET

SEEDS = Seeds(initialisation=1, order=2, augmentation=3, memory=4)
LR, MOMENTUM, DECAY, POWER, EPOCHS, BATCH, WEIGHT = 0.2, 0.8, 0.01, 0.9, 3, 2, 7.0
STEPS = {1: (0, 1, 2), 2: (1, 2, 3), 3: (2, 3)}
"""The images of each increment: those that show its class, one more than its number."""


class FourImages(Toy):
    """Four of the toy's images, of four classes."""

    def _classes(self, split: Split) -> tuple[tuple[int, ...], ...]:
        return ((1, 2), (2, 3), (4, 2, 3), (3, 4))

    def images_digest(self) -> str:
        return "four images"

    def stamp(self) -> str:
        return "four images"


class Convolution(nn.Conv2d):
    """A convolution in float64 of images in float32."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images.double())


@cache
def stream() -> SegmentationScenario:
    groups = ((1,), (2,), (3,), (4,))
    scenario = compute_scenario(ScenarioName("toy", "1-1", "overlapped"), FourImages(), groups)
    return build_benchmark(scenario, normalisation=OF_IMAGENET)


def network() -> SegmentationNetwork:
    torch.manual_seed(5)
    return SegmentationNetwork(Convolution(3, 5, 3, padding=1).double(), LinearHead(5, 2).double())


def image_and_label_map(k: int, step: int) -> tuple[Tensor, Tensor]:
    """Image k, as it is normalised in float32, and what the step annotates of it."""
    full = FourImages().read("train", k)[1]
    labels = np.where(full == VOID, VOID, np.where(full == step + 1, step + 1, 0))
    image = stream().train_stream[step].data[STEPS[step].index(k)][0]
    return image.double(), torch.tensor(labels).long()


def logits(parameters: list[Tensor], images: Tensor) -> Tensor:
    kernel, shift, weight, bias = parameters
    return torch.einsum("bdij,cd->bcij", nn.functional.conv2d(images, kernel, shift, padding=1), weight) + bias.view(
        -1, 1, 1
    )


def mib_loss(z: Tensor, old: Tensor, labels: Tensor) -> Tensor:
    """The unbiased cross-entropy and distillation, written out; means over all pixels of the batch."""
    known, total, p = old.shape[1], z.exp().sum(1), old.exp() / old.exp().sum(1, keepdim=True)
    unannotated = z[:, :known].exp().sum(1) / total
    learnt = z[:, known].exp() / total  # one class a step
    cross_entropy = -(unannotated.log() * (labels == 0) + learnt.log() * (labels == known)).sum() / labels.numel()
    background = (z[:, 0].exp() + z[:, known].exp()) / total
    agreement = p[:, 0] * background.log()
    for k in range(1, known):
        agreement = agreement + p[:, k] * (z[:, k] - total.log())
    return cross_entropy - WEIGHT * agreement.sum() / known / labels.numel()


def trained_by_hand(parameters: list[Tensor]) -> list[Tensor]:
    for step, images in STEPS.items():
        old = [p.clone() for p in parameters]
        kernel, shift, weight, bias = parameters
        lowered = bias[:1] - math.log(2)
        parameters = [kernel, shift, torch.cat([weight, weight[:1]]), torch.cat([lowered, bias[1:], lowered])]
        velocity = [torch.zeros_like(p) for p in parameters]
        an_epoch = math.ceil(len(images) / BATCH)
        for i in range(EPOCHS * an_epoch):
            epoch, place = divmod(i, an_epoch)
            order = np.random.default_rng([SEEDS.order, step, epoch]).permutation(len(images))
            taken = [images[k] for k in order[place * BATCH : (place + 1) * BATCH]]
            x, y = (torch.stack(each) for each in zip(*(image_and_label_map(k, step) for k in taken), strict=True))
            parameters = [p.detach().requires_grad_() for p in parameters]
            gradients = torch.autograd.grad(mib_loss(logits(parameters, x), logits(old, x), y), parameters)
            rate = LR * (1 - i / (EPOCHS * an_epoch)) ** POWER
            gradients = [g + DECAY * p for g, p in zip(gradients, parameters, strict=True)]
            velocity = [MOMENTUM * v + g for v, g in zip(velocity, gradients, strict=True)]
            rows = zip(parameters, gradients, velocity, strict=True)
            parameters = [(p - rate * (g + MOMENTUM * v)).detach() for p, g, v in rows]
    return parameters


def test_three_steps_of_mib_over_four_images_are_the_loop_written_by_hand() -> None:
    of_sgd = {"optimizer": "sgd", "lr": LR, "momentum": MOMENTUM, "weight_decay": DECAY, "nesterov": True}
    protocol = OfflineProtocol(epochs=EPOCHS, batch_size=BATCH, warmup_steps=0, poly_power=POWER, **of_sgd)
    method = Mib(MibParameters(distillation_weight=WEIGHT), 0, np.random.default_rng(0))
    template = OfflineTemplate(network=network(), method=method, protocol=protocol, seeds=SEEDS)
    start = [p.detach().clone() for p in template.network.parameters()]
    benchmark = stream()
    template.begin(benchmark.train_stream[0])
    for step, images in STEPS.items():
        assert benchmark.train_stream[step].data.ids == tuple(f"train-{k}" for k in images)
        template.train(benchmark.train_stream[step], eval_streams=[])
    found = list(template.network.parameters())
    for mine, expected in zip(found, trained_by_hand(start), strict=True):
        torch.testing.assert_close(mine.detach(), expected, rtol=1e-10, atol=1e-12)
    assert len(found[-1]) == 5 and not torch.equal(found[0], start[0])
