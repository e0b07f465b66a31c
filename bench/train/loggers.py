"""Avalanche's loggers on a run, below RUN/logs; the x of every value is the number of updates done by then."""

from __future__ import annotations

import math
import os
import secrets
import shutil
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar

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
        logger = RunCSVLogger(folder / "csv", start.step)
        self.callback(logger.close)
        return logger

    def _tensorboard(self, folder: Path, start: Start) -> BaseLogger:
        logger = RunTensorboardLogger(folder / "tensorboard", None if start.step < 0 else start.done + 1)
        self.callback(logger.writer.close)
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
    """Return the metrics: an epoch is all of a step's training, a stream the complete test set of a step."""
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
    """Avalanche's TensorBoard logger; what an earlier process logged from `purge_step` on is not shown."""

    def __init__(self, folder: Path, purge_step: int | None) -> None:
        self.purge_step = purge_step
        super().__init__(folder)

    def _make_writer(self, folder: Path, suffix: str) -> SummaryWriter:
        return SummaryWriter(folder, purge_step=self.purge_step, filename_suffix=suffix)


class RunCSVLogger(CSVLogger):
    """Avalanche's CSV logger and file names, a row per step, with other columns.

    Its own are accuracies and forgetting, which nobody measures here. Rows up to `last_step` are kept.
    """

    TRAINING: ClassVar = {"training_loss": "Loss_Epoch", "seconds": "Time_Epoch"}
    EVALUATION: ClassVar = {**{column: name for name, column in MIOU.items()}, "seconds": "Time_Stream"}

    def __init__(self, folder: Path, last_step: int) -> None:
        files = (folder / "training_results.csv", folder / "eval_results.csv")
        kept = [_rows_until(last_step, file) for file in files]
        super().__init__(folder)
        for file, key, columns, rows in (
            (self.training_file, "training_exp", self.TRAINING, kept[0]),
            (self.eval_file, "eval_exp", self.EVALUATION, kept[1]),
        ):
            file.seek(0)
            file.truncate()
            print(key, *columns, sep=",", file=file)
            print(*rows, sep="", end="", file=file, flush=True)

    def _print_row(self, file: Any, columns: Iterable[str], strategy: Any, values: Sequence[MetricValue]) -> None:
        by_name = {value.name.partition("/")[0]: self._val_to_str(value.value) for value in values}
        cells = [by_name.get(name, "") for name in columns]
        print(strategy.experience.current_experience, *cells, sep=",", file=file, flush=True)

    def after_training_epoch(self, strategy: Any, metric_values: Sequence[MetricValue], **kwargs: Any) -> None:
        """Write a step's training."""
        self._print_row(self.training_file, self.TRAINING.values(), strategy, metric_values)

    def after_eval_exp(self, strategy: Any, metric_values: Sequence[MetricValue], **kwargs: Any) -> None:
        """Leave it to `after_eval`, when all pixels are counted."""

    def after_eval(self, strategy: Any, metric_values: Sequence[MetricValue], **kwargs: Any) -> None:
        """Write a step's evaluation."""
        self._print_row(self.eval_file, self.EVALUATION.values(), strategy, metric_values)


def _rows_until(step: int, file: Path) -> list[str]:
    """Return the lines of the steps up to `step`; one that was cut short is of a later step."""
    if not file.exists():
        return []
    lines = [line for line in file.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]
    return [line for line in lines if line.partition(",")[0] in map(str, range(step + 1))]
