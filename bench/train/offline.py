"""An increment of the offline protocol: trained over epochs, with checkpoints between them."""

from __future__ import annotations

from typing import Any

from bench.plan.job import RunJob
from bench.screen.events import Event, Report, Throttle
from bench.screen.stopping import Stopped, stop_asked
from bench.train.distributed import Rank
from bench.train.epochs import CHECKPOINT_SECONDS
from bench.train.held_out import held_out_miou
from bench.train.kept import run_checkpoints
from bench.train.state import exemplars_of, packed, unpacked
from benchmarks.streams import SegmentationScenario
from strategies.learning.offline import OfflineTemplate


def train_offline(
    job: RunJob, benchmark: SegmentationScenario, template: OfflineTemplate, step: int, rank: Rank, report: Report
) -> None:
    """Train a step, or go on within it where a sound checkpoint of it is there.

    Checkpoints are of methods that say that they can be taken up (`Method.resumable`). The first of several ranks
    writes them, evaluates for `weights=best` and reports.
    """
    checkpoint, due = run_checkpoints(job).during(step), Throttle(CHECKPOINT_SECONDS)

    def note(text: str) -> None:
        report(Event(job.key, "training", template.clock.train_iterations, job.units, note=text))

    def take_up() -> None:
        if not checkpoint.path.exists():
            return
        if fault := checkpoint.fault():
            note(f"{fault}; step {step} is trained from its start")
            return

        def load(state: Any) -> None:
            template.load_epoch_state({**state, "method": unpacked(state["method"], exemplars_of(benchmark))})

        checkpoint.restore(load)
        note(f"goes on after epoch {template.epochs_done} of step {step}")

    def end_epoch() -> None:
        if template.protocol.weights == "best" and rank.leads:
            held_out = benchmark.valid_stream[step].data
            sizes = template.eval_mb_size, template.workers
            template.keep_if_best(held_out_miou(template.predicted, template.network.outputs, held_out, *sizes))
        last = template.epochs_done == template.epochs
        stopping = not last and rank.agreed(stop_asked())
        if rank.leads and template.method.resumable and not last and (due.due() or stopping):
            state = template.epoch_state()
            checkpoint.write({**state, "method": packed(state["method"])})
        if stopping:
            raise Stopped

    template.start_step, template.end_epoch = take_up, end_epoch
    template.train(benchmark.train_stream[step], eval_streams=[])
