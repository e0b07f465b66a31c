"""A run that died goes on after its last sound checkpoint and ends with the files of one that did not."""

import csv
import hashlib
import io
import pickle
import random
import re
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn
from usual import usual

import bench.train.base
import bench.train.epochs
import bench.train.networks
from bench.launch.session import prepare
from bench.plan.job import RunJob
from bench.plan.plan import Plan
from bench.plan.request import Request
from bench.screen.events import Event
from bench.settings.errors import RequestError
from bench.train.checkpoint import Checkpoint, CheckpointError
from bench.train.kept import base_checkpoint, base_model, run_checkpoints
from bench.train.state import packed
from bench.train.work import Work
from strategies.er import Er
from strategies.learning.registry import STRATEGIES, method_class
from strategies.networks.build import build_network
from strategies.networks.network import SegmentationNetwork

SCENARIO = "voc-10-5-overlapped"
TINY = ("data.size=16", "base.epochs=4", "base.batch_size=8", "memory.size=8", "evaluation.pictures=2")
ONLINE = [name for name in STRATEGIES.entry_points() if "online" in method_class(name).protocols]
TIMES = {"seconds", "evaluation_seconds", "peak_ram_bytes", "peak_gpu_bytes"}


class Died(Exception):
    pass


def command_line(data_root: Path, out: Path, strategies: str, settings: Sequence[str] = TINY) -> list[str]:
    """What `bench` is given to make a grid."""
    given = ["run", "--strategies", strategies, "--scenario", SCENARIO, "--data-root", str(data_root)]
    return [*given, "--preset", "small", "--out", str(out), *(f"--set={setting}" for setting in settings)]


def plan(data_root: Path, out: Path, strategies: str, on: str = "cpu", **changes: Any) -> Plan:
    """Runs to make on a device, with their base models made."""
    made = planned(data_root, out, strategies, **changes)
    for base in made.bases.values():
        Work(replace(base, device=on)).execute(lambda event: None)
    return replace(made, runs=[replace(run, device=on) for run in made.runs])


def planned(data_root: Path, out: Path, strategies: str, **changes: Any) -> Plan:
    """Runs to make, and the base models that are to be made for them."""
    request: dict[str, Any] = {
        "scenario": SCENARIO,
        "data_root": data_root,
        "preset": "small",
        "assignments": TINY,
        "jobs": 1,
        **changes,
    }
    return prepare(Request(strategies=strategies, out=out, **request), Console(quiet=True))


class Watcher:
    """Writes down the steps that were computed, what was said, the last checkpoint; dies after step `last`."""

    def __init__(self, last: int | None = None, job: RunJob | None = None) -> None:
        self.last = last
        self.job = job
        self.state: object = None
        self.steps: list[int | None] = []
        self.notes: list[str] = []

    def __call__(self, event: Event) -> None:
        if event.note:
            self.notes.append(event.note)
        if event.finished_step:
            self.steps.append(event.step)
            kept = self.job is not None and event.step in run_checkpoints(self.job).steps()
            self.state = _state(run_checkpoints(self.job).after(event.step)) if kept else None
            if event.step == self.last:
                raise Died


def execute(job: RunJob, last: int | None = None) -> Watcher:
    """Execute a run, or its part up to step `last`."""
    watcher = Watcher(last, job)
    if last is None:
        Work(job).execute(watcher)
    else:
        with pytest.raises(Died):
            Work(job).execute(watcher)
    return watcher


def _state(checkpoint: Checkpoint) -> object:
    """What a run goes on from, less the digest of its records: times stand in these."""
    state = checkpoint.read()
    del state["records"]
    return bits(state)


def bits(state: object) -> object:
    """State in a form that `==` compares bit by bit, NaN too."""
    if isinstance(state, torch.Tensor):
        return state.dtype, state.shape, state.contiguous().numpy().tobytes()
    if isinstance(state, dict):
        return {key: bits(part) for key, part in state.items()}
    if isinstance(state, list | tuple):
        return [bits(part) for part in state]
    return state


def files(folder: Path) -> dict[str, object]:
    """Every file below a folder, hidden ones too; of costs.csv what equal runs have in common, of logs nothing."""
    found = (file for file in folder.rglob("*") if not file.is_dir() and file.name != "log.txt")
    return {str(file.relative_to(folder)): _content(file) for file in found}


def _content(file: Path) -> object:
    if file.name != "costs.csv":
        return file.read_bytes()
    with file.open() as text:
        return [{k: v for k, v in row.items() if k not in TIMES} for row in csv.DictReader(text)]


def undisturbed(data_root: Path, out: Path, strategies: str, **changes: object) -> dict[str, object]:
    for job in plan(data_root, out, strategies, **changes).runs:
        execute(job)
    return files(out)


def assert_as_undisturbed(
    final: Watcher, cut: Path, data_root: Path, out: Path, strategy: str, **changes: object
) -> None:
    """What a run left, and the state it ended in, are those of a run that nothing stopped."""
    [job] = plan(data_root, out, strategy, **changes).runs
    assert final.state == execute(job).state
    assert files(cut) == files(out)


# ------------------------------------------------------------------------------------------------ going on


@pytest.mark.parametrize("name", usual([*ONLINE, "joint(every_step=true)"], "er", "ours"))
def test_a_run_that_dies_in_and_after_steps_ends_with_the_same_files(
    name: str, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [job] = plan(data_root, tmp_path / "cut", name).runs
    assert execute(job, last=0).steps == [0]
    with monkeypatch.context() as patch:
        _die_at_call(patch, torch.autograd, "backward", 3)
        with pytest.raises(Died):
            Work(job).execute(Watcher())
    again = execute(job, last=1)
    assert again.steps == [1]
    assert any("goes on after step 0" in note for note in again.notes)
    final = execute(job)
    assert final.steps == [2]
    assert any("goes on after step 1" in note for note in final.notes)
    assert final.state or name.startswith("joint")
    assert_as_undisturbed(final, tmp_path / "cut", data_root, tmp_path / "whole", name)


def _die_at_call(patch: pytest.MonkeyPatch, owner: object, name: str, number: int) -> None:
    real, calls = getattr(owner, name), Counter[str]()

    def counted(*args: object, **kwargs: object) -> object:
        calls[name] += 1
        if calls[name] == number:
            raise Died
        return real(*args, **kwargs)

    patch.setattr(owner, name, counted)


@pytest.mark.long
def test_dropout_draws_the_same_after_a_run_or_base_training_went_on(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_dropout(*args: Any, **kwargs: Any) -> SegmentationNetwork:
        network = build_network(*args, **kwargs)
        network.backbone = nn.Sequential(network.backbone, nn.Dropout(0.3))
        return network

    monkeypatch.setattr(bench.train.networks, "build_network", with_dropout)
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))  # no base model's hash tells of the dropout
    settings = [*TINY, "base.epochs=3"]
    [job] = plan(data_root, tmp_path / "cut", "er", assignments=settings).runs
    execute(job, last=0)
    torch.rand(3)
    execute(job, last=1)
    torch.rand(3)
    final = execute(job)
    assert final.state
    assert_as_undisturbed(final, tmp_path / "cut", data_root, tmp_path / "whole", "er", assignments=settings)
    _assert_base_goes_on(data_root, tmp_path, settings, monkeypatch)


@pytest.mark.parametrize("optimizer", usual(["adamw", "sgd"], "adamw"))
def test_a_base_training_that_dies_ends_with_the_same_weights(
    optimizer: str, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _assert_base_goes_on(data_root, tmp_path, [*TINY, "base.epochs=3", f"base.optimizer={optimizer}"], monkeypatch)


def _assert_base_goes_on(data_root: Path, tmp_path: Path, settings: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Training dies in its last epoch, then with a damaged checkpoint in its second."""
    monkeypatch.setattr(bench.train.epochs, "CHECKPOINT_SECONDS", 0.0)
    [run] = plan(data_root, tmp_path / "base", "er", assignments=settings).runs
    kept, checkpoint = base_model(run.spec["base"]["hash"]), base_checkpoint(run.spec["base"]["hash"])
    weights = kept.read()["network"]
    kept.remove()
    request = Request("er", SCENARIO, data_root, preset="small", assignments=settings, out=tmp_path / "base")
    [job] = prepare(request, Console(quiet=True)).bases.values()
    with monkeypatch.context() as patch:
        _die_at_call(patch, bench.train.epochs, "learning_rate", job.units - 1)
        with pytest.raises(Died):
            Work(job).execute(Watcher())
    assert checkpoint.path.is_file()
    watcher = Watcher()
    torch.rand(3)
    Work(job).execute(watcher)
    assert watcher.notes == [f"goes on after epoch {run.config.base.epochs - 1}"]
    assert not checkpoint.path.exists()
    assert _equal(kept.read()["network"], weights)
    checkpoint.path.write_bytes(b"damaged")
    watcher = Watcher()
    Work(job).execute(watcher)
    assert str(checkpoint.path) in watcher.notes[0]
    assert "damaged" in watcher.notes[0]
    assert _equal(kept.read()["network"], weights)


def _equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_joint_goes_on_within_its_training(data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = undisturbed(data_root, tmp_path / "whole", "joint")
    [job] = plan(data_root, tmp_path / "cut", "joint").runs
    with monkeypatch.context() as patch:
        _die_at_call(patch, bench.train.epochs, "learning_rate", job.units - 1)
        with pytest.raises(Died):
            Work(job).execute(Watcher())
    assert "goes on after epoch 1" in execute(job).notes
    assert files(tmp_path / "cut") == whole


def test_the_last_two_checkpoints_are_kept_and_none_of_a_finished_run(data_root: Path, tmp_path: Path) -> None:
    settings = [*TINY, "base.epochs=1"]
    [job] = plan(data_root, tmp_path, "finetune", scenario="voc-15-1-overlapped", assignments=settings).runs
    execute(job, last=3)
    assert run_checkpoints(job).steps() == [3, 2]
    execute(job)
    assert not (job.folder / "checkpoint").exists()


def test_a_method_that_does_not_say_it_can_starts_again(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = undisturbed(data_root, tmp_path / "whole", "er")
    monkeypatch.setattr(Er, "resumable", False)
    [job] = plan(data_root, tmp_path / "cut", "er").runs
    execute(job, last=1)
    assert not (job.folder / "checkpoint").exists()
    assert execute(job).steps == [0, 1, 2]
    assert files(tmp_path / "cut") == whole


def test_a_subclass_says_for_itself_that_it_can() -> None:
    class More(Er):
        """Could keep what Er's state does not tell."""

    class Thorough(Er):
        resumable = True

    assert all(method_class(name).resumable for name in STRATEGIES.entry_points())
    assert More.resumable is False
    assert Thorough.resumable


def test_state_that_is_no_plain_data_is_refused_when_it_is_written() -> None:
    with pytest.raises(TypeError, match="a set in the state of a method"):
        packed({"seen": [{1, 2}]})


# ------------------------------------------------------------------------------------------------ damage


def _kept_of_another_seed(file: Path, data_root: Path, tmp_path: Path) -> None:
    [run] = plan(data_root, tmp_path / "other", "er", seeds=[1]).runs
    shutil.copy(base_model(run.spec["base"]["hash"]).path, file)


@pytest.mark.parametrize("damage", usual(["flipped", "of another seed"], "flipped"))
def test_a_damaged_base_model_is_named_and_trained_again(
    damage: str, data_root: Path, tmp_path: Path, whole: dict[str, object]
) -> None:
    [job] = plan(data_root, tmp_path / "first", "er").runs
    kept = base_model(job.spec["base"]["hash"])
    weights = kept.read()["network"]
    if damage == "flipped":
        _flipped(job, kept.path)
    else:
        _kept_of_another_seed(kept.path, data_root, tmp_path)
    with pytest.raises(RuntimeError, match=f"{kept.path}: .*; the same command trains the base model again"):
        Work(job).execute(Watcher())
    request = Request("er", SCENARIO, data_root, preset="small", assignments=TINY, out=tmp_path / "out")
    made = prepare(request, Console(quiet=True))
    [base] = made.bases.values()
    assert made.needs == {made.runs[0].key: base.key}
    watcher = Watcher()
    Work(base).execute(watcher)
    assert str(kept.path) in watcher.notes[0] and watcher.notes[0].endswith("; trained again")
    assert _equal(kept.read()["network"], weights)
    execute(made.runs[0])
    assert files(tmp_path / "out") == whole


@pytest.fixture(scope="module")
def whole(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    return undisturbed(data_root, tmp_path_factory.mktemp("whole"), "er")


@pytest.fixture(scope="module")
def interrupted(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("interrupted")
    [job, other] = plan(data_root, out, "er", seeds=[0, 1]).runs
    execute(job, last=1)
    execute(other, last=1)
    return out


@pytest.fixture
def job(interrupted: Path, data_root: Path, tmp_path: Path) -> RunJob:
    """A run of three steps with checkpoints after two."""
    shutil.copytree(interrupted, tmp_path / "out")
    [job] = plan(data_root, tmp_path / "out", "er").runs
    assert run_checkpoints(job).steps() == [1, 0]
    return job


class Malicious:
    """Makes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.marker,)


def _truncated(job: RunJob, file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def _empty(job: RunJob, file: Path) -> None:
    file.write_bytes(b"")


def _flipped(job: RunJob, file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[random.randrange(len(content))] ^= 1 << random.randrange(8)
    file.write_bytes(content)


def _of_another_step(job: RunJob, file: Path) -> None:
    shutil.copy(file.with_name("step-0.ckpt"), file)


def _of_another_seed(job: RunJob, file: Path) -> None:
    shutil.copy(str(file).replace("-seed0", "-seed1"), file)


def _sealed(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode() + b"\n" + content


def _raw_pickle(job: RunJob, file: Path) -> None:
    file.write_bytes(pickle.dumps(Malicious(job.folder / "executed")))


def _sealed_pickle(job: RunJob, file: Path) -> None:
    file.write_bytes(_sealed(pickle.dumps(Malicious(job.folder / "executed"), protocol=2)))


def _sealed_payload(job: RunJob, file: Path) -> None:
    buffer = io.BytesIO()
    owner = run_checkpoints(job).after(1).owner
    torch.save({"owner": dict(owner), "state": Malicious(job.folder / "executed")}, buffer)
    file.write_bytes(_sealed(buffer.getvalue()))


def _ill_fitting(job: RunJob, file: Path) -> None:
    checkpoint = run_checkpoints(job).after(1)
    state = checkpoint.read()
    del state["template"]["method"]["memory"]["seen"]
    checkpoint.write(state)


def _of_other_images(job: RunJob, file: Path) -> None:
    checkpoint = run_checkpoints(job).after(1)
    state = checkpoint.read()
    state["template"]["method"]["memory"]["exemplars"][0] = ("exemplar", 0, 0, "unheard-of")
    checkpoint.write(state)


DAMAGES: dict[Callable[[RunJob, Path], None], str] = {
    _truncated: "damaged",
    _empty: "damaged",
    _flipped: "damaged",
    _raw_pickle: "damaged",
    _of_another_step: "another job's, its step is 0, not 1",
    _of_another_seed: "another job's, its seed is 1, not 0",
    _sealed_pickle: "refused",
    _sealed_payload: "refused",
    _ill_fitting: "does not fit (KeyError: 'seen')",
    _of_other_images: "does not fit (LookupError: image 0 of step 0 is",
}
USUAL = (_flipped, _of_another_seed, _ill_fitting)


@pytest.mark.parametrize("damage", usual(DAMAGES, *USUAL), ids=lambda damage: damage.__name__)
def test_a_damaged_checkpoint_is_named_and_its_step_computed_again(
    damage: Callable[[RunJob, Path], None], job: RunJob, whole: dict[str, object]
) -> None:
    file = job.folder / "checkpoint" / "step-1.ckpt"
    damage(job, file)
    watcher = execute(job)
    assert str(file) in watcher.notes[0]
    assert DAMAGES[damage] in watcher.notes[0]
    assert "\n" not in watcher.notes[0]
    assert watcher.notes[1:] == ["goes on after step 0"]
    assert watcher.steps == [1, 2]
    assert not (job.folder / "executed").exists()
    assert _of_seed_0(job) == whole


def _of_seed_0(job: RunJob) -> dict[str, object]:
    return {name: content for name, content in files(job.folder.parents[2]).items() if "-seed0/" in name}


def test_the_payload_of_these_tests_would_execute(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Malicious(tmp_path / "executed")))
    assert (tmp_path / "executed").exists()


def test_no_sound_checkpoint_starts_the_run_again(job: RunJob, whole: dict[str, object]) -> None:
    for step in (0, 1):
        _flipped(job, job.folder / "checkpoint" / f"step-{step}.ckpt")
    watcher = execute(job)
    assert len(watcher.notes) == 2
    assert watcher.steps == [0, 1, 2]
    assert _of_seed_0(job) == whole


@pytest.mark.parametrize("name", ["confusion/step-1.csv", "costs.csv"])
def test_a_changed_record_is_computed_again(name: str, job: RunJob, whole: dict[str, object]) -> None:
    """A digit is another one: nothing else tells, and it would stand in the results."""
    file = job.folder / name
    number = re.findall(r"(?<=,)[1-9]\d*", file.read_text())[-1]
    file.write_text(re.sub(rf",{number}(?!.*,{number})", f",{int(number) - 1}", file.read_text(), flags=re.DOTALL))
    watcher = execute(job)
    assert f"{job.folder}: its records up to step 1 are not those of the checkpoint there" in watcher.notes[0]
    assert watcher.notes[1:] == ["goes on after step 0"]
    assert watcher.steps == [1, 2]
    assert _of_seed_0(job) == whole


@pytest.mark.parametrize("change", ["another", "none"])
def test_a_changed_prediction_is_computed_again(change: str, job: RunJob, whole: dict[str, object]) -> None:
    picture = next((job.folder / "predictions" / "step-1").glob("*.png"))
    if change == "another":
        picture.write_bytes(picture.read_bytes()[:-1])
    else:
        picture.unlink()
    watcher = execute(job)
    assert watcher.notes[1:] == ["goes on after step 0"]
    assert _of_seed_0(job) == whole


def test_a_lost_record_is_computed_again(job: RunJob, whole: dict[str, object]) -> None:
    (job.folder / "confusion" / "step-0.csv").unlink()
    watcher = execute(job)
    assert all("confusion/step-0.csv: missing" in note for note in watcher.notes)
    assert watcher.steps == [0, 1, 2]
    assert _of_seed_0(job) == whole


def test_every_flipped_bit_is_noticed(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "a.ckpt", {"step": 1})
    checkpoint.write({"weights": torch.arange(4.0), "array": packed(np.arange(3))})
    content = checkpoint.path.read_bytes()
    rng = random.Random(0)
    for place in [*range(70), *(rng.randrange(len(content)) for _ in range(200))]:
        flipped = bytearray(content)
        flipped[place] ^= 1 << rng.randrange(8)
        checkpoint.path.write_bytes(flipped)
        with pytest.raises(CheckpointError, match="damaged"):
            checkpoint.read()


def test_another_version_of_what_computes_it_is_another_job(job: RunJob) -> None:
    job.spec["versions"]["torch"] = "2.0"
    watcher = execute(job, last=0)
    assert all("another job's, its versions is" in note for note in watcher.notes)
    assert watcher.steps == [0]


# ------------------------------------------------------------------------------------------------ overwrite


@pytest.mark.parametrize(
    ("overwrite", "er", "finetune"),
    [
        ("never", None, [2]),
        pytest.param("failed", None, [0, 1, 2], marks=pytest.mark.long),
        pytest.param("stale", None, [2], marks=pytest.mark.long),
        ("always", [0, 1, 2], [0, 1, 2]),
        pytest.param(False, None, [2], marks=pytest.mark.long),
        pytest.param(True, [0, 1, 2], [0, 1, 2], marks=pytest.mark.long),
    ],
)
def test_which_steps_are_computed_again(
    overwrite: str | bool, er: list[int] | None, finetune: list[int], job: RunJob, data_root: Path, tmp_path: Path
) -> None:
    """er is finished, finetune died after step 1."""
    execute(job)
    [unfinished] = plan(data_root, tmp_path / "out", "finetune").runs
    execute(unfinished, last=1)
    made = {run.method: run for run in plan(data_root, tmp_path / "out", "er,finetune", overwrite=overwrite).runs}
    assert set(made) == ({"er", "finetune"} if er else {"finetune"})
    assert {name: execute(run).steps for name, run in made.items()} == (
        {"er": er, "finetune": finetune} if er else {"finetune": finetune}
    )


def test_another_policy_is_refused(data_root: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="overwrite sometimes: allowed are never, failed, stale, always"):
        plan(data_root, tmp_path, "er", overwrite="sometimes")


@pytest.mark.parametrize(
    ("arguments", "policy"),
    [
        ([], "never"),
        (["--overwrite"], "always"),
        *((["--overwrite", p], p) for p in ("never", "failed", "stale", "always")),
    ],
)
def test_the_flag_takes_a_policy_or_means_always(arguments: list[str], policy: str) -> None:
    from bench.cli.entry import _parser

    options = _parser().parse_args(["run", "--strategies", "er", "--scenario", SCENARIO, *arguments])
    assert options.overwrite == policy
