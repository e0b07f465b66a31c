"""TensorBoard, CSV and Weights & Biases show what a run records, and change none of it."""

import csv
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import wandb
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from usual import usual

import bench
import bench.train.offline
import bench.train.run
import bench.train.template
from bench.cli.arguments import request_of
from bench.launch.session import prepare
from bench.plan.job import RunJob
from bench.plan.plan import Plan
from bench.plan.request import Request
from bench.settings.errors import RequestError
from bench.train.work import Work
from reports.records import find_runs
from strategies.learning.offline import OfflineTemplate
from strategies.learning.template import OnlineTemplate

SCENARIO = "voc-10-5-overlapped"
TINY = ("data.size=16", "base.epochs=3", "base.batch_size=8", "memory.size=8", "evaluation.pictures=2")
GROUPS = {"mIoU": "miou", "mIoU_old": "old", "mIoU_new": "new"}
FLOAT32 = 1e-6
"""Relative: what TensorBoard stores."""
ROUNDED = 0.51e-4
"""Four decimals."""


class Died(Exception):
    pass


def plan(data_root: Path, out: Path, strategies: str, **changes: Any) -> Plan:
    request: dict[str, Any] = {"data_root": data_root, "preset": "small", "assignments": TINY, "jobs": 1, **changes}
    made = prepare(Request(strategies, SCENARIO, out=out, **request), Console(quiet=True))
    for base in made.bases.values():
        Work(base).execute(lambda event: None)
    return made


def execute(data_root: Path, out: Path, strategy: str, **changes: Any) -> RunJob:
    [job] = plan(data_root, out, strategy, **changes).runs
    Work(job).execute(lambda event: None)
    return job


def rows(file: Path) -> list[dict[str, str]]:
    with file.open() as text:
        return list(csv.DictReader(text))


Scalars = dict[str, list[tuple[int, float]]]


def tensorboard(job: RunJob) -> Scalars:
    """(x, value) of everything in a run's event files, by the metric's name."""
    events = EventAccumulator(str(job.folder / "logs" / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def evaluated(scalars: Scalars, metric: str, stream: str = "test") -> list[tuple[int, float]]:
    return scalars[f"{metric}/eval_phase/{stream}_stream"]


def updates(job: RunJob) -> list[int]:
    """The updates done by the end of each evaluated step, counted from the recorded batches."""
    done, counts = 0, []
    for row in rows(job.folder / "costs.csv"):
        done += int(row["incoming_batches"])
        counts.append(done)
    return counts


# ------------------------------------------------------------------------------------------------ what is shown


@pytest.fixture(scope="module")
def er(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunJob, list[float]]:
    """A run with TensorBoard and CSV, and the losses that its template had after each update."""
    losses = []
    real = bench.train.template.Progress.after_training_iteration

    def heard(self: Any, strategy: Any, *args: Any, **kwargs: Any) -> None:
        losses.append(strategy.loss.item())
        real(self, strategy, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench.train.template.Progress, "after_training_iteration", heard)
        job = execute(data_root, tmp_path_factory.mktemp("er"), "er", loggers="tensorboard,csv", evaluate_on="valid")
    return job, losses


def test_tensorboard_shows_the_miou_of_steps_csv_at_the_updates_done(er: tuple[RunJob, list[float]]) -> None:
    job, _ = er
    steps, scalars = rows(job.folder / "steps.csv"), tensorboard(job)
    for name, column in GROUPS.items():
        recorded = [(x, float(row[column])) for x, row in zip(updates(job), steps, strict=True) if row[column]]
        shown = evaluated(scalars, name, "valid")
        assert [x for x, _ in shown] == [x for x, _ in recorded]
        assert [y for _, y in shown] == pytest.approx([y for _, y in recorded], rel=FLOAT32, abs=ROUNDED)
    assert len(evaluated(scalars, "mIoU", "valid")) == 3
    assert len(evaluated(scalars, "mIoU_new", "valid")) == 2


def test_tensorboard_shows_the_loss_of_every_update_and_of_every_step(er: tuple[RunJob, list[float]]) -> None:
    job, losses = er
    scalars = tensorboard(job)
    shown = scalars["Loss_MB/train_phase/train_stream"]
    assert [x for x, _ in shown] == list(range(1, job.units + 1))
    assert [y for _, y in shown] == pytest.approx(losses, rel=FLOAT32)
    per_step = scalars["Loss_Epoch/train_phase/train_stream"]
    assert [x for x, _ in per_step] == updates(job)[1:]
    middle = updates(job)[1]
    for (_, mean), of_step in zip(per_step, (losses[:middle], losses[middle:]), strict=True):
        assert min(of_step) < mean < max(of_step)


def test_seconds_are_within_those_of_costs_csv(er: tuple[RunJob, list[float]]) -> None:
    job, _ = er
    scalars, costs = tensorboard(job), rows(job.folder / "costs.csv")
    training = scalars["Time_Epoch/train_phase/train_stream"]
    assert all(0 < y <= float(row["seconds"]) for (_, y), row in zip(training, costs[1:], strict=True))
    evaluation = evaluated(scalars, "Time_Stream", "valid")
    assert all(0 < y <= float(row["evaluation_seconds"]) for (_, y), row in zip(evaluation, costs, strict=True))


def test_the_csv_files_hold_a_row_per_step_that_agrees(er: tuple[RunJob, list[float]]) -> None:
    job, _ = er
    folder, scalars = job.folder / "logs" / "csv", tensorboard(job)
    evaluation, training = rows(folder / "eval_results.csv"), rows(folder / "training_results.csv")
    steps = rows(job.folder / "steps.csv")
    assert [row["eval_exp"] for row in evaluation] == ["0", "1", "2"]
    for column in GROUPS.values():
        assert [row[column] for row in evaluation] == [row[column] for row in steps]
    assert [(row["training_exp"], row["epoch"]) for row in training] == [("1", "1"), ("2", "1")]
    shown = [y for _, y in scalars["Loss_Epoch/train_phase/train_stream"]]
    assert [float(row["training_loss"]) for row in training] == pytest.approx(shown, abs=ROUNDED)


@pytest.mark.long
def test_joint_shows_its_miou_at_the_updates_done(data_root: Path, tmp_path: Path) -> None:
    job = execute(data_root, tmp_path, "joint(every_step=true)", loggers=["csv", "tensorboard"])
    xs, shown = zip(*evaluated(tensorboard(job), "mIoU"), strict=True)
    recorded = [float(row["miou"]) for row in rows(job.folder / "steps.csv")]
    assert shown == pytest.approx(recorded, rel=FLOAT32, abs=ROUNDED)
    assert 0 < xs[0] < xs[1] < xs[2] == job.units
    evaluation = rows(job.folder / "logs" / "csv" / "eval_results.csv")
    assert [row["miou"] for row in evaluation] == [row["miou"] for row in rows(job.folder / "steps.csv")]


# ------------------------------------------------------------------------------------------------ nothing changes


def results(out: Path) -> dict[str, bytes]:
    """Every file of the runs below a folder but the logs and the times."""
    found = {str(file.relative_to(out)): file for file in (out / SCENARIO).rglob("*") if file.is_file()}
    times = ("costs.csv", "log.txt")
    return {name: file.read_bytes() for name, file in found.items() if "/logs/" not in name and file.name not in times}


@pytest.mark.parametrize("strategy", usual(["ours", "agem", "joint"], "ours"))
def test_a_run_with_loggers_is_the_run_without(strategy: str, data_root: Path, tmp_path: Path) -> None:
    without = execute(data_root, tmp_path / "without", strategy)
    with_them = execute(data_root, tmp_path / "with", strategy, loggers="csv,tensorboard")
    assert without.spec == with_them.spec
    assert results(tmp_path / "without") == results(tmp_path / "with")
    assert not (without.folder / "logs").exists()
    assert [run.path for run in find_runs(tmp_path / "with")] == [with_them.folder]


def test_weights_and_biases_is_not_started_unless_asked_for(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def started(*args: Any, **kwargs: Any) -> None:
        pytest.fail("wandb was started")

    for name in ("init", "setup", "login"):
        monkeypatch.setattr(wandb, name, started)
    job = execute(data_root, tmp_path, "finetune", loggers="csv,tensorboard")
    assert sorted(path.name for path in (job.folder / "logs").iterdir()) == ["csv", "tensorboard"]


# ------------------------------------------------------------------------------------------------ going on


def untimed(job: RunJob) -> tuple[Scalars, list[list[dict[str, str]]]]:
    """What TensorBoard shows and what the CSV files hold, without the seconds."""
    scalars = {tag: values for tag, values in tensorboard(job).items() if not tag.startswith("Time")}
    tables = [rows(job.folder / "logs" / "csv" / f"{kind}_results.csv") for kind in ("training", "eval")]
    return scalars, [[{k: v for k, v in row.items() if k != "seconds"} for row in table] for table in tables]


When = Callable[..., bool]


def dying(real: Callable[..., Any], when: When, finished: bool) -> Callable[..., None]:
    """`real`, but it dies at the call that `when` holds for: instead of its work, or once that is `finished`."""

    def call(*args: Any, **kwargs: Any) -> None:
        if finished or not when(*args):
            real(*args, **kwargs)
        if when(*args):
            raise Died

    return call


def of_step_1(job: RunJob, step: int, *rest: Any) -> bool:
    return step == 1


def second_of_step_2(template: OnlineTemplate) -> bool:
    return template.experience.data.step == 2 and template.clock.train_exp_iterations == 1


@pytest.mark.parametrize(
    ("owner", "name", "when", "finished", "next_step"),
    [
        pytest.param(
            bench.train.run, "keep_step", of_step_1, False, 1, id="before a checkpoint", marks=pytest.mark.long
        ),
        pytest.param(bench.train.run, "keep_step", of_step_1, True, 2, id="after a checkpoint", marks=pytest.mark.long),
        pytest.param(OnlineTemplate, "backward", second_of_step_2, False, 2, id="within a step"),
    ],
)
def test_a_run_that_died_logs_what_an_undisturbed_one_does(
    owner: Any, name: str, when: When, finished: bool, next_step: int, data_root: Path, tmp_path: Path
) -> None:
    whole = execute(data_root, tmp_path / "whole", "er", loggers="csv,tensorboard")
    [job] = plan(data_root, tmp_path / "cut", "er", loggers="csv,tensorboard").runs
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, dying(getattr(owner, name), when, finished))
        with pytest.raises(Died):
            Work(job).execute(lambda event: None)
    assert len(evaluated(tensorboard(job), "mIoU")) == 2
    time.sleep(1)  # TensorBoard reads event files in the order of the seconds in their names
    steps: list[int | None] = []
    Work(job).execute(lambda event: steps.append(event.step) if event.finished_step else None)
    assert steps == list(range(next_step, 3))
    assert untimed(job) == untimed(whole)


def in_epoch_3_of_step_1(template: OfflineTemplate) -> bool:
    return template.experience.data.step == 1 and template.epochs_done == 2


def test_an_offline_run_that_died_within_a_step_logs_every_epoch_once(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench.train.offline, "CHECKPOINT_SECONDS", 0.0)
    settings: dict[str, Any] = {
        "assignments": (*TINY, "protocol=offline", "incremental.epochs=3", "memory.size=0"),
        "loggers": "csv,tensorboard",
    }
    whole = execute(data_root, tmp_path / "whole", "finetune", **settings)
    [job] = plan(data_root, tmp_path / "cut", "finetune", **settings).runs
    with monkeypatch.context() as patch:
        patch.setattr(OfflineTemplate, "backward", dying(OfflineTemplate.backward, in_epoch_3_of_step_1, False))
        with pytest.raises(Died):
            Work(job).execute(lambda event: None)
    time.sleep(1)  # TensorBoard reads event files in the order of the seconds in their names
    notes: list[str] = []
    Work(job).execute(lambda event: notes.append(event.note))
    assert "goes on after epoch 2 of step 1" in notes
    assert untimed(job) == untimed(whole)
    training = rows(job.folder / "logs" / "csv" / "training_results.csv")
    epochs = [(row["training_exp"], row["epoch"]) for row in training]
    assert epochs == [(step, epoch) for step in "12" for epoch in "123"]


def test_a_run_made_again_keeps_nothing_of_the_logs_before(data_root: Path, tmp_path: Path) -> None:
    execute(data_root, tmp_path, "er", loggers="csv,tensorboard")
    again = execute(data_root, tmp_path, "er", loggers="csv,tensorboard", overwrite="always")
    assert len(list((again.folder / "logs" / "tensorboard").iterdir())) == 1
    assert [row["eval_exp"] for row in rows(again.folder / "logs" / "csv" / "eval_results.csv")] == ["0", "1", "2"]
    execute(data_root, tmp_path, "er", overwrite="always")
    assert not (again.folder / "logs").exists()


FAILS_AFTER_STEP_1_AND_GOES_ON = """
import sys
import bench, bench.train.run

keep_step = bench.train.run.keep_step

def failing(job, step, *rest):
    keep_step(job, step, *rest)
    if step == 1:
        raise RuntimeError("failed on purpose")

def run():
    scenario, data_root, out, *settings = sys.argv[1:]
    return bench.run(
        "er", scenario, data_root=data_root, out=out, preset="small", loggers=("csv", "tensorboard", "wandb"),
        settings=dict(setting.split("=") for setting in settings),
    )

bench.train.run.keep_step = failing
assert run().failures
bench.train.run.keep_step = keep_step
assert not run().failures
"""


@pytest.mark.long
def test_a_run_goes_on_in_weights_and_biases_offline_and_quietly(data_root: Path, tmp_path: Path) -> None:
    """In a process of its own: Weights & Biases reads its environment once."""
    plain = execute(data_root, tmp_path / "plain", "er")
    [job] = plan(data_root, tmp_path / "out", "er").runs
    arguments = [SCENARIO, str(data_root), str(tmp_path / "out"), *TINY]
    package = str(Path(bench.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", FAILS_AFTER_STEP_1_AND_GOES_ON, *arguments],
        env={**os.environ, "PYTHONPATH": package, "WANDB_MODE": "offline", "WANDB_PROJECT": "tried"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "goes on after step 1" in done.stdout
    assert "wandb" not in done.stdout + done.stderr
    assert results(tmp_path / "out") == results(tmp_path / "plain")
    files = sorted((job.folder / "logs" / "wandb").glob("offline-run-*/*.wandb"))
    assert len(files) == 2
    assert len({file.name for file in files}) == 1
    for file in files:
        content = file.read_bytes()
        for said in ("tried", "split_hash", f"{SCENARIO} er seed 0 {job.spec['hash']}", "Loss_MB", "mIoU_new"):
            assert said.encode() in content
    evaluation = rows(job.folder / "logs" / "csv" / "eval_results.csv")
    assert [row["miou"] for row in evaluation] == [row["miou"] for row in rows(plain.folder / "steps.csv")]


# ------------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("tensorbord", "--loggers tensorbord: did you mean tensorboard? (known: csv, tensorboard, wandb)"),
        ("csv,x", "--loggers x: unknown (known: csv, tensorboard, wandb)"),
        (["CSV"], "--loggers CSV: unknown (known: csv, tensorboard, wandb)"),
    ],
)
def test_an_unknown_logger_is_refused(asked: str | list[str], message: str, data_root: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError) as refusal:
        bench.run("er", SCENARIO, data_root=data_root, out=tmp_path, loggers=asked)
    assert str(refusal.value) == message


def test_a_missing_package_is_named(data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(RequestError, match=r"^--loggers wandb: the package is missing; pip install wandb$"):
        plan(data_root, tmp_path, "er", loggers=["wandb"])


def test_without_an_account_the_way_out_is_named(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Online:
        class settings:
            mode = "online"

    def nobody(**kwargs: Any) -> None:
        raise wandb.errors.UsageError("No API key configured.")

    monkeypatch.setattr(wandb, "setup", Online)
    monkeypatch.setattr(wandb, "login", nobody)
    with pytest.raises(RequestError, match=r"No API key configured\. WANDB_MODE=offline needs no account\.$"):
        plan(data_root, tmp_path, "er", loggers="wandb")


@pytest.mark.parametrize("command", [["run", "--strategies", "er", "--scenario", SCENARIO], ["reproduce", "1"]])
def test_both_commands_take_loggers(command: list[str]) -> None:
    from bench.cli.entry import _parser

    parser = _parser()
    asked = request_of(parser.parse_args([*command, "--loggers", "csv,wandb"]), "er", SCENARIO)
    assert asked.loggers == ("csv", "wandb")
    assert not request_of(parser.parse_args(command), "er", SCENARIO).loggers
