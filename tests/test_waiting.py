"""No update waits for its device: from the forward pass to the optimiser's step nothing has to be read by the host."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from avalanche.core import SupervisedPlugin
from torch.utils._python_dispatch import TorchDispatchMode
from toy import benchmark, make
from usual import usual


class Waits(TorchDispatchMode):
    """Writes down each operation whose result the host has to wait for, or whose result's size is in the data."""

    KINDS = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "is_nonzero", "aten.equal", "bincount")

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        by_mask = "index.Tensor" in str(function) and any(
            place is not None and place.dtype == torch.bool for place in args[1]
        )
        if by_mask or any(kind in str(function) for kind in self.KINDS):
            self.seen.append(str(function))
        return function(*args, **(kwargs or {}))


class Watch(SupervisedPlugin):
    """Looks at every update, from its forward pass on."""

    def __init__(self) -> None:
        super().__init__()
        self.waits, self.updates = Waits(), 0

    def before_forward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        self.waits.__enter__()

    def after_update(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        self.waits.__exit__(None, None, None)
        self.updates += 1


SGD = ["incremental.optimizer=sgd", "incremental.lr=0.01"]  # AdamW counts its steps on the host
OFFLINE = ["protocol=offline", "memory.size=0", "incremental.epochs=1", "incremental.batch_size=4", *SGD]
ONLINE_METHODS = ["er", "ours", "mib", "lwf-mc", "mir"]
OFFLINE_METHODS = ["finetune", "mib", "lwf", "ilt", "ewf", "plop", "ssul", "dkd", "dkd-m"]
CASES = [*((name, []) for name in ONLINE_METHODS), *((name, OFFLINE) for name in OFFLINE_METHODS)]


@pytest.mark.parametrize(
    ("name", "settings"), usual(CASES, ("ours", []), ("mir", []), ("plop", OFFLINE), ("dkd-m", OFFLINE))
)
def test_no_update_waits_for_its_device(name: str, settings: list[str]) -> None:
    watch = Watch()
    template = make(name, [watch], settings=settings)
    template.begin(benchmark().train_stream[0])
    for t in (1, 2):
        template.train(benchmark().train_stream[t], eval_streams=[])
    assert watch.updates >= 6
    assert not watch.waits.seen


def test_what_waits_is_seen() -> None:
    labels = torch.arange(4)
    for work in (lambda: labels.max().item(), lambda: labels[labels > 1], lambda: labels.bincount(), labels.nonzero):
        with Waits() as waits:
            work()
        assert waits.seen


def test_the_host_keeps_which_images_came_and_need_not_ask_the_device() -> None:
    """`incoming` reads no tensor, whatever has joined the batch or replaced images of it."""
    template = make("er")
    template.begin(benchmark().train_stream[0])
    template.experience = benchmark().train_stream[1]
    data = template.experience.data
    template.mbatch = next(iter(data.batches(4, [3, 1, 0, 2])))
    template._unpack_minibatch()
    memory = template.load([benchmark().train_stream[0].data.exemplar(i) for i in range(2)])
    with Waits() as waits:
        template.join(memory)
        came = template.incoming()
    assert [e.index for e in came] == [3, 1, 0, 2] and not waits.seen
    template.replace(memory, torch.tensor([2, 0]))
    assert [e.index for e in template.incoming()] == [1, 2] == [i for i in template.mbatch[3].tolist() if i >= 0]
    template.mbatch = [part[:2] for part in template.mbatch]  # as offline, where a batch is passed in parts
    assert [e.index for e in template.incoming()] == [1]
