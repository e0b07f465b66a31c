"""Base training on several devices: the updates of one device, and what happens when a process fails."""

import errno
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import Tensor, nn
from torch import distributed as dist
from usual import usual

import bench
import bench.train.epochs
import bench.train.networks
from bench.cli.arguments import request_of
from bench.cli.entry import _parser, main
from bench.launch.executor import cores_and_gpus
from bench.launch.session import prepare
from bench.plan.devices import gpus_of
from bench.plan.request import Request
from bench.screen import stopping
from bench.screen.events import Event, Report
from bench.screen.stopping import Stopped
from bench.settings.merging import resolve_config
from bench.settings.schema import RuntimeConfig
from bench.settings.slurm import SlurmSettings
from bench.train.checkpoint import Checkpoint
from bench.train.distributed import Rank, Work, run_ranks
from bench.train.epochs import EpochTraining, train_epochs
from bench.train.networks import new_network
from bench.train.seeds import derived_seed
from benchmarks.annotated import AnnotatedImages
from benchmarks.packing import Decoded, Reader
from benchmarks.streams import load_benchmark
from reports.metrics import mean_iou
from strategies.learning.faults import NonFiniteLossError
from strategies.learning.protocol import BaseRecipe
from strategies.networks.build import build_network
from strategies.networks.network import SegmentationNetwork

VOID = 255
CLASSES = 3
CPU = torch.device("cpu")
Weights = dict[str, Tensor]

# --------------------------------------------------------------------------------------------- what is trained


class Noise(Reader):
    """Images of 24 x 24 pixels; of each label map another part is void, of every third one all of it."""

    kept = True

    def read(self, index: int) -> Decoded:
        rng = np.random.default_rng(index)
        label_map = rng.integers(0, CLASSES + 1, (24, 24)).astype(np.uint8)
        label_map[: (0, 9, 24)[index % 3]] = VOID
        return rng.integers(0, 256, (3, 24, 24)).astype(np.uint8), label_map


def noise(count: int) -> AnnotatedImages:
    labels = {c: c for c in range(1, CLASSES + 1)}
    presence = np.ones((count, CLASSES + 1), dtype=bool)
    return AnnotatedImages(Noise(), np.arange(count), [str(i) for i in range(count)], presence, 0, labels)


def order_of_epoch(count: int, epoch: int) -> list[int]:
    """The images of an epoch in their order, as a training on one device meets them."""
    rng = np.random.default_rng([derived_seed("base", 0, "order"), epoch])
    order: list[int] = rng.permutation(count).tolist()
    return order


class Exact(SegmentationNetwork):
    """A network that computes in double precision and normalises by its running statistics."""

    def train(self, mode: bool = True) -> "Exact":
        super().train(False)
        return self

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images.double())


def exact(*args: Any) -> SegmentationNetwork:
    network = new_network(*args)
    return Exact(network.backbone, network.head).double()


def with_dropout(*args: Any) -> SegmentationNetwork:
    network = new_network(*args)
    network.backbone = nn.Sequential(network.backbone, nn.Dropout(0.3))
    return network


def patched(changes: Mapping[str, Any], work: Work, rank: Rank, report: Report) -> None:
    """Do a rank's work where `bench.train.epochs` is changed: the patches of its parent do not reach a process."""
    for name, value in changes.items():
        setattr(bench.train.epochs, name, value)
    work(rank, report)


Patch = Callable[..., None]


@pytest.fixture
def patch(monkeypatch: pytest.MonkeyPatch) -> Patch:
    """Change `bench.train.epochs` here and in the ranks."""

    def change(**changes: Any) -> None:
        for name, value in changes.items():
            monkeypatch.setattr(bench.train.epochs, name, value)
        monkeypatch.setattr(
            bench.train.epochs, "run_ranks", lambda work, *rest: run_ranks(partial(patched, changes, work), *rest)
        )

    return change


def trained(
    data: AnnotatedImages,
    folder: Path,
    devices: int,
    settings: Mapping[str, object] | None = None,
    recipe: BaseRecipe | None = None,
    report: Report = lambda event: None,
    device: torch.device = CPU,
) -> Weights:
    """The weights that a base training ends with; by default of one epoch of plain gradient descent."""
    plain = {"data.size": 24, "base.epochs": 1, "base.optimizer": "sgd", "base.lr": 0.5, "base.momentum": 0.0}
    plain |= {"base.weight_decay": 0.0, "base.warmup_steps": 0, "base.devices": devices, **(settings or {})}
    config = resolve_config("shapes", None, None, [f"{key}={value}" for key, value in plain.items()])
    checkpoint = Checkpoint(folder / "training.ckpt", {"base": "test"})
    task = EpochTraining(data, CLASSES, config, recipe or BaseRecipe(), 0, "base", checkpoint)
    training = train_epochs(task, device, report)
    checkpoint.remove()
    assert training.epochs == config.base.epochs
    assert not training.network.backbone.training
    return training.network.state_dict()


def equal(one: Weights, other: Weights) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


# ------------------------------------------------------------------------------------------ the same updates


def test_ranks_together_have_the_images_of_one_device_with_their_augmentation() -> None:
    data, augmentation = noise(11), bench.train.networks.augmentation(resolve_config("shapes", "small"))
    order = order_of_epoch(11, 0)
    whole = list(data.batches(4, order, augmentation, (1, 2)))
    for size in (2, 3, 5):
        ranks = [list(data.batches(4, order, augmentation, (1, 2), share=(r, size))) for r in range(size)]
        for i, batch in enumerate(whole):
            parts = [rank[i] for rank in ranks if i < len(rank)]
            indices = torch.cat([part[3] for part in parts])
            assert sorted(indices.tolist()) == sorted(batch[3].tolist())
            places = [batch[3].tolist().index(index) for index in indices]
            for column in range(4):
                assert torch.equal(torch.cat([part[column] for part in parts]), batch[column][places])


BCE, CLASSES_BCE = BaseRecipe(loss="sigmoid-bce"), BaseRecipe("auxiliary", "classes-bce", positive_weight=2.0)


@pytest.mark.parametrize(
    ("devices", "images", "batch", "recipe", "void"),
    [
        pytest.param(2, 7, 7, BaseRecipe(), "ignore", id="one update, unequal shares", marks=pytest.mark.long),
        pytest.param(2, 9, 2, BaseRecipe(), "ignore", id="shares of void"),
        pytest.param(2, 9, 2, BCE, "ignore", id="shares of void, one against the rest", marks=pytest.mark.long),
        pytest.param(2, 9, 2, CLASSES_BCE, "negative", id="void a negative"),
        pytest.param(3, 10, 4, CLASSES_BCE, "ignore", id="a last batch too small for all"),
        pytest.param(3, 5, 2, BaseRecipe(), "ignore", id="batches too small for all", marks=pytest.mark.long),
    ],
)
def test_updates_are_those_of_one_device(
    devices: int, images: int, batch: int, recipe: BaseRecipe, void: str, patch: Patch, tmp_path: Path
) -> None:
    patch(new_network=exact)
    ended, events = [], list[list[Event]]()
    for n in (1, devices):
        events.append([])
        settings = {"base.batch_size": batch, "data.void": void}
        ended.append(trained(noise(images), tmp_path, n, settings, recipe, events[-1].append))
    one, several = ended
    assert_learnt_alike(several, one)
    first, same = events[0][0], events[1][0]
    assert (same.job, same.phase, same.done, same.total) == (first.job, first.phase, first.done, first.total)
    assert same.loss == pytest.approx(first.loss, rel=1e-9)


def assert_learnt_alike(found: Weights, expected: Weights, atol: float = 1e-11) -> None:
    torch.manual_seed(derived_seed("base", 0, "initialisation"))
    start = exact(resolve_config("shapes", "small"), BaseRecipe(), CLASSES, False).state_dict()
    assert found.keys() == expected.keys()
    for name in found:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-9, atol=atol)
    assert (found["head.weight"] - start["head.weight"]).abs().max() > 1e-3


@pytest.mark.parametrize("recipe", [BaseRecipe(), CLASSES_BCE], ids=["cross-entropy", "classes-bce"])
@pytest.mark.parametrize("void", ["ignore", "negative"])
def test_a_batch_that_passes_in_parts_makes_the_update_of_the_whole(
    recipe: BaseRecipe, void: str, patch: Patch, tmp_path: Path
) -> None:
    """Of seven images a third is all void: a part may count none, or as many pixels as the others."""
    patch(new_network=exact)
    settings = {"base.batch_size": 7, "base.epochs": 2, "data.void": void}
    whole, parts = (trained(noise(7), tmp_path, 1, {**settings, "base.accumulate": n}, recipe) for n in (1, 4))
    assert_learnt_alike(parts, whole, atol=1e-6)  # a part's share is a float32


# ------------------------------------------------------------------------------------------ going on


def dies_at(fatal: int, config: Any, done: int, total: int) -> float:
    """The learning rate, until an update at which the rank dies."""
    if done == fatal:
        raise InterruptedError(f"died at update {done}")
    return 0.01


@pytest.mark.parametrize(("devices", "optimizer"), usual([(2, "adamw"), (3, "sgd")], (2, "adamw")))
def test_a_training_that_dies_ends_with_the_same_weights(
    devices: int, optimizer: str, patch: Patch, tmp_path: Path
) -> None:
    """It dies in its last epoch; its network draws dropout and moves running statistics."""
    settings = {"base.epochs": 3, "base.batch_size": 4, "base.optimizer": optimizer, "base.momentum": 0.9}
    said: list[str] = []

    def train(fatal: int, folder: str) -> Weights:
        patch(new_network=with_dropout, CHECKPOINT_SECONDS=0.0, learning_rate=partial(dies_at, fatal))
        return trained(noise(11), tmp_path / folder, devices, settings, report=lambda e: said.append(e.note))

    whole = train(-1, "whole")
    assert not any(said)
    with pytest.raises(InterruptedError, match="died at update 7"):
        train(7, "cut")
    assert not any(said)
    torch.rand(3)
    again = train(-1, "cut")
    assert [note for note in said if note] == ["goes on after epoch 2"]
    assert equal(again, whole)


def notes_its_seed(folder: Path, config: Any, done: int, total: int) -> float:
    (folder / str(torch.initial_seed())).touch()
    return 0.01


def test_every_rank_draws_its_own_numbers_in_every_epoch(patch: Patch, tmp_path: Path) -> None:
    (tmp_path / "seeds").mkdir()
    patch(learning_rate=partial(notes_its_seed, tmp_path / "seeds"))
    trained(noise(6), tmp_path, 2, {"base.epochs": 3, "base.batch_size": 4})
    assert len(list((tmp_path / "seeds").iterdir())) == 2 * 3


def test_a_damaged_checkpoint_is_named_once_and_the_training_starts_again(patch: Patch, tmp_path: Path) -> None:
    patch(new_network=with_dropout)
    settings, said = {"base.epochs": 2, "base.batch_size": 4}, list[str]()
    whole = trained(noise(6), tmp_path, 2, settings)
    (tmp_path / "training.ckpt").write_bytes(b"damaged")
    assert equal(trained(noise(6), tmp_path, 2, settings, report=lambda e: said.append(e.note)), whole)
    [note] = [note for note in said if note]
    assert "damaged" in note and note.endswith("trained from the start")


def is_slow(config: Any, done: int, total: int) -> float:
    time.sleep(0.1)
    return 0.01


def is_quick(config: Any, done: int, total: int) -> float:
    return 0.01


def test_a_stop_ends_the_ranks_at_an_epochs_end_and_the_training_goes_on(
    patch: Patch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"base.epochs": 8, "base.batch_size": 4}
    patch(learning_rate=is_quick)
    whole = trained(noise(11), tmp_path / "whole", 2, settings)
    patch(learning_rate=is_slow, CHECKPOINT_SECONDS=1e9)
    monkeypatch.setattr(stopping, "_asked", threading.Event())
    with pytest.raises(Stopped):
        trained(noise(11), tmp_path, 2, settings, report=stopping.ask_to_stop)
    epochs = Checkpoint(tmp_path / "training.ckpt", {"base": "test"}).read()["epochs"]
    assert 1 <= epochs < 8
    stopping._asked.clear()
    patch(learning_rate=is_quick)
    said: list[str] = []
    assert equal(trained(noise(11), tmp_path, 2, settings, report=lambda e: said.append(e.note)), whole)
    assert f"goes on after epoch {epochs}" in said


def explodes(config: Any, done: int, total: int) -> float:
    return 1e38 if done == 1 else 0.01


def test_a_loss_that_is_no_number_names_the_images_of_the_whole_batch(patch: Patch, tmp_path: Path) -> None:
    patch(learning_rate=explodes, new_network=exact)
    lines = []
    for devices in (1, 3):
        with pytest.raises(NonFiniteLossError) as caught:
            trained(noise(11), tmp_path / str(devices), devices, {"base.batch_size": 4})
        lines.append(str(caught.value))
    met = ", ".join(map(str, order_of_epoch(11, 0)[8:]))
    assert lines == [f"epoch 1, batch 3 of 3: the loss is nan; incoming images {met}"] * 2


# ------------------------------------------------------------------------------------------ what ranks may do


def others_wait(rank: Rank) -> None:
    dist.barrier()


def others_compute(rank: Rank) -> None:
    time.sleep(60)


Others = Callable[[Rank], None]


def raises(others: Others, rank: Rank, report: Report) -> None:
    if rank.number == 1:
        raise ValueError("planted")
    others(rank)


def is_killed(folder: Path, others: Others, rank: Rank, report: Report) -> None:
    """Killed while a process reads images for it, and may go on doing so for a while."""
    if rank.number == 1:
        loader = iter(noise(64).batches(1, workers=1))
        next(loader)
        (folder / "killed").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    others(rank)


def leaves(rank: Rank, report: Report) -> None:
    if rank.number == 0:
        sys.exit(3)
    dist.barrier()


def fills_the_disk(rank: Rank, report: Report) -> None:
    if rank.leads:
        raise OSError(errno.ENOSPC, "No space left on device", "a file")
    dist.barrier()


def ignored(event: Event) -> None: ...


ONE_THREAD = RuntimeConfig(threads=1, precision="fp32", tf32=False)


@pytest.mark.parametrize("others", [others_wait, others_compute], ids=lambda f: f.__name__)
def test_a_rank_that_fails_fails_all_with_its_traceback(others: Others) -> None:
    started = time.monotonic()
    with pytest.raises(ValueError, match=r"^planted$") as caught:
        run_ranks(partial(raises, others), 3, "cpu", ONE_THREAD, ignored)
    assert re.match(r"(?s)rank 1 of 3: Traceback.*, in raises\n.*ValueError: planted\n$", str(caught.value.__cause__))
    assert not multiprocessing.active_children()
    assert time.monotonic() - started < 30


@pytest.mark.parametrize("others", [others_wait, others_compute], ids=lambda f: f.__name__)
def test_a_rank_that_is_killed_is_reported_at_once(others: Others, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"^rank 1 of 3: its process was killed \(SIGKILL\)"):
        run_ranks(partial(is_killed, tmp_path, others), 3, "cpu", ONE_THREAD, ignored)
    assert time.time() - (tmp_path / "killed").stat().st_mtime < 4
    assert not multiprocessing.active_children()


def test_a_rank_that_leaves_is_reported() -> None:
    with pytest.raises(RuntimeError, match=r"^rank 0 of 3: its process ended with exit status 3$"):
        run_ranks(leaves, 3, "cpu", ONE_THREAD, ignored)


def test_a_full_disk_is_the_callers_as_if_it_had_met_it() -> None:
    with pytest.raises(OSError, match="No space left on device") as caught:
        run_ranks(fills_the_disk, 2, "cpu", ONE_THREAD, ignored)
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, "a file")


def gets_signals(rank: Rank, report: Report) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2):
        os.kill(os.getpid(), number)
    report(Event("", "still there", 0, 0))


def test_signals_that_a_terminal_or_slurm_sends_to_all_are_left_to_the_caller() -> None:
    events: list[Event] = []
    run_ranks(gets_signals, 2, "cpu", ONE_THREAD, events.append)
    assert [event.phase for event in events] == ["still there"]


def tells(rank: Rank, report: Report) -> None:
    for done in range(3):
        flags = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
        report(Event(f"rank {rank.number}", "training", done, torch.get_num_threads(), note=f"TF32 {flags}"))
        dist.barrier()


@pytest.mark.parametrize("tf32", [False, True])
def test_the_first_ranks_events_arrive_and_each_rank_computes_with_the_threads_and_precision_it_was_given(
    tf32: bool,
) -> None:
    events: list[Event] = []
    run_ranks(tells, 2, "cpu", RuntimeConfig(threads=2, precision="fp32", tf32=tf32), events.append)
    assert events == [Event("rank 0", "training", done, 2, note=f"TF32 {(tf32, tf32)}") for done in range(3)]


def test_a_caller_that_fails_stops_the_ranks() -> None:
    def interrupted(event: Event) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_ranks(tells, 2, "cpu", ONE_THREAD, interrupted)
    assert not multiprocessing.active_children()


WAITING = """
import time
from bench.screen.events import Event
from bench.settings.schema import RuntimeConfig
from bench.train.distributed import run_ranks

def waits(rank, report):
    report(Event("rank", "", 0, 0))
    time.sleep(100)
"""
SCRIPT = """
from bench.settings.schema import RuntimeConfig
from bench.train.distributed import run_ranks
from waiting import waits

run_ranks(waits, 2, "cpu", RuntimeConfig(1, "fp32", False), lambda event: print("started", flush=True))
"""


def processes_with(marker: str) -> list[str]:
    """The ids of the processes in whose environment there is a marker."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if marker.encode() in (process / "environ").read_bytes():
                found.append(process.name)
        except OSError:
            continue
    return found


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="processes are found in /proc")
def test_a_killed_parent_leaves_no_process(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "waiting.py").write_text(WAITING)
    marker = f"marker-of-{tmp_path.name}-{os.getpid()}"
    package = str(Path(bench.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": package, "TMPDIR": str(tmp_path), "MARKER": marker}
    parent = subprocess.Popen(
        [sys.executable, str(tmp_path / "script.py")],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert parent.stdout is not None and parent.stdout.readline() == b"started\n"
    assert len(processes_with(marker)) >= 3
    parent.kill()
    parent.wait(30)
    deadline = time.monotonic() + 10
    while processes_with(marker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not processes_with(marker)


# ------------------------------------------------------------------------------------------ whole runs


TINY = {"data.size": 16, "base.epochs": 2, "base.batch_size": 8, "memory.size": 8, "evaluation.pictures": 0}


@pytest.mark.long
def test_runs_on_two_devices_do_not_depend_on_how_many_go_side_by_side(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """joint's own training and er's base model, in this process and in a worker; the base model is kept as usual."""
    found = []
    for jobs in (1, 2):
        monkeypatch.setenv("BENCH_CACHE", str(tmp_path / f"cache-{jobs}"))
        out = tmp_path / str(jobs)
        settings = {**TINY, "base.devices": 2, "base.epochs": 1}
        result = bench.run(
            "er,joint",
            "voc-10-5-overlapped",
            data_root=data_root,
            preset="small",
            settings=settings,
            out=out,
            jobs=jobs,
            device="cpu",
        )
        assert not result.failures
        [base] = (tmp_path / f"cache-{jobs}").rglob("bases/*.base")
        kept = Checkpoint(base, {"base": base.stem}).read()
        assert kept["inputs"]["protocol"]["devices"] == 2
        assert list(kept["network"]) == list(new_network(*_new(settings)).state_dict())
        assert not list(tmp_path.rglob("*.ckpt"))
        results = [*out.rglob("steps.csv"), *out.rglob("confusion/*.csv"), *out.rglob("spec.yaml")]
        found.append({str(file.relative_to(out)): file.read_bytes() for file in results})
    assert found[0] == found[1]
    assert len(found[0]) == 2 * 2 + 3 + 1


def _new(settings: Mapping[str, object]) -> tuple[Any, ...]:
    return resolve_config("shapes", None, None, [f"{k}={v}" for k, v in settings.items()]), BaseRecipe(), 10, False


def evaluated(weights: Weights, data: AnnotatedImages, config: Any, classes: int) -> float:
    """The mIoU, in per cent, over a test set."""
    network = new_network(config, BaseRecipe(), classes, False)
    network.load_state_dict(weights)
    network.eval()
    matrix = np.zeros((classes + 1, classes + 1), dtype=np.int64)
    for images, labels, *_ in data.batches(100):
        with torch.no_grad():
            predicted = network(images).argmax(1)
        known = labels != VOID
        np.add.at(matrix, (labels[known].numpy(), predicted[known].numpy()), 1)
    return mean_iou(matrix)


@pytest.mark.long
def test_two_devices_end_with_the_miou_of_one(tmp_path: Path) -> None:
    """On the CPU each normalises by its own half of a batch, so that it is near and not the same."""
    benchmark = load_benchmark("shapes-5-15-disjoint", size=32)
    settings = ["data.size=32", "base.epochs=1", "base.batch_size=8", "base.warmup_steps=20"]
    found = []
    for devices in (1, 2):
        config = resolve_config("shapes", None, None, [*settings, f"base.devices={devices}"])
        checkpoint = Checkpoint(tmp_path / f"{devices}.ckpt", {"base": "test"})
        data = benchmark.train_stream[0].data
        task = EpochTraining(data, 5, config, BaseRecipe(), 0, "base", checkpoint)
        training = train_epochs(task, CPU, lambda event: None)
        found.append(evaluated(training.network.state_dict(), benchmark.test_stream[0].data, config, 5))
    one, two = found
    assert one > 15
    assert two == pytest.approx(one, abs=6)


# ------------------------------------------------------------------------------------------ what may be asked for


def plan_of(data_root: Path, out: Path, devices: int, strategies: str = "er") -> Any:
    settings = [f"{key}={value}" for key, value in {**TINY, "base.devices": devices}.items()]
    settings.append("data.workers=0")
    request = Request(
        strategies, "voc-10-5-overlapped", data_root, preset="small", assignments=settings, out=out, device="cpu"
    )
    return prepare(request, Console(quiet=True))


def test_devices_determine_the_base_model_and_the_run(data_root: Path, tmp_path: Path) -> None:
    [one], [two] = (plan_of(data_root, tmp_path, devices).runs for devices in (1, 2))
    assert one.spec["base"]["hash"] != two.spec["base"]["hash"]
    assert one.spec["hash"] != two.spec["hash"]


@pytest.mark.parametrize(
    "command", [["run", "--strategies", "er", "--scenario", "voc-15-1-disjoint"], ["reproduce", "1"]]
)
def test_the_option_is_short_for_the_setting(command: list[str]) -> None:
    def assignments(*more: str) -> list[str]:
        return list(request_of(_parser().parse_args([*command, *more]), "er", "voc-15-1-disjoint").assignments)

    increments = "protocols.online.incremental.devices=3"
    assert assignments("--set", "base.lr=1", "--devices", "3") == ["base.lr=1", "base.devices=3", increments]
    assert assignments() == []


@pytest.mark.parametrize(
    ("arguments", "visible", "said"),
    [
        (["--devices", "4"], 2, "base.devices=4: 2 GPUs are visible"),
        (["--set", "base.devices=2", "--device", "cuda"], 1, "base.devices=2: 1 GPU is visible"),
        (
            ["--devices", "2", "--device", "cuda:1"],
            2,
            "base.devices=2: --device cuda:1 is one GPU; allowed are auto, cpu, cuda",
        ),
        (["--set", "incremental.devices=4"], 2, "incremental.devices=4: 2 GPUs are visible"),
        (["--devices", "0"], 2, "incremental.devices=0: input should be greater than or equal to 1"),
        (["--devices", "65"], 2, "incremental.devices=65: input should be less than or equal to 64"),
        (["--set", "base.devices=true"], 2, "base.devices=True: no truth value is allowed here"),
    ],
)
def test_devices_that_are_not_there_are_refused_in_one_line(
    arguments: list[str],
    visible: int,
    said: str,
    data_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: visible)
    where = ["--scenario", "voc-10-5-overlapped", "--data-root", str(data_root), "--out", str(tmp_path / "out")]
    small = ["--preset", "small", "--set", "data.size=16"]
    with pytest.raises(SystemExit) as exit_:
        main(["run", "--strategies", "er", *where, *small, *arguments])
    assert exit_.value.code == 2
    assert capsys.readouterr().err == f"bench: {said}\n"
    assert not (tmp_path / "out").exists()


def test_a_cluster_is_asked_for_what_each_job_computes_on(data_root: Path, tmp_path: Path) -> None:
    plan = plan_of(data_root, tmp_path, 3, "er,joint")
    er, joint = plan.runs
    [base] = plan.bases.values()
    asked = partial(cores_and_gpus, SlurmSettings())
    assert [asked([job]) for job in (er, joint, base)] == [{"cpus_per_task": n} for n in (1, 3, 3)]
    on_gpus = [replace(job, device="cuda") for job in (er, joint, base)]
    assert [asked([job])["gpus_per_node"] for job in on_gpus] == [1, 3, 3]
    assert asked(on_gpus[:2]) == {"cpus_per_task": 3, "gpus_per_node": 3}
    assert cores_and_gpus(SlurmSettings(gpus_per_node=2, cpus_per_task=7), on_gpus) == {
        "cpus_per_task": 7,
        "gpus_per_node": 2,
    }


def test_on_the_cpu_any_number_is_allowed(data_root: Path, tmp_path: Path) -> None:
    assert plan_of(data_root, tmp_path, 64).runs


# ------------------------------------------------------------------------------------------ GPUs


@pytest.mark.parametrize(
    ("named", "there", "gpus"),
    [("0,7", 1, ("0",)), ("3,1", 2, ("3", "1")), ("", 2, ("0", "1")), ("GPU-ab12", 1, ("GPU-ab12",)), ("7", 0, ())],
)
def test_runs_are_spread_over_the_gpus_that_are_there(
    named: str, there: int, gpus: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: there)
    assert gpus_of("cuda") == gpus
    assert gpus_of("cuda:1") == gpus_of("cpu") == ()


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there are no two GPUs here")
@pytest.mark.parametrize(("images", "batch"), [(8, 8), (9, 4)], ids=["one update", "a last batch of one image"])
def test_two_gpus_normalise_by_the_whole_batch_as_one_does(images: int, batch: int, tmp_path: Path) -> None:
    settings = {"base.batch_size": batch, "base.lr": 0.01}
    one, two = (trained(noise(images), tmp_path, n, settings, device=torch.device("cuda")) for n in (1, 2))
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=1e-3, atol=1e-4)


def test_synchronised_batchnorm_keeps_the_networks_keys_and_its_pooled_layers_fallback() -> None:
    network = build_network("deeplabv3-resnet101", 3)
    before = network.state_dict()
    Rank(torch.device("cuda:1"), 1, 2).synchronise(network)
    assert equal(network.state_dict(), before)
    layers = [type(layer).__name__ for layer in network.modules() if "BatchNorm" in type(layer).__name__]
    assert set(layers) == {"SyncBatchNorm", "_PooledSyncBatchNorm"}
    assert layers.count("_PooledSyncBatchNorm") == 1
