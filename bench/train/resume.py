"""Where a run starts: after its last sound checkpoint, or from the beginning."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bench.plan.job import RunJob
from bench.screen.events import Event, Report
from bench.train.checkpoint import CheckpointError, StepCheckpoints
from bench.train.kept import run_checkpoints
from bench.train.state import load_packed, packed
from benchmarks.streams import SegmentationScenario
from reports.files import RecordError
from reports.run_writer import RunWriter
from strategies.learning.segmentation import SegmentationTemplate


@dataclass
class Start:
    """Where a run starts: after `step`, with `done` updates behind it, and with its template if steps go on from it."""

    step: int = -1
    done: int = 0
    records: str = ""
    """The digest of what was recorded by then."""
    template: SegmentationTemplate | None = None


def keep_step(job: RunJob, step: int, done: int, template: SegmentationTemplate | None, writer: RunWriter) -> None:
    """Write the checkpoint after a step, with the state of the template where the next step goes on from it."""
    state = packed(template.state_dict()) if template else None
    run_checkpoints(job).write(step, {"done": done, "template": state, "records": writer.digest()})


def start_run(
    job: RunJob,
    benchmark: SegmentationScenario,
    new_template: Callable[[], SegmentationTemplate] | None,
    writer: RunWriter,
    report: Report,
) -> Start:
    """Start a run's records after its last sound checkpoint, or anew; say where, and what is wrong with the others.

    `new_template` returns what a checkpoint's state is loaded into, where it has one.
    """
    checkpoints = run_checkpoints(job)
    if job.anew:
        checkpoints.clear()

    def note(text: str) -> None:
        report(Event(job.key, "starting", 0, job.units, note=text))

    for step in checkpoints.steps():
        try:
            start = _restored(checkpoints, step, benchmark, new_template)
            writer.start(job.spec, next_step=step + 1)
            if writer.digest() != start.records:
                raise RecordError(f"{job.folder}: its records up to step {step} are not those of the checkpoint there")
        except (CheckpointError, RecordError) as error:
            checkpoints.after(step).remove()
            note(f"{error}; what came after it is computed again")
            continue
        note(f"goes on after step {step}")
        return start
    writer.start(job.spec)
    return Start()


def _restored(
    checkpoints: StepCheckpoints,
    step: int,
    benchmark: SegmentationScenario,
    new_template: Callable[[], SegmentationTemplate] | None,
) -> Start:
    start = Start(step, template=new_template() if new_template else None)

    def load(state: Any) -> None:
        start.done, start.records = state["done"], state["records"]
        if start.template is not None:
            load_packed(start.template, state["template"], benchmark)
            start.template.clock.train_iterations = start.done

    checkpoints.after(step).restore(load)
    return start
