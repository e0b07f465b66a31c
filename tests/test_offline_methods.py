"""Methods of the offline protocol on the toy: what they train, keep, and go on from."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor
from toy import arrivals, benchmark, equal, make
from usual import usual

from bench.plan.spec import _without_later
from bench.train.state import exemplars_of, packed, unpacked
from strategies.dkd import Dkd
from strategies.ewc import Ewc
from strategies.ewf import Ewf, EwfParameters, fused
from strategies.finetune import Finetune
from strategies.ilt import Ilt
from strategies.learning import offline_losses
from strategies.learning.method import Method
from strategies.learning.offline import OfflineTemplate
from strategies.lwf import Lwf
from strategies.lwf_mc import LwfMc
from strategies.mib import Mib
from strategies.pi import Pi
from strategies.plop import Plop
from strategies.rw import Rw

SETTINGS = ["protocol=offline", "incremental.epochs=2", "incremental.batch_size=4", "incremental.lr=0.02"]
WITHOUT_MEMORY = [*SETTINGS, "memory.size=0"]
METHODS: dict[str, tuple[type[Method], dict[str, Any]]] = {
    **{kind.__name__: (kind, {}) for kind in (Finetune, Lwf, LwfMc, Ilt, Ewc, Pi, Rw, Mib, Plop, Ewf, Dkd)},
    "Plop, medians": (Plop, {"thresholds": "median"}),
    "Ewf on plop, trained": (Ewf, {"on": "plop", "old_classifiers": "trained", "a": 0.5}),
}
every_method = pytest.mark.parametrize(("kind", "parameters"), METHODS.values(), ids=METHODS)


class Losses(SupervisedPlugin):
    """Writes down each update's loss, images, labels and logits."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[Tensor, Tensor, Tensor, Tensor, Tensor]] = []

    def after_backward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        own = strategy.own.clone()
        self.seen.append((strategy.loss.detach(), strategy.mb_x, strategy.mb_y, strategy.mb_output.detach(), own))


def template_of(kind: type[Method], *plugins: Any, settings: list[str] = WITHOUT_MEMORY, **parameters: Any) -> Any:
    template = make(kind, plugins, settings=settings, **parameters)
    assert isinstance(template, OfflineTemplate)
    template.begin(benchmark().train_stream[0])
    return template


def train(template: Any, *steps: int) -> Any:
    for t in steps:
        template.train(benchmark().train_stream[t], eval_streams=[])
    return template


def state_of(template: Any) -> dict[str, Tensor]:
    state: dict[str, Tensor] = copy.deepcopy(template.network.state_dict())
    return state


@pytest.mark.parametrize("name", usual(METHODS, "Pi", "Ewf on plop, trained"))
def test_a_method_trains_over_epochs_and_goes_on_from_its_state_bit_for_bit(name: str) -> None:
    """Taken up after a step, and within the next one after an epoch."""
    kind, parameters = METHODS[name]
    first = train(template_of(kind, **parameters), 1)
    after_step = copy.deepcopy(packed(first.state_dict()))
    epochs: list[Any] = []
    first.end_epoch = lambda: epochs.append(copy.deepcopy(first.epoch_state()))
    train(first, 2)
    expected = first.network.state_dict()
    assert all(tensor.isfinite().all() for tensor in expected.values())
    assert not equal(expected, after_step["network"])

    again = make(kind, settings=WITHOUT_MEMORY, **parameters)
    again.load_state_dict(unpacked(after_step, exemplars_of(benchmark())))
    torch.manual_seed(99)
    again.start_step = lambda: again.load_epoch_state(epochs[0])
    train(again, 2)
    assert equal(again.network.state_dict(), expected)
    assert [again.cost.updates, again.cost.forward_passes] == [first.cost.updates, first.cost.forward_passes]

    third = make(kind, settings=WITHOUT_MEMORY, **parameters)
    third.load_state_dict(unpacked(after_step, exemplars_of(benchmark())))
    assert equal(train(third, 2).network.state_dict(), expected)


@every_method
def test_the_previous_model_passes_once_over_each_batch_where_there_is_one(
    kind: type[Method], parameters: dict[str, Any]
) -> None:
    template = train(template_of(kind, **parameters), 1)
    passes = 1 if kind in (Finetune, Ewc, Pi, Rw) else 2
    for_thresholds = 3 if isinstance(template.method, Plop) else 0  # over the step's batches, before the first update
    cost = template.cost
    assert (cost.updates, cost.forward_passes, cost.backward_passes) == (6, 6 * passes + for_thresholds, 6)
    modules = list(template.network.modules())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in modules)
    assert sum(getattr(module, "inplace", False) for module in modules) == 8
    assert cost.memory_images == 0


# -------------------------------------------------------------------------------------------------- the losses


def first_loss(kind: type[Method], **parameters: Any) -> tuple[Any, tuple[Tensor, ...]]:
    """The first update's loss, images, labels, logits and own classes, and the base network."""
    losses = Losses()
    template = template_of(kind, losses, **parameters)
    base = copy.deepcopy(template.network).eval()
    train(template, 1)
    return base, losses.seen[0]


def test_the_first_update_has_the_loss_of_its_method() -> None:
    base, (ft, images, labels, logits, _) = first_loss(Finetune)
    with torch.no_grad():
        old = base(images)
    n = labels.numel()
    known = labels != 255
    assert not known.all()
    nll = -logits.log_softmax(1).gather(1, labels.where(known, 0)[:, None])[:, 0]
    torch.testing.assert_close(ft, (nll * known).sum() / n)
    kd = -(old.softmax(1) * logits[:, :4].log_softmax(1)).sum() / n / 4
    torch.testing.assert_close(first_loss(Lwf)[1][0], ft + 100 * kd)
    torch.testing.assert_close(first_loss(Lwf, distillation_weight=0.0)[1][0], ft)
    for kind in (Ewc, Pi, Rw):
        torch.testing.assert_close(first_loss(kind)[1][0], ft)

    maps: list[Tensor] = []
    with torch.no_grad():
        for network in (base, copy.deepcopy(base).train()):
            network.backbone.blocks.register_forward_hook(lambda *of: maps.append(of[2]))
            network(images)
    features = ((maps[0] - maps[1]) ** 2).mean()
    assert features > 0
    torch.testing.assert_close(first_loss(Ilt)[1][0], ft + 100 * kd + 100 * features)

    base, (lwf_mc, images, labels, logits, _) = first_loss(LwfMc)
    with torch.no_grad():
        old = base(images)
    bce = torch.nn.functional.binary_cross_entropy_with_logits
    truth = torch.stack([(labels == k).to(logits) for k in range(5)], 1)
    by_labels = (bce(logits, truth, reduction="none").sum(1) * (labels != 255)).sum() / n
    by_old = bce(logits[:, :4], old.sigmoid(), reduction="mean")
    torch.testing.assert_close(lwf_mc, by_labels + 10 * 4 * by_old)

    base, (mib, images, labels, logits, own) = first_loss(Mib)
    with torch.no_grad():
        old = base(images)
    log_p = logits.log_softmax(1)
    unbiased = offline_losses.unbiased_cross_entropy(log_p, labels, own)
    torch.testing.assert_close(mib, unbiased + 10 * offline_losses.unbiased_distillation(log_p, old))
    torch.testing.assert_close(first_loss(Ewf)[1][0], mib)


# ------------------------------------------------------------------------------------------------------- ewf

FROZEN_CLASSIFIER = [*WITHOUT_MEMORY, "incremental.lr_factors={classifier: 0}"]


@pytest.mark.parametrize("kind", usual([Mib, Plop], Mib))
def test_ewf_with_a_1_is_the_method_it_is_on_byte_for_byte(kind: type[Method]) -> None:
    on = kind.__name__.lower()
    alone = train(template_of(kind), 1, 2)
    assert equal(state_of(train(template_of(Ewf, on=on, a=1.0, old_classifiers="trained"), 1, 2)), state_of(alone))
    frozen = train(template_of(kind, settings=FROZEN_CLASSIFIER), 1, 2)
    assert not equal(state_of(frozen), state_of(alone))
    for settings in (WITHOUT_MEMORY, FROZEN_CLASSIFIER):
        assert equal(state_of(train(template_of(Ewf, settings=settings, on=on, a=1.0), 1, 2)), state_of(frozen))


def test_ewf_with_a_0_keeps_the_previous_model_and_has_the_new_outputs() -> None:
    template = template_of(Ewf, a=0.0)
    base = state_of(template)
    after = state_of(train(template, 1))
    for name, tensor in base.items():
        if tensor.is_floating_point():
            assert torch.equal(after[name][: len(tensor)], tensor)
    new = state_of(train(template_of(Ewf, a=1.0), 1))
    assert torch.equal(after["head.weight"][4:], new["head.weight"][4:])


def test_ewf_fuses_weights_biases_and_statistics_and_leaves_the_rest() -> None:
    template = template_of(Ewf)
    base = state_of(template)
    found = state_of(train(template, 1))
    trained = state_of(train(template_of(Ewf, a=1.0), 1))
    a = math.sqrt(1 / (1 + 4))
    for name, before in base.items():
        if before.is_floating_point():
            there, rest = found[name][: len(before)], found[name][len(before) :]
            expected = (1 - a) * before.double() + a * trained[name][: len(before)].double()
            torch.testing.assert_close(there.double(), expected, rtol=1e-6, atol=1e-7)
            assert torch.equal(rest, trained[name][len(before) :])
        else:
            assert found[name] == trained[name]
    assert any("running_var" in name and not torch.equal(found[name], trained[name]) for name in found)
    lowered = base["head.bias"][0] - a * math.log(2)
    torch.testing.assert_close(found["head.bias"][0], lowered)
    assert torch.allclose(found["head.bias"][1:4], base["head.bias"][1:4], rtol=1e-6)


def test_rows_that_are_new_are_not_fused() -> None:
    old, new = {"w": torch.zeros(16)}, {"w": torch.ones(17)}
    assert fused(old, new, 0.25)["w"].tolist() == [0.25] * 16 + [1.0]


def test_a_run_of_ewf_on_mib_keeps_the_hash_that_it_had_before_it_could_be_on_plop() -> None:
    given = {"a": None, "distillation_weight": 10.0, "old_classifiers": "frozen", "on": "mib"}
    assert _without_later(EwfParameters()) == given
    assert _without_later(EwfParameters(on="plop", pod_factor=0.02)) == {**given, "on": "plop", "pod_factor": 0.02}


class Frozen(SupervisedPlugin):
    """Checks at every update that the old classifiers have no gradient."""

    checked = 0

    def after_backward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        head = strategy.network.head
        assert head.known_weight.grad is None and head.known_bias.grad is None
        assert head.new_weight.grad is not None
        self.checked += 1


def test_the_old_classifiers_of_ewf_have_no_gradient() -> None:
    plugin = Frozen()
    train(template_of(Ewf, plugin), 1, 2)
    assert plugin.checked == 12


# ---------------------------------------------------------------------------------------------------- memory


@pytest.mark.parametrize("kind", [Mib, LwfMc])
def test_offline_a_memory_meets_each_image_of_a_step_once_when_the_step_is_over(kind: type[Method]) -> None:
    template = template_of(kind, settings=[*SETTINGS, "memory.size=60"])
    assert {e.step for e in template.method.memory.exemplars} == {0}
    held: list[int] = []
    template.end_epoch = lambda: held.append(template.method.kept())
    train(template, 1)
    assert held == [len(arrivals(0))] * 2
    kept = [e.image_id for e in template.method.memory.exemplars if e.step == 1]
    assert sorted(kept) == sorted(arrivals(1))


def test_a_memory_of_size_0_is_no_memory() -> None:
    template = train(template_of(Mib), 1, 2)
    assert template.method.kept() == 0 and template.method.memory_bytes() == 0
    assert np.isclose(template.cost.images, 2 * len(benchmark().train_stream[2].data) * 2)
