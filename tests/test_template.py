"""The template by itself: what each seed decides, what it hands to Avalanche, what a step is told to have cost."""

from __future__ import annotations

import re
import resource
import time
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor
from toy import Loads, Onlooker, base_model, benchmark, make, train

from benchmarks.annotated import AnnotatedImages
from benchmarks.augmentation import Augmentation, normalised
from strategies.er import Er
from strategies.finetune import Finetune, FinetuneParameters
from strategies.learning import cost
from strategies.learning.cost import StepCost, peak_gpu_counted, peak_ram_bytes
from strategies.learning.evaluation import PixelMeter, new_evaluator
from strategies.learning.protocol import BaseRecipe, OnlineProtocol
from strategies.learning.randomness import Seeds
from strategies.learning.template import OnlineTemplate
from strategies.networks.build import build_network
from strategies.networks.settings import OF_IMAGENET

AUGMENTED = ["data.flip=true", "data.scale=[0.5, 2.0]", "data.crop=16", "memory.size=6"]
AUGMENTATION = Augmentation((0.5, 2.0), 16, True, OF_IMAGENET.mean)


def arriving(step: int) -> Any:
    return benchmark().train_stream[step]


# ---------------------------------------------------------------------------------------- what is decided by what


class Filled(Er):
    """Writes down what its memory is offered first."""

    def fill(self, strategy: Any, exemplars: list[Any], known_classes: int) -> None:
        self.offered = [exemplar.index for exemplar in exemplars]
        super().fill(strategy, exemplars, known_classes)


def test_each_seed_decides_its_own_draws_and_their_numbers_stay_what_they_are() -> None:
    """Runs of before are made again by these: order and filling by permutations, each image by its place."""
    loads, seen = Loads(), []

    class Incoming(SupervisedPlugin):
        def before_forward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
            count = len(strategy.incoming())
            seen.append((strategy.mb_x[:count].clone(), strategy.mb_y[:count].clone()))

    template = loads.watch(make(Filled, [Incoming()], settings=AUGMENTED))
    seeds = template.seeds
    train(template)
    method: Any = template.method
    assert method.offered == np.random.default_rng([seeds.memory, 1]).permutation(len(arriving(0).data)).tolist()
    expected = []
    for step in (1, 2):
        order = np.random.default_rng([seeds.order, step]).permutation(len(arriving(step).data)).tolist()
        expected += list(arriving(step).data.batches(4, order, AUGMENTATION, (seeds.augmentation, 0, step)))
    for (images, labels), batch in zip(seen, expected, strict=True):
        assert torch.equal(images, batch[0]) and torch.equal(labels, batch[1])
    rng = np.random.default_rng([seeds.augmentation, 1])
    for exemplars, (images, labels, _, indices) in loads.batches:
        for exemplar, image, annotated in zip(exemplars, images, labels, strict=True):
            drawn = arriving(exemplar.step).data.sample(exemplar.index, AUGMENTATION, rng)
            assert torch.equal(image, normalised(drawn[0], OF_IMAGENET)) and torch.equal(annotated, drawn[1].long())
        assert indices.tolist() == [-1 - i for i in range(len(exemplars))]


def test_new_outputs_are_drawn_by_the_seed_and_the_step_and_torchs_generator_goes_on() -> None:
    onlooker = Onlooker()
    template = make("finetune", [onlooker])
    state = torch.get_rng_state()
    train(template)
    assert torch.equal(torch.get_rng_state(), state)
    names = [name for name, _ in template.network.named_parameters()]
    twin = build_network("small", 3)
    for step, first in ((1, 0), (2, 3)):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(template.seeds.initialisation + step)
            known = twin.outputs
            twin.grow(len(arriving(step).classes_in_this_experience))
        at_start = dict(zip(names, onlooker.iterations[first].parameters, strict=True))
        for name, value in twin.named_parameters():
            if name.startswith("head."):
                assert torch.equal(at_start[name][known:], value[known:])


# ---------------------------------------------------------------------------------------- what Avalanche is told


def alone(**options: Any) -> OnlineTemplate:
    network = build_network("small", 3)
    network.load_state_dict(base_model(BaseRecipe()))
    method = Finetune(FinetuneParameters(), 4, np.random.default_rng(0))
    return OnlineTemplate(
        network=network, method=method, protocol=OnlineProtocol(), seeds=Seeds(1, 2, 3, 4), memory_size=4, **options
    )


def test_where_nothing_else_is_said_it_computes_on_the_cpu_an_image_at_a_time_and_warns_of_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        template = alone()
        train(template, steps=[1])
        template.eval(benchmark().test_stream[1])
    assert (template.device, template.eval_mb_size, template.workers) == (torch.device("cpu"), 1, 0)
    assert (template.train_mb_size, template.augmentation) == (4, None)
    assert template.evaluator.loggers == [] and template.evaluator.metrics == []


def test_it_computes_where_it_is_told_to() -> None:
    assert alone(device="meta").device == torch.device("meta")


def test_an_evaluator_that_is_given_is_the_one_that_is_used_and_keeps_no_curves() -> None:
    meter = PixelMeter()
    given = new_evaluator(meter)
    assert given.metrics == [meter] and given.collect_all is False
    assert alone(evaluator=given).evaluator is given


def test_several_experiences_are_trained_on_and_evaluated_one_after_the_other_and_hooks_get_what_is_given() -> None:
    class Hooks(SupervisedPlugin):
        def __init__(self) -> None:
            super().__init__()
            self.told: list[tuple[str, int, Any]] = []

        def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
            self.told.append(("train", strategy.experience.data.step, kwargs["remark"]))

        def before_eval_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
            self.told.append(("eval", strategy.experience.data.step, kwargs["remark"]))

    hooks = Hooks()
    template = make("er", [hooks])
    template.begin(arriving(0))
    template.train((arriving(step) for step in (1, 2)), remark="a")
    template.eval([benchmark().test_stream[1], benchmark().test_stream[2]], remark="b")
    assert hooks.told == [("train", 1, "a"), ("train", 2, "a"), ("eval", 1, "b"), ("eval", 2, "b")]
    assert template.network.outputs == 7


def test_batches_are_read_by_as_many_workers_as_the_template_has_for_its_device(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[Any] = []
    batches = AnnotatedImages.batches

    def watched(images: AnnotatedImages, size: int, *args: Any, **options: Any) -> Any:
        asked.append((size, *(part.tolist() if isinstance(part, np.ndarray) else part for part in args), options))
        return batches(images, size)

    template = alone(workers=2)
    monkeypatch.setattr(AnnotatedImages, "batches", watched)
    train(template, steps=[1])
    template.eval(benchmark().test_stream[1])
    order = np.random.default_rng([2, 1]).permutation(len(arriving(1).data)).tolist()
    here = {"device": template.device}
    assert asked == [(4, order, None, (3, 0, 1), 2, here), (1, {"workers": 2, **here})]


def test_an_experience_that_is_trained_on_twice_grows_the_network_once() -> None:
    template = train(make("lwf-mc"), steps=[1, 1])
    method: Any = template.method
    assert (method.old.outputs, template.network.outputs) == (4, 5)


# ---------------------------------------------------------------------------------------- predictions and costs


def test_a_prediction_is_the_largest_score_in_eval_mode_as_uint8_and_leaves_nothing_behind() -> None:
    template = train(make("er"), steps=[1])
    template.network.train()
    before = {key: value.clone() for key, value in template.network.state_dict().items()}
    images = torch.stack([arriving(1).data[i][0] for i in range(3)])
    predicted = template.predicted(images)
    assert template.network.training and template.mbatch == []
    assert all(torch.equal(value, before[key]) for key, value in template.network.state_dict().items())
    with torch.no_grad():
        scores: Tensor = template.network.eval()(images)
    assert predicted.dtype == torch.uint8 and torch.equal(predicted.long(), scores.argmax(1))


def test_a_cost_begins_at_nothing_and_a_step_is_told_with_its_seconds_and_what_is_held() -> None:
    assert set(vars(StepCost()).values()) == {0}
    template, started = make("er"), time.perf_counter()
    before = peak_ram_bytes()
    train(template, steps=[1])
    passed = time.perf_counter() - started
    told = template.measured()
    assert passed / 100 < told.seconds < passed
    assert (told.memory_images, told.memory_bytes) == (template.method.kept(), template.method.memory_bytes())
    assert told.memory_bytes == 4 * 16 * 16 * told.memory_images > 0  # 3 colours and a label a pixel
    assert before <= told.peak_ram_bytes <= peak_ram_bytes()
    assert told.peak_gpu_bytes == 0


def test_on_a_gpu_the_seconds_go_to_the_end_of_its_work_and_the_peak_is_the_steps_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without one: what is asked of torch.cuda, and when."""
    asked: list[Any] = []

    def watched(name: str, answer: int | None = None) -> None:
        monkeypatch.setattr(torch.cuda, name, lambda device: asked.append((name, device)) or answer)

    watched("reset_peak_memory_stats")
    watched("synchronize")
    watched("max_memory_allocated", 123)
    gpu, template = torch.device("cuda", 1), alone()
    template.device, template.dataloader = gpu, []
    monkeypatch.setattr(template, "_update_all", lambda **_: asked.append("updates"))
    template.training_epoch()
    steps: list[Any] = [("reset_peak_memory_stats", gpu), "updates", ("synchronize", gpu)]
    assert asked == [*steps, ("max_memory_allocated", gpu)]
    assert template.cost.peak_gpu_bytes == 123
    for most, told in ((7, 123), (130, 130)):  # an offline step is counted epoch by epoch
        watched("max_memory_allocated", most)
        with peak_gpu_counted(template.cost, gpu):
            pass
        assert template.cost.peak_gpu_bytes == told


def test_the_most_memory_held_is_the_kernels_number_for_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def by_the_kernel() -> int:
        (kilobytes,) = re.findall(r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
        return 1024 * int(kilobytes)

    assert by_the_kernel() <= peak_ram_bytes() <= by_the_kernel()
    held = {resource.RUSAGE_SELF: 7}  # kilobytes: what is carried over from the process that started this one
    monkeypatch.setattr(cost.resource, "getrusage", lambda who: SimpleNamespace(ru_maxrss=held[who]))
    told = {"VmPeak: 9 kB\nVmHWM:\t      5 kB\nVmRSS: 3 kB\n": 5, "Name: of another kernel\n": 7, None: 7}
    for text, kilobytes in told.items():

        def read_text(path: Path, text: str | None = text, **options: Any) -> str:
            if text is None or path != Path("/proc/self/status"):
                raise FileNotFoundError(path)
            return text

        monkeypatch.setattr(cost.Path, "read_text", read_text)
        assert peak_ram_bytes() == 1024 * kilobytes
