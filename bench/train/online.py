"""The online protocol: from the base model, one pass over each increment."""

from __future__ import annotations

from collections.abc import Iterator

from bench.train.base import load_base
from bench.train.protocol import Trained, Training
from bench.train.resume import Start


class OnlineTraining(Training):
    """One update per incoming batch; the template enforces the rest."""

    keeps_template = True

    def steps(self, start: Start) -> Iterator[Trained]:
        """Yield after the base step, which is not trained here, and after each increment."""
        stream = self.benchmark.train_stream
        template, done = start.template, start.done
        if template is None:
            template = self.untrained()
            load_base(self.job.spec["base"]["hash"], template.network)
            template.begin(stream[0])
            yield Trained(0, done, template)
        for t in range(max(1, start.step + 1), len(stream)):
            template.train(stream[t], eval_streams=[])
            done += template.cost.incoming_batches
            yield Trained(t, done, template)
