"""The base training: the values of its learning rate, and the updates in which they are used."""

from __future__ import annotations

import copy
import itertools
import json
from dataclasses import replace
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from toy import GROUPS, Toy, benchmark, equal, make, mean_nll

import bench.train.base
import bench.train.epochs
import bench.train.networks
from bench.plan.code import code_digest
from bench.plan.spec import base_inputs, digest
from bench.screen.events import Event
from bench.screen.stopping import Stopped
from bench.settings.merging import resolve_config
from bench.train.base import load_base, make_base, save_base
from bench.train.checkpoint import Checkpoint
from bench.train.distributed import Rank
from bench.train.epochs import EpochTraining, TrainingState, learning_rate, train_epochs
from bench.train.kept import base_checkpoint, base_model
from bench.train.networks import augmentation, new_network
from bench.train.seeds import derived_seed
from benchmarks.augmentation import Augmentation, ResizedCrop
from benchmarks.names import ScenarioName
from benchmarks.scenarios import compute_scenario
from strategies.ewc import Ewc
from strategies.learning.faults import NonFiniteLossError
from strategies.learning.losses import BASE_LOSSES, one_vs_rest
from strategies.learning.protocol import BaseRecipe
from strategies.networks.build import build_network
from strategies.networks.network import SegmentationNetwork
from strategies.networks.settings import OF_IMAGENET, NetworkSettings
from strategies.pi import Pi
from strategies.rw import Rw

WARM = {"base.lr": 0.8, "base.warmup_steps": 4, "base.poly_power": 2}


QUICK = {"base.epochs": 2, "base.batch_size": 4}
"""Of the ten images of the toy's step 1: batches of 4, 4, 2, six updates in all."""


def config(**settings: Any) -> Any:
    return resolve_config("shapes", None, None, [f"{key}={value}" for key, value in settings.items()])


def trained(
    folder: Path, settings: Any, recipe: BaseRecipe | None = None, seed: int = 0, events: list[Event] | None = None
) -> TrainingState:
    data, heard = benchmark().train_stream[1].data, [] if events is None else events
    assert len(data) == 10
    checkpoint = Checkpoint(folder / "training.ckpt", {})
    cpu = torch.device("cpu")
    task = EpochTraining(data, 4, settings, recipe or BaseRecipe(), seed, "base", checkpoint)
    return train_epochs(task, cpu, heard.append)


# --------------------------------------------------------------------------------------- the learning rate


@pytest.mark.parametrize(
    ("iteration", "rate"),
    [
        (0, 0.2),  # 0.8 * 1/4 * (10/10)^2
        (2, 0.384),  # 0.8 * 3/4 * (8/10)^2
        (3, 0.392),  # 0.8 * (7/10)^2: warm-up's end
        (4, 0.288),  # 0.8 * (6/10)^2
        (5, 0.2),  # 0.8 * (5/10)^2: the middle
        (9, 0.008),  # 0.8 * (1/10)^2: the last of ten
    ],
)
def test_the_learning_rate_warms_up_and_decays_by_a_power_of_what_is_left(iteration: int, rate: float) -> None:
    assert learning_rate(config(**WARM).base, iteration, 10) == pytest.approx(rate, rel=1e-12)


def test_without_warm_up_the_learning_rate_begins_at_its_full_value() -> None:
    cold = config(**{**WARM, "base.warmup_steps": 0})
    assert [learning_rate(cold.base, i, 10) for i in (0, 1, 9)] == pytest.approx([0.8, 0.648, 0.008], rel=1e-12)


def test_the_paper_decays_from_its_rate_by_the_power_09() -> None:
    paper = resolve_config("voc", "paper", None, [])
    half = paper.base.lr * 0.5358867312681466  # 2 ** -0.9
    assert learning_rate(paper.base, 0, 1000) == paper.base.lr
    assert learning_rate(paper.base, 500, 1000) == pytest.approx(half, rel=1e-12)


def test_the_updates_of_all_epochs_follow_one_schedule(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    rates: list[float] = []
    made = bench.train.epochs.make_optimizer

    def watched(*args: Any) -> torch.optim.Optimizer:
        optimizer = made(*args)
        optimizer.register_step_pre_hook(lambda *_: rates.append(optimizer.param_groups[0]["lr"]))
        return optimizer

    monkeypatch.setattr(bench.train.epochs, "make_optimizer", watched)
    trained(tmp_path, config(**{**WARM, **QUICK, "base.warmup_steps": 2}))
    by_hand = [0.8 * share for share in (1 / 2, 25 / 36, 16 / 36, 9 / 36, 4 / 36, 1 / 36)]
    assert rates == pytest.approx(by_hand, rel=1e-12)


@pytest.mark.parametrize(("images", "epochs", "updates"), [(33, 34, 102), (48, 34, 102), (1584, 2, 198), (1, 100, 100)])
def test_on_few_images_epochs_are_added_until_there_are_enough_updates(images: int, epochs: int, updates: int) -> None:
    few = config(**{"base.epochs": 2, "base.batch_size": 16, "base.min_updates": 100})
    assert (few.base.epochs_over(images), few.base.updates_over(images)) == (epochs, updates)


def test_the_schedule_goes_over_the_added_epochs_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    rates: list[float] = []
    rate_of = bench.train.epochs.learning_rate
    monkeypatch.setattr(bench.train.epochs, "learning_rate", lambda *given: rates.append(rate_of(*given)) or rates[-1])
    longer = {"base.min_updates": 7, "base.lr": 0.9, "base.poly_power": 1, "base.warmup_steps": 0}
    trained(tmp_path, config(**{**QUICK, **longer}))
    assert rates == pytest.approx([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1])  # three epochs of three


# --------------------------------------------------------------------------------------- the updates


def by_hand(recipe: BaseRecipe, optimizer: Any, loss_of: Any, seed: int) -> SegmentationNetwork:
    """METHODS, Protocol: two epochs over all images in random order, the rates 0.02 (1 - i / 6)."""
    torch.manual_seed(derived_seed("base", seed, "initialisation"))
    network = build_network("small", 4, recipe.head, recipe.tau).train()
    network.to(memory_format=torch.channels_last)
    steps, data = optimizer(network.parameters()), benchmark().train_stream[1].data
    for epoch in range(2):
        order = np.random.default_rng([derived_seed("base", seed, "order"), epoch]).permutation(10)
        key = (derived_seed("base", seed, "augmentation"), epoch)
        batches = data.batches(4, order.tolist(), Augmentation((0.5, 2.0), 16, True, OF_IMAGENET.mean), key)
        for i, (images, labels, _, _) in enumerate(batches, 3 * epoch):
            steps.param_groups[0]["lr"] = 0.02 * (1 - i / 6)
            steps.zero_grad()
            loss_of(network(images), labels).backward()
            steps.step()
    return network


@pytest.mark.parametrize(
    ("name", "optimizer", "recipe", "loss_of"),
    [
        (
            "sgd",
            lambda of: torch.optim.SGD(of, 1.0, momentum=0.8, weight_decay=0.1),
            BaseRecipe(),
            mean_nll,
        ),
        (
            "adamw",
            lambda of: torch.optim.AdamW(of, 1.0, weight_decay=0.1),
            BaseRecipe("cosine", "sigmoid-bce", 5.0),
            one_vs_rest,
        ),
    ],
)
def test_a_base_training_ends_with_the_weights_of_the_updates_written_out(
    name: str, optimizer: Any, recipe: BaseRecipe, loss_of: Any, tmp_path: Path
) -> None:
    settings = {"base.optimizer": name, "base.lr": 0.02, "base.momentum": 0.8, "base.weight_decay": 0.1}
    settings |= {"base.warmup_steps": 0, "base.poly_power": 1, "data.scale": [0.5, 2.0], "data.crop": 16, **QUICK}
    training = trained(tmp_path, config(**settings), recipe, seed=3)
    expected = by_hand(recipe, optimizer, loss_of, seed=3).state_dict()
    found = training.network.state_dict()
    assert found.keys() == expected.keys()
    for key in expected:
        torch.testing.assert_close(found[key], expected[key], rtol=1e-4, atol=1e-5)
    assert not any(module.training for module in training.network.modules())
    assert training.epochs == 2 and training.seconds > 0


# --------------------------------------------------------------------------------------- told, kept, gone on with


class Alone(Rank):
    """One rank of several, whose others have nothing to say."""

    def synchronise(self, network: SegmentationNetwork) -> None:
        SYNCHRONISED.append(network)

    def parallel(self, network: SegmentationNetwork) -> Any:
        return network

    def of_whole_batch(self, loss: torch.Tensor, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        assert (pixels.dtype, pixels.dim()) == (torch.int64, 0) and pixels > 0
        return loss, loss + 1000

    def agreed(self, wish: bool) -> bool:
        return wish


PRETRAINED = {"network.name": "deeplabv3-resnet101", "network.weights": "IMAGENET1K_V1"}
SYNCHRONISED: list[SegmentationNetwork] = []
CPU = torch.device("cpu")


@pytest.fixture
def always_due(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Every event and every checkpoint is due; the intervals that were asked for."""
    intervals: list[float] = []

    class Due:
        def __init__(self, interval: float = 0.2) -> None:
            intervals.append(interval)

        def due(self) -> bool:
            return True

    monkeypatch.setattr(bench.train.epochs, "Throttle", Due)
    return intervals


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Whether each network was asked for with ImageNet's weights; none gets them."""
    asked: list[Any] = []

    def watched(settings: Any, recipe: BaseRecipe, classes: int, pretrained: Any) -> SegmentationNetwork:
        asked.append(pretrained)
        return new_network(config(), recipe, classes, False)

    monkeypatch.setattr(bench.train.epochs, "new_network", watched)
    return asked


def task(folder: Path, settings: Any) -> EpochTraining:
    data = benchmark().train_stream[1].data
    return EpochTraining(data, 4, settings, BaseRecipe(), 0, "base", Checkpoint(folder / "training.ckpt", {"of": "it"}))


def same_weights(one: TrainingState, other: TrainingState) -> bool:
    pairs = zip(one.network.state_dict().values(), other.network.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_each_update_is_told_by_epoch_and_by_number_of_all(always_due: list[float], tmp_path: Path) -> None:
    events: list[Event] = []
    trained(tmp_path, config(**QUICK), events=events)
    told = [(event.job, event.phase, event.done, event.total) for event in events]
    epochs = ["epoch 1/2"] * 3 + ["epoch 2/2"] * 3
    assert told == [("base", phase, done, 6) for done, phase in enumerate(epochs, 1)]
    assert all(event.loss is not None and 0 < event.loss < 10 for event in events)
    assert always_due == [0.2, 30.0]


def test_what_is_told_is_the_loss_of_the_whole_batch(always_due: list[float], tmp_path: Path) -> None:
    events: list[Event] = []
    task(tmp_path, config(**QUICK)).train(Alone(CPU, 0, 2), events.append)
    assert len(events) == 6
    assert all(event.loss is not None and event.loss > 1000 for event in events)


def test_a_training_that_is_stopped_after_each_epoch_ends_as_one_that_is_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings = config(**{**QUICK, "base.epochs": 3})
    whole = trained(tmp_path / "whole", settings)
    first = Checkpoint(tmp_path / "whole" / "training.ckpt", {}).read()
    assert first["epochs"] == 1  # the next is due in half a minute
    with monkeypatch.context() as patch:
        patch.setattr(bench.train.epochs, "stop_asked", lambda: True)
        for _ in range(2):
            with pytest.raises(Stopped):
                trained(tmp_path / "cut", settings)
    kept = Checkpoint(tmp_path / "cut" / "training.ckpt", {}).read()
    events: list[Event] = []
    end = trained(tmp_path / "cut", settings, events=events)
    assert [(e.job, e.phase, e.done, e.total, e.note) for e in events if e.note] == [
        ("base", "training", 0, 9, "goes on after epoch 2")
    ]
    assert same_weights(end, whole)
    assert (kept["epochs"], end.epochs) == (2, 3)
    assert 0 < kept["seconds"] < end.seconds < kept["seconds"] + 600


def test_a_training_that_is_asked_to_stop_in_its_last_epoch_ends(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(bench.train.epochs, "stop_asked", lambda: True)
    assert trained(tmp_path, config(**{**QUICK, "base.epochs": 1})).epochs == 1


def test_a_state_that_is_taken_over_has_optimiser_and_generator_too(tmp_path: Path) -> None:
    ended = trained(tmp_path, config(**QUICK))
    state = ended.state_dict()
    assert set(state) == {"network", "optimizer", "generators", "epochs", "seconds", "best", "measures"}
    drawn = torch.rand(3)
    fresh = task(tmp_path, config(**QUICK)).started(Rank(CPU), pretrained=False)
    assert (fresh.epochs, fresh.seconds) == (0, 0.0)
    torch.manual_seed(99)
    fresh.load_state_dict(state)
    assert torch.equal(torch.rand(3), drawn)
    assert same_weights(fresh, ended)
    assert (fresh.epochs, fresh.seconds) == (2, ended.seconds)
    moments = [
        [part for of in each.optimizer.state_dict()["state"].values() for part in of.values()]
        for each in (fresh, ended)
    ]
    assert moments[0]
    assert all(torch.equal(a, b) for a, b in zip(*moments, strict=True))


def test_a_damaged_checkpoint_is_told_and_the_training_starts_again(built: list[Any], tmp_path: Path) -> None:
    settings = config(**QUICK, **PRETRAINED)
    whole = trained(tmp_path / "whole", settings)
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / "training.ckpt").write_text("no checkpoint\n")
    events: list[Event] = []
    again = trained(tmp_path / "cut", settings, events=events)
    (note,) = [event.note for event in events if event.note]
    assert note.startswith(f"{tmp_path / 'cut' / 'training.ckpt'}: ") and note.endswith("; trained from the start")
    assert same_weights(again, whole)
    assert built == [True, True, True]


def test_a_training_on_one_device_draws_on_from_its_initialisation(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seeds: list[int] = []
    real = torch.manual_seed
    monkeypatch.setattr(torch, "manual_seed", lambda seed: seeds.append(seed) or real(seed))
    trained(tmp_path, config(**QUICK))
    assert seeds == [derived_seed("base", 0, "initialisation")]


@pytest.mark.parametrize(("update", "batch", "places"), [(5, 2, slice(4, 8)), (6, 3, slice(8, 10))])
def test_a_loss_that_is_not_finite_is_told_with_its_epoch_its_batch_and_the_images(
    update: int, batch: int, places: slice, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Of epoch 2; the look at an update's loss comes with the next update, or at the epoch's end."""
    made = itertools.count(1)

    def loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return mean_nll(logits, labels) * (float("nan") if next(made) == update else 1.0)

    monkeypatch.setitem(BASE_LOSSES, "cross-entropy", loss)
    with pytest.raises(NonFiniteLossError) as raised:
        trained(tmp_path, config(**QUICK))
    order = np.random.default_rng([derived_seed("base", 0, "order"), 1]).permutation(10)[places]
    names = ", ".join(benchmark().train_stream[1].data.ids[place] for place in order)
    assert str(raised.value).startswith(f"epoch 2, batch {batch} of 3: the loss is nan")
    assert str(raised.value).endswith(f"; incoming images {names}")


@pytest.mark.parametrize("number", [0, 1])
def test_a_rank_draws_by_its_number_and_the_first_one_leaves_the_end(
    number: int, built: list[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seeds: list[int] = []
    real = torch.manual_seed
    monkeypatch.setattr(torch, "manual_seed", lambda seed: seeds.append(seed) or real(seed))
    SYNCHRONISED.clear()
    own = task(tmp_path, config(**QUICK, **PRETRAINED))
    training = own.train(Alone(CPU, number, 2), lambda event: None)
    dropout = [derived_seed("base", 0, "dropout", epoch, number) for epoch in range(2)]
    assert seeds == [derived_seed("base", 0, "initialisation"), *dropout]
    assert built == [number == 0]
    assert [training.network] == SYNCHRONISED
    assert own.checkpoint.path.exists() == (number == 0)
    if number == 0:
        assert own.checkpoint.read()["epochs"] == 2


def test_a_rank_takes_its_share_of_every_batch(tmp_path: Path) -> None:
    """Batches of 4, 4 and 2 images: of two ranks each takes every second image."""
    own = task(tmp_path, config(**QUICK))
    whole = [list(batches) for batches in own.passes(Rank(CPU))]
    assert [[len(labels) for _, labels in batches] for batches in whole] == [[4, 4, 2]] * 2
    for number in (0, 1):
        shares = [list(batches) for batches in own.passes(Alone(CPU, number, 2))]
        for (images, labels), share in zip(chain(*whole), chain(*shares), strict=True):
            assert torch.equal(images[number::2], share[0]) and torch.equal(labels[number::2], share[1])


def test_a_training_of_several_ranks_is_read_back_from_what_the_first_one_leaves(
    built: list[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[Any] = []
    ended: list[TrainingState] = []

    def ranks(work: Any, *rest: Any) -> None:
        asked.append(rest)
        ended.append(work(Alone(CPU, 0, 2), rest[-1]))

    monkeypatch.setattr(bench.train.epochs, "run_ranks", ranks)
    settings, events = config(**QUICK, **PRETRAINED, **{"base.devices": 2}), list[Event]()
    training = train_epochs(task(tmp_path, settings), CPU, events.append)
    ((size, kind, runtime, report),) = asked
    assert (size, kind, runtime, report) == (2, "cpu", settings.runtime, events.append)
    assert same_weights(training, ended[0])
    assert training.epochs == 2
    assert not training.network.training
    assert built == [True, False]


# --------------------------------------------------------------------------------------- base models in the cache


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


INPUTS = {"network": {"name": "small"}, "device": "cpu", "protocol": {"devices": 1}}


def test_a_base_model_and_its_training_lie_under_its_hash(cache: Path) -> None:
    kept, training = base_model("abc"), base_checkpoint("abc")
    assert (kept.path, kept.owner) == (cache / "bases" / "abc.base", {"base": "abc"})
    assert (training.path, training.owner) == (cache / "bases" / "abc.ckpt", {"base": "abc", "code": code_digest()})


def test_a_base_model_is_trained_on_the_first_step_and_kept_with_its_inputs_and_times(
    cache: Path, always_due: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[TrainingState] = []
    monkeypatch.setattr(bench.train.base, "train_epochs", lambda *of: ended.append(train_epochs(*of)) or ended[0])
    job: Any = SimpleNamespace(
        base={"hash": "abc", "inputs": INPUTS}, config=config(**QUICK), recipe=BaseRecipe(), seed=0, key="the base"
    )
    job.units, job.device = 5, "cpu"
    events: list[Event] = []
    lay_there: list[bool] = []

    def report(event: Event) -> None:
        events.append(event)
        lay_there.append((cache / "bases" / "abc.ckpt").exists())

    make_base(job, benchmark(), report)
    assert not lay_there[0] and lay_there[-1]
    data = benchmark().train_stream[0].data
    expected = train_epochs(
        EpochTraining(data, 3, job.config, job.recipe, 0, "", Checkpoint(cache / "other.ckpt", {})), CPU, events.append
    )
    assert {event.job for event in events} == {"the base", ""}
    state = base_model("abc").read()
    assert set(state) == {"inputs", "code", "network", "importance"}
    assert (state["inputs"], state["code"]) == (INPUTS, code_digest())
    assert all(torch.equal(state["network"][key], value) for key, value in expected.network.state_dict().items())
    told = json.loads((cache / "bases" / "abc.json").read_text())
    assert {key: told[key] for key in ("network", "device", "devices")} == {
        "network": "small",
        "device": "cpu",
        "devices": 1,
    }
    assert told["seconds_per_update"] == pytest.approx(ended[0].seconds / 5)
    assert not (cache / "bases" / "abc.ckpt").exists()


def test_a_kept_base_model_is_loaded_ready_to_be_evaluated_and_the_log_tells_whose_code_made_it(
    cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept, network = build_network("small", 3), build_network("small", 3)
    save_base(kept, {"hash": "abcdefabcdef0123", "inputs": INPUTS}, 0.25)
    with caplog.at_level("INFO", logger="bench"):
        load_base("abcdefabcdef0123", network.train())
    assert caplog.messages == [f"base model abcdefabcdef, trained by code {code_digest()}"]
    assert all(torch.equal(a, b) for a, b in zip(kept.parameters(), network.parameters(), strict=True))
    assert not network.training
    with pytest.raises(RuntimeError, match=r"abc\.base: .*; the same command trains the base model again$"):
        load_base("abc", network)


# --------------------------------------------------------------------------------------- what settings make


def test_images_that_are_augmented_otherwise_and_void_that_trains_make_another_base_model() -> None:
    scenario = compute_scenario(ScenarioName("toy", "3+1+2", "overlapped"), Toy(), GROUPS)

    def inputs(**settings: Any) -> dict[str, Any]:
        return base_inputs(scenario, config(**settings), BaseRecipe(), 0, "cpu")

    usual = {"augmentation": "scale_crop", "area": [0.5, 2.0], "void": "ignore", "jpeg_draft": False}
    assert inputs() == inputs(**{f"data.{key}": value for key, value in usual.items()})
    assert list(inputs()["preparation"]) == ["size", "scale", "crop", "flip"]  # as before there were these settings
    boxes = [{"augmentation": "resized_crop", **of} for of in ({}, {"area": [0.5, 1.0]}, {"aspect": [0.5, 2.0]})]
    others = [*boxes, {"padding": "around"}, {"fill": "background"}, {"fill_colour": "black"}]
    others += [{"void": "background"}, {"void": "negative"}, {"jpeg_draft": True}]
    made = [inputs(**{f"data.{key}": value for key, value in other.items()}) for other in ({}, *others)]
    assert len({digest(each) for each in made}) == 10


def test_networks_and_augmentation_are_those_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = config(**{"data.scale": [0.5, 2.0], "data.crop": 16, "data.flip": False, "runtime.precision": "bf16"})
    assert augmentation(settings) == Augmentation((0.5, 2.0), 16, False, OF_IMAGENET.mean)
    ssuls = {"data.padding": "around", "data.fill": "background", "data.fill_colour": "black"}
    assert augmentation(config(**ssuls)) == Augmentation(outside=(0.0, 0.0, 0.0), fill=0, around=True)
    mibs = {"data.augmentation": "resized_crop", "data.crop": 16}
    assert augmentation(config(**mibs)) == ResizedCrop((0.5, 2.0), (3 / 4, 4 / 3), 16, True)
    other = {"data.area": [0.25, 1.0], "data.aspect": [1.0, 1.5], "data.flip": False}
    assert augmentation(config(**mibs, **other)) == ResizedCrop((0.25, 1.0), (1.0, 1.5), 16, False)
    asked: list[tuple[Any, ...]] = []

    def building(*args: Any) -> SegmentationNetwork:
        asked.append(args)
        return build_network("small", 2)

    monkeypatch.setattr(bench.train.networks, "build_network", building)
    network = new_network(settings, BaseRecipe("cosine", "cross-entropy", 3.0), 7, True)
    assert asked == [(NetworkSettings("small", "none"), 7, "cosine", 3.0, True)]
    assert network.precision == "bf16"
    weight = network.backbone.blocks[0].first[0].weight
    assert weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous()


def test_the_weights_of_the_epoch_that_is_best_on_held_out_images_are_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    told, states = iter([10.0, 30.0, 20.0]), []

    def measured(predict: Any, outputs: int, data: Any, *sizes: int) -> float:
        assert data is benchmark().valid_stream[1].data and outputs == 5
        states.append(0)
        return next(told)

    monkeypatch.setattr(bench.train.epochs, "held_out_miou", measured)
    longer = config(**{**QUICK, "base.epochs": 3, "base.weights": "best", "evaluation.valid_fraction": 0.1})
    data, held_out = benchmark().train_stream[1].data, benchmark().valid_stream[1].data
    recipe = BaseRecipe(importance=True)
    task = EpochTraining(data, 4, longer, recipe, 0, "base", Checkpoint(tmp_path / "a.ckpt", {}), held_out)
    best = train_epochs(task, torch.device("cpu"), lambda event: None)
    assert best.best is not None and best.best["miou"] == 30.0 and len(states) == 3
    assert equal(best.network.state_dict(), best.best["network"])
    whole = replace(task, config=config(**{**QUICK, "base.epochs": 3}), checkpoint=Checkpoint(tmp_path / "b.ckpt", {}))
    last = train_epochs(whole, torch.device("cpu"), lambda event: None)
    assert best.measures is not None and last.measures is not None
    assert not equal(best.network.state_dict(), last.network.state_dict())
    for name, kinds in last.measures.found().items():
        assert all(equal(best.measures.found()[name][kind], tensors) for kind, tensors in kinds.items())


def test_a_base_training_that_measures_importance_trains_the_same_and_measures_each_update(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made, gradients = bench.train.epochs.make_optimizer, []

    def watched(network: SegmentationNetwork, *rest: Any) -> torch.optim.Optimizer:
        optimizer = made(network, *rest)
        weight = network.head.weight
        optimizer.register_step_pre_hook(lambda *_: gradients.append(weight.grad.double().clone()))
        return optimizer

    monkeypatch.setattr(bench.train.epochs, "make_optimizer", watched)
    measured = trained(tmp_path / "measured", config(**QUICK), BaseRecipe(importance=True))
    plain = trained(tmp_path / "plain", config(**QUICK))
    assert plain.measures is None and equal(plain.network.state_dict(), measured.network.state_dict())
    fisher = torch.ones_like(gradients[0])
    for gradient in gradients[: len(gradients) // 2]:
        fisher = 0.9 * gradient**2 + 0.1 * fisher
    assert measured.measures is not None
    found = measured.measures.found()
    torch.testing.assert_close(found["rw"]["fisher"]["head.weight.0"].double(), fisher, rtol=1e-5, atol=1e-12)
    assert set(found["rw"]) == {"fisher", "score"} and set(found["pi"]) == {"score"}
    assert found["pi"]["score"]["head.weight.0"].max() > 0


def test_what_a_base_training_measured_is_what_the_first_increment_holds_on_to(tmp_path: Path) -> None:
    ended = trained(tmp_path, config(**QUICK), BaseRecipe(importance=True))
    assert ended.measures is not None
    save_base(ended.network, {"hash": "abcdefabcdef0123", "inputs": INPUTS}, 0.25, ended.measures.found())
    for kind in (Ewc, Pi, Rw):
        template = make(kind, settings=["protocol=offline", "memory.size=0"])
        template.network.grow(1)
        template.network.load_state_dict(ended.network.state_dict())
        template.method.begin_from(load_base("abcdefabcdef0123", copy.deepcopy(ended.network)))
        template.method.grow(template, 1)
        omega = template.method.omega["backbone.near.1.weight"]
        assert 0 <= omega.min() < omega.max() <= 2


@pytest.mark.filterwarnings("ignore:for .*copying from a non-meta parameter")
def test_what_a_base_training_measured_is_loaded_to_the_networks_device(tmp_path: Path) -> None:
    ended = trained(tmp_path, config(**QUICK), BaseRecipe(importance=True))
    assert ended.measures is not None
    save_base(ended.network, {"hash": "abcdefabcdef0123", "inputs": INPUTS}, 0.25, ended.measures.found())
    found = load_base("abcdefabcdef0123", copy.deepcopy(ended.network).to("meta"))
    assert {tensor.device.type for kinds in found.values() for of in kinds.values() for tensor in of.values()} == {
        "meta"
    }


def test_a_measured_training_that_is_stopped_ends_with_the_same_measures(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings, measured = config(**{**QUICK, "base.epochs": 3}), BaseRecipe(importance=True)
    whole = trained(tmp_path / "whole", settings, measured)
    with monkeypatch.context() as patch:
        patch.setattr(bench.train.epochs, "stop_asked", lambda: True)
        with pytest.raises(Stopped):
            trained(tmp_path / "cut", settings, measured)
    end = trained(tmp_path / "cut", settings, measured)
    assert whole.measures is not None and end.measures is not None
    expected, found = whole.measures.found(), end.measures.found()
    assert all(equal(found[name][kind], tensors) for name in expected for kind, tensors in expected[name].items())
