"""A loss that is not finite stops a training at once, with a line that names its batch and how to meet it again."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from avalanche.core import SupervisedPlugin
from PIL import Image
from rich.console import Console
from torch import Tensor, nn
from toy import BATCHES, TRAIN, Onlooker, arrivals, make, train

import bench.train.base
import bench.train.epochs
import bench.train.networks
from bench.launch.session import prepare, run
from bench.plan.job import BaseJob, RunJob
from bench.plan.request import Request
from bench.screen.events import Event
from bench.train.kept import base_checkpoint, base_model, run_checkpoints
from bench.train.seeds import derived_seed
from bench.train.work import Work
from strategies.er import Er
from strategies.learning.faults import NonFiniteLossError
from strategies.learning.guard import LossGuard, all_finite
from strategies.learning.registry import STRATEGIES, method_class
from strategies.learning.template import OnlineTemplate

ONLINE = [name for name in STRATEGIES.entry_points() if "online" in method_class(name).protocols]
HUGE = 1e30
"""A learning rate at which the weights of the second update give no number."""

# --------------------------------------------------------------------------------------------------- the look itself


def test_a_loss_is_looked_at_once_the_next_update_is_under_way() -> None:
    guard = LossGuard(nn.Linear(1, 1))
    guard.follow(torch.tensor([torch.nan]), "batch 1", lambda: "images a")
    with pytest.raises(NonFiniteLossError, match=r"^batch 1: the loss is nan; images a$"):
        guard.follow(torch.tensor(-torch.inf), "batch 2", lambda: "images b")
    guard.settle()


@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan])
def test_the_last_loss_is_looked_at_in_the_end(value: float) -> None:
    guard = LossGuard(nn.Linear(1, 1))
    guard.follow(torch.tensor(1.0), "batch 1", str)
    guard.follow(torch.tensor([value]), "batch 2", lambda: "images b")
    with pytest.raises(NonFiniteLossError, match=rf"^batch 2: the loss is {value}; images b$"):
        guard.finish()


class OnGpu:
    """A loss on a GPU: the copy that it gives has no value before the event that follows it has happened."""

    is_cuda = True
    device = torch.device("cuda", 1)

    def __init__(self, value: float, patch: pytest.MonkeyPatch) -> None:
        self.value, self.copy = value, torch.tensor(-1.0)
        patch.setattr(torch.cuda, "current_stream", lambda device: {self.device: self}[device])

    def detach(self) -> "OnGpu":
        return self

    def to(self, device: str, non_blocking: bool) -> Tensor:
        assert device == "cpu" and non_blocking, "the GPU is not to be waited for"
        return self.copy

    def record_event(self) -> "OnGpu":
        return self

    def synchronize(self) -> None:
        self.copy.fill_(self.value)


@pytest.mark.parametrize("value", [2.0, torch.inf])
def test_a_gpus_loss_is_read_when_its_copy_is_there(value: float, monkeypatch: pytest.MonkeyPatch) -> None:
    guard, loss = LossGuard(nn.Linear(1, 1)), OnGpu(value, monkeypatch)
    guard.follow(loss, "batch 1", lambda: "images a")
    assert loss.copy.item() == -1  # nobody has waited
    if value == 2.0:
        guard.settle()
    else:
        with pytest.raises(NonFiniteLossError, match=r"^batch 1: the loss is inf; images a$"):
            guard.settle()
    assert loss.copy.item() == value


@pytest.mark.parametrize("part", ["weight", "running_var"])
def test_weights_that_the_last_update_blew_up_are_told(part: str) -> None:
    network = nn.BatchNorm2d(2)
    guard = LossGuard(network)
    guard.follow(torch.tensor(3.5), "batch 9", lambda: "images a, b")
    network.state_dict()[part][1] = torch.inf
    with pytest.raises(NonFiniteLossError) as caught:
        guard.finish()
    assert str(caught.value) == "batch 9: the loss is 3.5 and the weights after its update are not finite; images a, b"


@pytest.mark.parametrize(
    ("values", "finite"),
    [
        ([1.0, -2.0], True),
        ([3e38, 3e38], True),  # their sum is not
        ([1.0, torch.nan], False),
        ([torch.inf, -torch.inf], False),
        ([1.0, -torch.inf], False),
        ([], True),
    ],
)
def test_all_values_are_looked_at_where_their_sum_does_not_tell(values: list[float], finite: bool) -> None:
    assert all_finite(torch.tensor(values)) is finite


# ------------------------------------------------------------------------------------------------------ online


def incoming(step: int, batch: int) -> list[str]:
    """The images of a batch of the toy's stream: those of its step, permuted by the seed of (scenario, seed, step)."""
    ids = [f"train-{i}" for i in range(len(TRAIN)) if f"train-{i}" in arrivals(step)]
    seed = derived_seed("toy-3-1-overlapped", 0, "order")
    order = np.random.default_rng([seed, step]).permutation(len(ids))
    return [ids[i] for i in order[4 * (batch - 1) : 4 * batch]]


def told(step: int, batch: int, loss: float, memory: list[str]) -> str:
    where = f"step {step}, batch {batch} of {BATCHES[step - 1]}: the loss is {loss}"
    replayed = f"memory images {', '.join(memory)}" if memory else "no memory images"
    return f"{where}; incoming images {', '.join(incoming(step, batch))}; {replayed}"


@pytest.mark.parametrize("name", ONLINE)
def test_too_large_a_learning_rate_stops_every_method_at_the_first_batch_whose_loss_is_no_number(name: str) -> None:
    onlooker = Onlooker()
    with pytest.raises(NonFiniteLossError) as caught:
        train(make(name, [onlooker], settings=[f"incremental.lr={HUGE}"]))
    losses = [i.loss for i in onlooker.iterations]
    first = next(n for n, loss in enumerate(losses) if not np.isfinite(loss))
    assert len(losses) <= first + 2
    assert first > 0
    seen = onlooker.iterations[first]
    assert str(caught.value) == told(1, 1 + first, losses[first], seen.replayed)
    assert bool(seen.replayed) == (name not in ("finetune", "agem"))


class Hooks(SupervisedPlugin):
    """Writes down what came after the updates of each step."""

    def __init__(self) -> None:
        super().__init__()
        self.called: list[tuple[str, int]] = []

    def after_training_epoch(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        self.called.append(("epoch", strategy.experience.data.step))

    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        self.called.append(("step", strategy.experience.data.step))


class Stumbling(Er):
    """er whose loss is NaN at one batch."""

    at: tuple[int, int]

    def loss(self, strategy: OnlineTemplate) -> Tensor:
        here = strategy.experience.data.step, strategy.clock.train_exp_iterations + 1
        return super().loss(strategy) * (torch.nan if here == self.at else 1.0)


@pytest.mark.parametrize("at", [(1, 1), (1, 3), (2, 2), (2, 3)])
def test_the_batch_named_is_the_one_whose_loss_is_nan(at: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Stumbling, "at", at, raising=False)
    onlooker, hooks = Onlooker(), Hooks()
    with pytest.raises(NonFiniteLossError) as caught:
        train(make(Stumbling, [onlooker, hooks]))
    step, batch = at
    seen = onlooker.iterations[sum(BATCHES[: step - 1]) + batch - 1]
    assert str(caught.value) == told(step, batch, torch.nan, seen.replayed)
    assert hooks.called == [(what, t) for t in range(1, step) for what in ("epoch", "step")]


class Exploding(Er):
    """er whose last gradient of step 1 is infinite while its loss is finite."""

    def after_backward(self, strategy: OnlineTemplate, *args: Any, **kwargs: Any) -> None:
        if strategy.clock.train_exp_iterations + 1 == BATCHES[0]:
            next(p.grad for p in strategy.network.parameters() if p.grad is not None).fill_(torch.inf)


def test_a_step_whose_last_update_leaves_no_numbers_is_not_evaluated() -> None:
    hooks = Hooks()
    with pytest.raises(NonFiniteLossError, match="and the weights after its update are not finite; incoming") as caught:
        train(make(Exploding, [hooks]))
    assert str(caught.value).startswith("step 1, batch 3 of 3: the loss is ")
    assert not hooks.called


class OneByOne(Stumbling):
    """One that loads its memory images one after the other and joins them the other way round."""

    at = (2, 1)

    def before_training_iteration(self, strategy: OnlineTemplate, *args: Any, **kwargs: Any) -> None:
        for one in [strategy.load([e]) for e in self.draw(len(strategy.mb_x))][::-1]:
            strategy.join(one)


def test_memory_images_keep_their_ids_in_whatever_order_they_are_joined() -> None:
    onlooker = Onlooker()
    with pytest.raises(NonFiniteLossError) as caught:
        train(make(OneByOne, [onlooker]))
    seen = onlooker.iterations[BATCHES[0]]
    assert len(set(seen.replayed)) == 4
    assert str(caught.value) == told(2, 1, torch.nan, seen.replayed)


class OwnBatches(Er):
    """er that joins images of which the template cannot know the ids."""

    def before_training_iteration(self, strategy: OnlineTemplate, *args: Any, **kwargs: Any) -> None:
        images, labels, steps, indices = strategy.mbatch
        strategy.join([images[:1].clone(), labels[:1], steps[:1], torch.full_like(indices[:1], -1)])


def test_images_that_the_template_has_not_loaded_have_no_known_id() -> None:
    with pytest.raises(NonFiniteLossError, match=r"; memory images unknown$"):
        train(make(OwnBatches, settings=[f"incremental.lr={HUGE}"]))


# ------------------------------------------------------------------------------------------------ runs and base models

SCENARIO = "voc-10-5-overlapped"
TINY = ("data.size=16", "base.epochs=3", "base.batch_size=8", "memory.size=8", "evaluation.pictures=2")


def request(data_root: Path, out: Path, strategy: str, *settings: str) -> Request:
    return Request(strategy, SCENARIO, data_root, preset="small", assignments=[*TINY, *settings], out=out, jobs=1)


def failure(job: RunJob | BaseJob) -> tuple[str, list[str]]:
    """What a job fails with, and its notes."""
    notes: list[str] = []

    def report(event: Event) -> None:
        notes.extend([event.note] if event.note else [])

    with pytest.raises(NonFiniteLossError) as caught:
        Work(job).execute(report)
    return str(caught.value), notes


@pytest.mark.parametrize("strategy", ["er", "ours"])
def test_a_run_records_nothing_of_it_and_meets_it_again(strategy: str, data_root: Path, tmp_path: Path) -> None:
    asked = request(data_root, tmp_path / "an out", strategy, f"incremental.lr={HUGE}")
    result = run(asked, Console(quiet=True))
    [job] = prepare(asked, Console(quiet=True)).runs
    line = result.failures[job.key]
    assert (job.folder / "error.txt").read_text() == line
    assert line.startswith("step 1, batch 2 of ")
    assert line.endswith(f"; `bench run-one '{job.folder}'` meets the same batch again")
    assert "\n" not in line
    assert f"ended by NonFiniteLossError: {line}" in (job.folder / "log.txt").read_text()
    assert "Traceback" not in (job.folder / "log.txt").read_text()
    assert run_checkpoints(job).steps() == [0]
    assert len((job.folder / "steps.csv").read_text().splitlines()) == 2
    assert [path.name for path in job.folder.glob("confusion/*")] == ["step-0.csv"]
    assert failure(job) == (line, ["goes on after step 0"])


def first_step(data_root: Path) -> list[str]:
    """The training images that show one of the classes 1..10, in the list's order."""
    devkit = data_root / "VOCdevkit" / "VOC2012"
    listed = (devkit / "ImageSets" / "Segmentation" / "trainaug.txt").read_text().split()
    shown = {i: set(np.unique(np.asarray(Image.open(devkit / "SegmentationClassAug" / f"{i}.png")))) for i in listed}
    return [i for i in listed if shown[i] & set(range(1, 11))]


@pytest.fixture
def exploding_base(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Makes the learning rate of one iteration huge; a checkpoint is written after every epoch."""
    real = bench.train.epochs.learning_rate
    monkeypatch.setattr(bench.train.epochs, "CHECKPOINT_SECONDS", 0.0)

    def at(iteration: int) -> None:
        def rate(config: Any, number: int, total: int) -> float:
            return HUGE if number == iteration else real(config, number, total)

        monkeypatch.setattr(bench.train.epochs, "learning_rate", rate)

    return at


def base_batch(ids: list[str], epoch: int, batch: int) -> str:
    """What is told of a batch of 8 of the base protocol, in an epoch from 1."""
    order = np.random.default_rng([derived_seed("base", 0, "order"), epoch - 1]).permutation(len(ids))
    met = ", ".join(ids[i] for i in order[8 * (batch - 1) : 8 * batch])
    return f"epoch {epoch}, batch {batch} of {-(-len(ids) // 8)}: the loss is nan; incoming images {met}; "


@pytest.mark.parametrize("last", [False, True], ids=["within an epoch", "in its last batch"])
def test_a_base_training_keeps_nothing_of_it_and_meets_it_again(
    last: bool, exploding_base: Callable[[int], None], data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    ids = first_step(data_root)
    batches = -(-len(ids) // 8)
    batch = batches if last else 3
    exploding_base(batches + batch - 2)
    asked = request(data_root, tmp_path, "er")
    [base] = prepare(asked, Console(quiet=True)).bases.values()
    line = "base model, " + base_batch(ids, 2, batch) + "the same `bench run` meets the same batch again"
    assert failure(base) == (line, [])
    assert failure(base) == (line, ["goes on after epoch 1"])
    assert not base_model(base.base["hash"]).path.exists()
    assert base_checkpoint(base.base["hash"]).read()["epochs"] == 1
    result = run(asked, Console(quiet=True))
    assert result.failures == {base.key: line, "er seed 0": f"{base.key}, which it needs, failed: {line}"}


def test_joint_names_its_step(exploding_base: Callable[[int], None], data_root: Path, tmp_path: Path) -> None:
    exploding_base(0)
    [job] = prepare(request(data_root, tmp_path, "joint"), Console(quiet=True)).runs
    ids = [f"2007_{i:06d}" for i in range(120)]
    again = f"`bench run-one {job.folder}` meets the same batch again"
    assert failure(job)[0] == "step 2, " + base_batch(ids, 1, 2) + again
