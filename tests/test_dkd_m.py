"""DKD-M: its epochs, the labels of what it replays, which images it keeps."""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from avalanche.core import SupervisedPlugin
from toy import VOID, arrivals, benchmark, equal, full_label_map, make

from bench.plan.protocols import PROTOCOLS
from bench.settings.merging import resolve_config
from bench.train.state import exemplars_of, packed, unpacked
from strategies.dkd import DkdParameters
from strategies.dkd_m import DkdM, DkdMParameters

SETTINGS = ["protocol=offline", "memory.size=0", "incremental.epochs=2", "incremental.batch_size=4"]
OFFLINE = [*SETTINGS, "incremental.lr=0.001", "data.void=negative"]


class Batches(SupervisedPlugin):
    """Writes down each batch, the names of its images from memory, and the learning rate."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[list[torch.Tensor], list[str], float]] = []

    def before_update(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        rate = strategy.optimizer.param_groups[0]["lr"]
        self.seen.append(([part.clone() for part in strategy.mbatch], list(strategy._loaded), rate))


def begun(*plugins: Any, **parameters: Any) -> Any:
    template = make(DkdM, plugins, settings=OFFLINE, **parameters)
    template.begin(benchmark().train_stream[0])
    return template


def test_an_epoch_passes_once_over_the_steps_images_and_those_in_memory_with_the_truth_of_all_classes_seen() -> None:
    batches = Batches()
    template = begun(batches, exemplars=6)
    memory = [exemplar.image_id for exemplar in template.method.memory.exemplars]
    template.train(benchmark().train_stream[1], eval_streams=[])
    ids, count = benchmark().train_stream[1].data.ids, len(arrivals(1)) + 6
    an_epoch = -(-count // 4)
    assert len(memory) == len(set(memory)) == 6 and template.cost.updates == len(batches.seen) == 2 * an_epoch
    orders = []
    for epoch in (batches.seen[:an_epoch], batches.seen[an_epoch:]):
        indices = [i for (_, _, _, indices), _, _ in epoch for i in indices.tolist()]
        names = epoch[0][1]
        assert Counter(names[~i] if i < 0 else ids[i] for i in indices) == Counter([*memory, *ids])
        orders.append(indices)
    assert orders[0] != orders[1]
    rates = [0.001 * (1 - i / (2 * an_epoch)) ** 0.9 for i in range(2 * an_epoch)]
    assert [rate for *_, rate in batches.seen] == pytest.approx(rates)
    for (_, labels, steps, indices), names, _ in batches.seen:
        for annotation, step, index in zip(labels, steps.tolist(), indices.tolist(), strict=True):
            if index < 0:
                raw = full_label_map(names[~index])
                truth = np.where(raw == VOID, VOID, 0)
                for label, c in enumerate((3, 1, 5, 2), start=1):
                    truth[raw == c] = label
                assert np.array_equal(annotation, truth) and step == 0


def test_images_are_chosen_by_what_is_annotated_and_by_sigmoids_of_nine_tenths() -> None:
    template = begun(exemplars=8)
    logits = torch.tensor([[9.0, 2.0, 2.3, 0], [9, 2.2, 2.1, 0], [9, -1, -2, 2.19], [-9, 1, 3, 4]]).T[None, :, :, None]
    assert template.method.sure_classes(logits)[0, :, 0].tolist() == [2, 1, 0, 3]
    before = {exemplar.image_id for exemplar in template.method.memory.exemplars}
    passed: list[int] = []
    template.end_epoch = lambda: passed.append(template.cost.images)
    template.train(benchmark().train_stream[1], eval_streams=[])
    step = set(benchmark().train_stream[1].data.ids)
    kept = [exemplar.image_id for exemplar in template.method.memory.exemplars]
    assert len(set(kept)) == len(kept) == template.method.kept() == 8 and set(kept) <= before | step
    assert template.cost.images == passed[-1] + len(step | before)
    assert not template.network.head._forward_hooks


def test_it_goes_on_from_its_state_bit_for_bit() -> None:
    """Taken up after a step, and within the next one after an epoch, with the memory."""
    first = begun(exemplars=5)
    first.train(benchmark().train_stream[1], eval_streams=[])
    after_step, epochs = copy.deepcopy(packed(first.state_dict())), list[Any]()
    first.end_epoch = lambda: epochs.append(
        copy.deepcopy({**first.epoch_state(), "method": packed(first.method.state_dict())})
    )
    first.train(benchmark().train_stream[2], eval_streams=[])
    exemplars = exemplars_of(benchmark())
    again = make(DkdM, settings=OFFLINE, exemplars=5)
    again.load_state_dict(unpacked(after_step, exemplars))
    torch.manual_seed(99)
    again.start_step = lambda: again.load_epoch_state({**epochs[0], "method": unpacked(epochs[0]["method"], exemplars)})
    again.train(benchmark().train_stream[2], eval_streams=[])
    assert equal(again.network.state_dict(), first.network.state_dict())
    assert packed(again.method.state_dict()) == packed(first.method.state_dict())
    assert again.cost.images == first.cost.images


def test_images_beside_a_steps_own_are_planned_for() -> None:
    config = resolve_config("shapes", None, None, SETTINGS)
    parts = [np.arange(7), np.arange(6), np.arange(3)]
    planned = [
        PROTOCOLS["offline"].extent(parameters, config, parts).units
        for parameters in (DkdParameters(), DkdMParameters(exemplars=5), DkdMParameters())
    ]
    assert planned == [2 * (2 + 1), 2 * (3 + 2), 2 * (4 + 3)]
