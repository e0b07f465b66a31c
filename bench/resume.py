"""Where a run starts: after its last sound checkpoint, or from the beginning."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.checkpoint import CheckpointError, StepCheckpoints, exemplars_of, packed, unpacked
from bench.events import Event, Report
from benchmarks.streams import SegmentationScenario
from reports.records import RecordError, RunWriter
from strategies.registry import method_class
from strategies.template import OnlineTemplate

if TYPE_CHECKING:
    from bench.jobs import RunJob


@dataclass
class Start:
    """Where a run starts: after `step`, with `done` updates behind it, and if online with its template."""

    step: int = -1
    done: int = 0
    records: str = ""
    """The digest of what was recorded by then."""
    template: OnlineTemplate | None = None


def run_checkpoints(job: RunJob) -> StepCheckpoints:
    """Return the checkpoints of a run."""
    return StepCheckpoints(job.folder / "checkpoint", job.spec)


def keep_step(job: RunJob, step: int, done: int, template: OnlineTemplate, writer: RunWriter) -> None:
    """Write the checkpoint after a step, if the method can give its state; an offline one needs none of it."""
    method = method_class(job.method)
    if method.offline or method.resumable:
        state = None if method.offline else packed(template.state_dict())
        run_checkpoints(job).write(step, {"done": done, "template": state, "records": writer.digest()})


def start_run(
    job: RunJob,
    benchmark: SegmentationScenario,
    new_template: Callable[[], OnlineTemplate | None],
    writer: RunWriter,
    report: Report,
) -> Start:
    """Start a run's records after its last sound checkpoint, or anew; say where, and what is wrong with the others.

    `new_template` returns what a checkpoint's state is loaded into, None for an offline method.
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
    new_template: Callable[[], OnlineTemplate | None],
) -> Start:
    start = Start(step, template=new_template())

    def load(state: Any) -> None:
        start.done, start.records = state["done"], state["records"]
        if start.template is not None:
            find, watched = exemplars_of(benchmark), start.template.watched
            start.template.load_state_dict(unpacked(state["template"], lambda *place: watched(find(*place))))
            start.template.clock.train_iterations = start.done

    checkpoints.after(step).restore(load)
    return start
