"""Avalanche's loggers on a run, below RUN/logs; the x of every value is the number of updates done by then."""

from __future__ import annotations

import math
import os
import secrets
import shutil
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar, TextIO

from avalanche.evaluation import PluginMetric
from avalanche.evaluation.metric_results import MetricValue
from avalanche.evaluation.metric_utils import get_metric_name
from avalanche.evaluation.metrics import MinibatchLoss, loss_metrics, timing_metrics
from avalanche.logging import BaseLogger, CSVLogger, TensorboardLogger, WandBLogger
from torch.utils.tensorboard import SummaryWriter

from bench.plan.job import RunJob
from bench.train.evaluating import step_counts
from bench.train.resume import Start
from reports.spec import Spec
from reports.steps import own_confusion, steps_rows
from strategies.learning.evaluation import PixelMeter, new_evaluator

MIOU = {"mIoU": "miou", "mIoU_old": "old", "mIoU_new": "new"}
"""The columns of steps.csv that are logged, by the name of the metric."""


class RunLoggers(ExitStack):
    """The loggers that a run was asked for: `open` them once it is known where the run starts; leaving closes them.

    `evaluator` is what the run's templates report to, without metrics where no logger was asked for.
    """

    def __init__(self, job: RunJob, meter: PixelMeter) -> None:
        super().__init__()
        self.job = job
        self.evaluator = new_evaluator(*(_metrics(job.spec, meter) if job.loggers else ()))

    def open(self, start: Start) -> None:
        """Keep what was logged up to the start, nothing of a run that starts anew, and add the loggers."""
        folder = self.job.folder / "logs"
        if start.step < 0:
            shutil.rmtree(folder, ignore_errors=True)
        add = {"csv": self._csv, "tensorboard": self._tensorboard, "wandb": self._wandb}
        for name in self.job.loggers:
            self.evaluator.loggers.append(add[name](folder, start))

    def _csv(self, folder: Path, start: Start) -> BaseLogger:
        logger = RunCSVLogger(folder / "csv")
        self.callback(logger.close)
        return logger

    def _tensorboard(self, folder: Path, start: Start) -> BaseLogger:
        logger = RunTensorboardLogger(folder / "tensorboard")
        self.callback(logger.close)
        return logger

    def _wandb(self, folder: Path, start: Start) -> BaseLogger:
        """Start a Weights & Biases run, or go on with the one of this run directory."""
        import wandb

        spec = self.job.spec
        self.push(lambda kind, error, trace: wandb.finish(exit_code=0 if kind is None else 1))
        logger = RunWandBLogger(
            project_name=os.environ.get("WANDB_PROJECT") or "continual-seg-bench",
            run_name=f"{spec['scenario']} {spec['strategy']} seed {spec['seed']} {spec['hash']}",
            config=spec,
            dir=folder,
            save_code=False,
            params={
                "id": _kept_id(folder / "wandb" / "id"),
                "resume": "allow",
                "settings": {"silent": True, "console": "off"},
            },
        )
        logger.exp_count = max(start.step, 0)
        return logger


def _kept_id(file: Path) -> str:
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(secrets.token_hex(4), encoding="utf-8")
    return file.read_text(encoding="utf-8")


# ------------------------------------------------------------------------------------------------ metrics


def _metrics(spec: Spec, meter: PixelMeter) -> list[PluginMetric[Any]]:
    """Return the metrics: online an epoch is all of a step's training; a stream is the complete test set of a step."""
    groups = [GroupMeanIoU(name, spec, meter) for name in MIOU]
    return [BatchLoss(), *loss_metrics(epoch=True), *timing_metrics(epoch=True, stream=True), *groups]


class BatchLoss(MinibatchLoss):
    """The loss of each update, at the number of updates done with it: Avalanche's own is at one less."""

    def _package_result(self, strategy: Any) -> list[MetricValue]:
        values: list[MetricValue] = super()._package_result(strategy)
        for value in values:
            value.x_plot += 1
        return values


class GroupMeanIoU(PluginMetric[float]):
    """A mIoU of `steps.csv`, in per cent, after each evaluation: from the pixels that the run records."""

    def __init__(self, name: str, spec: Spec, meter: PixelMeter) -> None:
        super().__init__()
        self.name = name
        self.spec = spec
        self.meter = meter

    def __str__(self) -> str:
        return self.name

    def reset(self) -> None:
        """Keep nothing: the counts are the meter's."""

    def result(self) -> float:
        """Return the mIoU, NaN for a group not yet learned."""
        counts = step_counts(self.meter, self.spec["conventions"]["evaluate_on"])
        [row] = steps_rows(self.spec, [own_confusion(self.spec, counts)])
        return row[MIOU[self.name]]

    def after_eval(self, strategy: Any) -> list[MetricValue]:
        """Emit the mIoU of a group that is learned."""
        value = self.result()
        name = get_metric_name(self, strategy, add_task=False)
        return [] if math.isnan(value) else [MetricValue(self, name, value, strategy.clock.train_iterations)]


# ------------------------------------------------------------------------------------------------ loggers


class RunWandBLogger(WandBLogger):
    """Avalanche's Weights & Biases logger, for numbers alone: its own asks newer wandb for a module that is gone."""

    def log_single_metric(self, name: str, value: float, x_plot: int) -> None:
        """Log a number at `x_plot` updates, unless an earlier process went further: no step is taken back."""
        self.step = x_plot
        if x_plot >= self.wandb.run.step:
            self.wandb.log({name: value}, step=x_plot)


class RunTensorboardLogger(TensorboardLogger):
    """Avalanche's TensorBoard logger; what an earlier process logged from the first value's place on is not shown."""

    writer: SummaryWriter | None

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        super().__init__(folder)

    def _make_writer(self, folder: Path, suffix: str) -> SummaryWriter | None:
        return None  # until it is known where this process goes on

    def log_single_metric(self, name: str, value: Any, x_plot: int) -> None:
        """Log a number at `x_plot` updates."""
        if self.writer is None:
            self.writer = SummaryWriter(self.folder, purge_step=x_plot)
        super().log_single_metric(name, value, x_plot)

    def close(self) -> None:
        """Write what is not written yet."""
        if self.writer is not None:
            self.writer.close()


class RunCSVLogger(CSVLogger):
    """Avalanche's CSV logger and file names, a row per epoch (online there is one) and per evaluation, other columns.

    Its own are accuracies and forgetting, which nobody measures here. What earlier processes wrote of an epoch or an
    evaluation that is written again, and of all after it, is dropped.
    """

    TRAINING: ClassVar = {"training_loss": "Loss_Epoch", "seconds": "Time_Epoch"}
    EVALUATION: ClassVar = {**{column: name for name, column in MIOU.items()}, "seconds": "Time_Stream"}

    def __init__(self, folder: Path) -> None:
        training, evaluation = (_whole_lines(folder / f"{kind}_results.csv")[1:] for kind in ("training", "eval"))
        super().__init__(folder)
        self.training_table = _Table(self.training_file, ("training_exp", "epoch"), self.TRAINING, training)
        self.eval_table = _Table(self.eval_file, ("eval_exp",), self.EVALUATION, evaluation)

    def after_training_epoch(self, strategy: Any, metric_values: Sequence[MetricValue], **kwargs: Any) -> None:
        """Write an epoch's training."""
        place = (strategy.experience.current_experience, getattr(strategy, "epochs_done", 0) + 1)
        self.training_table.write(place, self._cells(self.TRAINING.values(), metric_values))

    def after_eval_exp(self, strategy: Any, metric_values: Sequence[MetricValue], **kwargs: Any) -> None:
        """Leave it to `after_eval`, when all pixels are counted."""

    def after_eval(self, strategy: Any, metric_values: Sequence[MetricValue], **kwargs: Any) -> None:
        """Write a step's evaluation."""
        place = (strategy.experience.current_experience,)
        self.eval_table.write(place, self._cells(self.EVALUATION.values(), metric_values))

    def _cells(self, columns: Iterable[str], values: Sequence[MetricValue]) -> list[str]:
        by_name = {value.name.partition("/")[0]: self._val_to_str(value.value) for value in values}
        return [by_name.get(name, "") for name in columns]


class _Table:
    """A CSV file whose rows begin with their place, whole numbers that grow."""

    def __init__(self, file: TextIO, places: Sequence[str], columns: Iterable[str], lines: Sequence[str]) -> None:
        head = [*places, *columns]
        self.file, self.head, self.width = file, ",".join(head) + "\n", len(places)
        self._set([line for line in lines if line.count(",") == len(head) - 1])

    def write(self, place: tuple[int, ...], cells: Sequence[str]) -> None:
        """Write a row in the place of those that are there or after it."""
        before = [line for line in self.lines if self._place(line) < place]
        if len(before) < len(self.lines):
            self._set(before)
        self.lines.append(",".join([*map(str, place), *cells]) + "\n")
        print(self.lines[-1], end="", file=self.file, flush=True)

    def _place(self, line: str) -> tuple[int, ...]:
        return tuple(map(int, line.split(",")[: self.width]))

    def _set(self, lines: list[str]) -> None:
        self.lines = lines
        self.file.seek(0)
        self.file.truncate()
        print(self.head, *lines, sep="", end="", file=self.file, flush=True)


def _whole_lines(file: Path) -> list[str]:
    """Return a file's lines, less one that was cut short."""
    if not file.exists():
        return []
    return [line for line in file.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]
