"""The offline protocol: epochs over each step, against a loop written by hand; what is frozen; resuming in a step."""

from __future__ import annotations

import copy
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from avalanche.core import SupervisedPlugin
from rich.console import Console
from test_resume import TINY, Died, Watcher, _die_at_call, execute, files, plan, undisturbed
from torch import Tensor, nn
from toy import benchmark, equal, make
from usual import usual

import bench.train.offline
import strategies.learning.offline
from bench.launch.session import prepare
from bench.plan.job import RunJob
from bench.plan.request import Request
from bench.screen.events import Event
from bench.settings.errors import RequestError
from bench.settings.merging import resolve_config
from bench.train.template import Progress
from bench.train.work import Work
from benchmarks.labels import VOID
from strategies.finetune import Finetune, FinetuneParameters
from strategies.learning.offline import OfflineTemplate
from strategies.learning.protocol import OfflineProtocol
from strategies.learning.randomness import Seeds
from strategies.learning.schedule import learning_rate, make_optimizer
from strategies.networks.grouped_head import GroupedHead
from strategies.networks.heads import LinearHead
from strategies.networks.network import SegmentationNetwork

OFFLINE = ["protocol=offline", "incremental.epochs=2", "incremental.batch_size=4", "memory.size=0"]


def protocol(**changes: Any) -> OfflineProtocol:
    settings: dict[str, Any] = {
        **{"epochs": 2, "batch_size": 4, "optimizer": "sgd", "lr": 0.3, "momentum": 0.8},
        **{"weight_decay": 0.01, "warmup_steps": 0, "poly_power": 0.9, **changes},
    }
    return OfflineProtocol(**settings)


class Batches(SupervisedPlugin):
    """Writes down the places of each batch's images, by step, and the learning rates."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[int, list[list[int]]] = {}
        self.rates: list[list[float]] = []

    def before_update(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        self.seen.setdefault(strategy.experience.data.step, []).append(strategy.mbatch[3].tolist())
        self.rates.append([group["lr"] for group in strategy.optimizer.param_groups])


def trained(template: Any) -> Any:
    template.begin(benchmark().train_stream[0])
    for t in (1, 2):
        template.train(benchmark().train_stream[t], eval_streams=[])
    return template


# ---------------------------------------------------------------------------------------- against a loop by hand


def one_convolution(protocol: OfflineProtocol) -> OfflineTemplate:
    """A template on a network of one convolution in float64."""
    torch.manual_seed(3)
    network = SegmentationNetwork(nn.Conv2d(3, 5, 3, padding=1).double(), LinearHead(5, 4).double())
    method = Finetune(FinetuneParameters(), 0, np.random.default_rng(0))
    return OfflineTemplate(network=network, method=method, protocol=protocol, seeds=Seeds(1, 2, 3, 4))


def in_double(template: OfflineTemplate) -> OfflineTemplate:
    forward = template.network.forward
    template.network.forward = lambda images: forward(images.double())
    return template


def by_hand(template: OfflineTemplate, p: OfflineProtocol) -> dict[str, Tensor]:
    """Nesterov's SGD with poly decay over the epochs of both increments, written out."""
    network = copy.deepcopy(template.network)
    for t in (1, 2):
        data = benchmark().train_stream[t].data
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(template.seeds.initialisation + t)
            network.grow(len(benchmark().train_stream[t].classes_in_this_experience))
        parameters = [*network.backbone.parameters(), network.head.weight, network.head.bias]
        velocity = [torch.zeros_like(each) for each in parameters]
        count = len(data) // p.batch_size
        for epoch in range(p.epochs):
            order = np.random.default_rng([template.seeds.order, t, epoch]).permutation(len(data))
            for i in range(count):
                images, labels = zip(*(data[int(k)][:2] for k in order[4 * i : 4 * i + 4]), strict=True)
                scores = network.head(network.backbone(torch.stack(images).double()))
                truth = torch.stack(labels)
                known = truth != VOID
                log_p = scores - scores.exp().sum(1, keepdim=True).log()
                chosen = log_p.gather(1, truth.where(known, 0)[:, None])[:, 0]
                gradients = torch.autograd.grad(-(chosen * known).sum() / truth.numel(), parameters)
                rate = p.lr * (1 - (epoch * count + i) / (p.epochs * count)) ** p.poly_power
                with torch.no_grad():
                    for place, (each, g) in enumerate(zip(parameters, gradients, strict=True)):
                        g = g + p.weight_decay * each
                        velocity[place] = p.momentum * velocity[place] + g
                        each -= rate * (g + p.momentum * velocity[place])
    return network.state_dict()


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_an_offline_run_is_the_loop_written_by_hand_in_however_many_parts_a_batch_passes(parts: int) -> None:
    p = protocol(nesterov=True, drop_last=True, accumulate=parts)
    template = one_convolution(p)
    template.begin(benchmark().train_stream[0])
    expected = by_hand(template, p)
    for t in (1, 2):
        in_double(template).train(benchmark().train_stream[t], eval_streams=[])
    found = template.network.state_dict()
    assert len(found["head.bias"]) == 7
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("drop_last", [False, True])
def test_each_epoch_meets_every_image_once_in_an_order_of_its_own(drop_last: bool) -> None:
    batches = Batches()
    template = trained(make(Finetune, [batches], settings=[*OFFLINE, f"incremental.drop_last={drop_last}"]))
    for t in (1, 2):
        images = len(benchmark().train_stream[t].data)
        an_epoch = images // 4 if drop_last else -(-images // 4)
        met = batches.seen[t]
        epochs = [[place for batch in part for place in batch] for part in (met[:an_epoch], met[an_epoch:])]
        assert epochs[0] != epochs[1] and len(met) == 2 * an_epoch
        for places in epochs:
            assert max(Counter(places).values()) == 1
            assert len(places) == (4 * an_epoch if drop_last else images)
    assert template.cost.updates == template.cost.incoming_batches == len(batches.seen[2])
    assert template.cost.images == sum(map(len, batches.seen[2]))
    again = Batches()
    trained(make("finetune", [again], settings=[*OFFLINE, f"incremental.drop_last={drop_last}", "incremental.lr=1e-9"]))
    assert again.seen == batches.seen


def test_progress_tells_the_epoch_under_way_and_its_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[Event] = []
    progress = Progress(cast(RunJob, SimpleNamespace(key="a", units=12)), events.append)
    monkeypatch.setattr(progress.throttle, "due", lambda: True)
    trained(make("finetune", [progress], settings=OFFLINE))
    told = [(event.step, event.phase, event.batch, event.batches) for event in events]
    batches = {step: sum(event.step == step for event in events) // 2 for step in (1, 2)}
    assert told == [
        (step, f"epoch {epoch}/2", batch, batches[step])
        for step in (1, 2)
        for epoch in (1, 2)
        for batch in range(1, batches[step] + 1)
    ]
    assert [event.done for event in events] == list(range(1, len(events) + 1)) and min(batches.values()) > 1


# ---------------------------------------------------------------------------------------- rates


@pytest.mark.parametrize(
    ("changes", "rates"),
    [
        ({}, {0: 0.3, 50: 0.3 * 0.5**0.9, 99: 0.3 * 0.01**0.9}),
        ({"warmup_share": 0.001, "warmup_steps": 50}, {0: 0.3}),
        ({"warmup_steps": 100, "warmup_poly": "after"}, {0: 0.003, 49: 0.15, 99: 0.3}),
        ({"warmup_share": 0.2, "warmup_from": 0.1}, {0: 0.03, 10: 0.3 * 0.55 * 0.9**0.9, 20: 0.3 * 0.8**0.9}),
        (
            {"warmup_share": 0.2, "warmup_from": 0.1, "warmup_poly": "after"},
            {0: 0.03, 10: 0.3 * 0.55, 20: 0.3, 60: 0.3 * 0.5**0.9},
        ),
    ],
)
def test_the_learning_rate_at_an_update_of_a_hundred(changes: dict[str, Any], rates: dict[int, float]) -> None:
    for iteration, rate in rates.items():
        assert learning_rate(protocol(**changes), iteration, 100) == pytest.approx(rate, rel=1e-12)


def test_no_parts_rate_falls_below_the_least() -> None:
    """SSUL's background head has a ten-thousandth of 0.01, which is its least rate from the first update on."""
    batches = Batches()
    least = ["incremental.min_lr=0.000001", "incremental.lr_factors={classifier: 0.0001}", "incremental.lr=0.01"]
    template = make("finetune", [batches], settings=[*OFFLINE, *least])
    template.begin(benchmark().train_stream[0])
    template.train(benchmark().train_stream[1], eval_streams=[])
    total = len(batches.rates)
    order = [group["lr_factor"] == 1.0 for group in template.optimizer.param_groups]
    for iteration, rates in enumerate(batches.rates):
        usual = 0.01 * (1 - iteration / total) ** 0.9
        assert rates == pytest.approx([usual if whole else 1e-6 for whole in order])


def test_in_the_base_step_all_outputs_are_the_classifier() -> None:
    """Of a head in groups, too, which tells the last step's and the background's apart later."""
    network = SegmentationNetwork(nn.Conv2d(3, 8, 1), GroupedHead(8, 4))
    base = resolve_config("shapes", "small", None, ["base.lr_factors={classifier: 10}"]).base
    rates = {id(p): group["lr_factor"] for group in make_optimizer(network, base).param_groups for p in group["params"]}
    assert {rates[id(p)] for p in network.head.parameters()} == {10.0}
    assert {rates[id(p)] for p in network.backbone.parameters()} == {1.0}


def test_parts_have_rates_and_decays_of_their_own_and_what_is_frozen_stays_bit_for_bit() -> None:
    batches = Batches()
    factors = ["incremental.lr_factors={backbone: 0, pyramid: 0.5, classifier: 0, new: 10}", "incremental.lr=0.01"]
    frozen = ["incremental.batchnorm=frozen", "incremental.weight_decays={new: 0}", "incremental.optimizer=sgd"]
    template = make("finetune", [batches], settings=[*OFFLINE, *factors, *frozen])
    template.begin(benchmark().train_stream[0])
    before = copy.deepcopy(template.network.state_dict())
    template.train(benchmark().train_stream[1], eval_streams=[])
    after = template.network.state_dict()
    pyramid, new = template.optimizer.param_groups
    assert batches.rates[0] == pytest.approx([0.005, 0.1])
    assert [pyramid["weight_decay"], new["weight_decay"]] == [0.01, 0]
    known = len(before["head.bias"])
    assert len(after["head.bias"]) == known + 1
    assert torch.equal(after["head.weight"][:known], before["head.weight"])
    moved = {name for name in before if not name.startswith("head") and not torch.equal(before[name], after[name])}
    assert moved == {
        *("backbone.near.0.weight", "backbone.wide.0.weight", "backbone.joined.0.weight"),
        *("backbone.pooled.weight", "backbone.pooled.bias"),
    }


def test_statistics_alone_are_frozen_where_that_is_asked_for() -> None:
    template = make("finetune", settings=[*OFFLINE, "incremental.batchnorm=statistics"])
    before = copy.deepcopy(template.network.state_dict())
    template.begin(benchmark().train_stream[0])
    template.train(benchmark().train_stream[1], eval_streams=[])
    after = template.network.state_dict()
    kept = [name for name in before if "running_" in name or "num_batches" in name]
    assert kept and all(torch.equal(before[name], after[name]) for name in kept)
    assert not torch.equal(before["backbone.near.1.weight"], after["backbone.near.1.weight"])


# ---------------------------------------------------------------------------------------- the best, and resuming


def test_the_weights_of_the_best_epoch_on_held_out_images_go_on() -> None:
    template = make("finetune", settings=[*OFFLINE, "incremental.epochs=4"])
    template.begin(benchmark().train_stream[0])
    states, told = [], iter([10.0, 30.0, 30.0, 20.0])

    def end_epoch() -> None:
        states.append(copy.deepcopy(template.network.state_dict()))
        template.keep_if_best(next(told))

    template.end_epoch = end_epoch
    template.train(benchmark().train_stream[1], eval_streams=[])
    assert equal(template.network.state_dict(), states[1]) and not equal(states[1], states[3])


SETTINGS = [*TINY, *OFFLINE, "incremental.epochs=3", "incremental.batch_size=8"]


BEST = ["incremental.weights=best", "evaluation.valid_fraction=0.2"]
IN_PARTS = ["incremental.weight_decays={new: 0.1}", "incremental.batchnorm=frozen", "data.void=negative"]


IN_PARTS_BEST = ("dkd-m(exemplars=9)", [*BEST, *IN_PARTS])
MAPS = ("ssul-m(saliency=spectral,exemplars=9)", [])


@pytest.mark.parametrize(("method", "more"), usual([IN_PARTS_BEST, MAPS], IN_PARTS_BEST))
def test_a_run_that_dies_within_a_step_ends_with_the_same_files(
    method: str, more: list[str], data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`dkd-m` has a memory, a head in parts, and copies of the auxiliary output in new ones."""
    monkeypatch.setattr(bench.train.offline, "CHECKPOINT_SECONDS", 0.0)
    settings = [*SETTINGS, *more]
    whole = undisturbed(data_root, tmp_path / "whole", method, assignments=settings)
    [job] = plan(data_root, tmp_path / "cut", method, assignments=settings).runs
    notes: list[str] = []
    for update in (2, job.units // 3, 2):
        with monkeypatch.context() as patch:
            _die_at_call(patch, strategies.learning.offline, "learning_rate", update)
            watcher = Watcher()
            with pytest.raises(Died):
                Work(job).execute(watcher)
            notes += watcher.notes
        torch.rand(3)
    notes += execute(job).notes
    assert any("goes on after epoch" in note and "of step 1" in note for note in notes), notes
    assert files(tmp_path / "cut") == whole


# ---------------------------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("assignments", "told"),
    [
        (["protocol=nightly"], "protocol='nightly': input should be 'online' or 'offline'"),
        (["incremental.epochs=3"], "incremental.epochs is a setting of protocol=offline, and the protocol is online"),
        (["memory.size=0"], "memory.size=0: the online protocol replays images"),
        (["protocol=offline", "incremental.weights=best"], "incremental.weights=best needs evaluation.valid_fraction"),
        (["protocol=offline", "incremental.lr_factors.neck=1"], "incremental.lr_factors.neck"),
        (["base.lr_factors={new: 2}"], "base.lr_factors.new: of increments alone"),
        (["base.weight_decays={background: 2}"], "base.weight_decays.background: of increments alone"),
        (["base.accumulate=9", "base.batch_size=8"], "base.accumulate=9: a batch has base.batch_size=8 images"),
        (
            ["protocol=offline", "incremental.accumulate=17"],
            "incremental.accumulate=17: a batch has incremental.batch_size=16 images",
        ),
        (["protocol=offline", "incremental.epoch=1"], "unknown setting incremental.epoch; did you mean"),
    ],
)
def test_what_does_not_go_together_is_told_in_one_line(assignments: list[str], told: str) -> None:
    with pytest.raises(RequestError) as error:
        resolve_config("shapes", "small", None, assignments)
    assert told in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("strategy", "seed", "settings", "file", "needs"),
    [
        ("finetune", 14, ["base.weights=best"], "", "0; base.weights=best"),
        ("finetune", 14, ["base.weights=best", "evaluation.images=all"], "", "0; base.weights=best"),
        ("finetune", 14, ["incremental.weights=best"], "", None),
        ("finetune", 0, ["incremental.weights=best"], "", "1; incremental.weights=best"),
        ("finetune", 0, [], "methods: {finetune: {incremental: {weights: best}}}", "1; incremental.weights=best"),
        ("joint", 0, ["base.weights=best"], "", None),
        ("joint(every_step=true)", 0, ["base.weights=best"], "", "0; base.weights=best"),
    ],
)
def test_the_best_weights_are_chosen_by_images_with_a_known_class(
    strategy: str, seed: int, settings: list[str], file: str, needs: str | None, tmp_path: Path
) -> None:
    """Held out is one image: by seed 14 it shows the class of step 1, by seed 0 that of step 3."""
    (tmp_path / "settings.yaml").write_text(file)
    held_out = ["evaluation.valid_fraction=0.0004", f"evaluation.valid_seed={seed}"]
    asked = ["protocol=offline", *held_out, *settings]
    given: dict[str, Any] = {"config": tmp_path / "settings.yaml", "assignments": asked, "device": "cpu"}
    request = Request(strategy, "shapes-1-1-overlapped", out=tmp_path, preset="small", **given)
    if needs is None:
        prepare(request, Console(quiet=True))
    else:
        with pytest.raises(RequestError, match=rf"holds out no image with a class known after step {needs} needs one$"):
            prepare(request, Console(quiet=True))


def test_a_method_that_is_online_alone_is_refused_offline(data_root: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"^strategy er is defined for protocol=online, not offline$"):
        plan(data_root, tmp_path, "er", assignments=[*TINY, "protocol=offline"])


def test_presets_hold_one_over_the_other_and_their_protocols_where_chosen() -> None:
    small, offline = resolve_config("shapes", "small"), resolve_config("shapes", "small", None, ["protocol=offline"])
    assert small.base == offline.base and offline.memory.size == 0
    assert isinstance(offline.incremental, OfflineProtocol)
    both = resolve_config("shapes", "paper,small", None, ["protocol=offline"])
    assert both == offline
