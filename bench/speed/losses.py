"""The losses alone, forward and backward, on logits of the sizes that large networks give."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

ROUNDS = 7
SIZES = ((21, 8), (151, 2))
"""Outputs and images of 256 x 256 pixels."""
SIDE = 256


def losses(data_root: Path | None) -> None:
    """Print what methods' losses take against er's, and how much memory beside the logits."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for outputs, images in SIZES:
            for form in ("NCHW", "NHWC"):
                _print_size(outputs, images, form)
    finally:
        torch.set_num_threads(threads)


def _print_size(outputs: int, images: int, form: str) -> None:
    print(f"losses: {outputs} outputs, {images} x {SIDE} x {SIDE}, {form}, 1 thread, least of {ROUNDS}")
    logits, kinds = _kinds(outputs, images, form)
    peaks = {name: peak_bytes(partial(_with_gradient, loss, logits)) for name, loss in kinds.items()}
    seconds: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(ROUNDS):
        for name, loss in kinds.items():
            started = time.perf_counter()
            _with_gradient(loss, logits)
            seconds[name].append(time.perf_counter() - started)
    reference = min(seconds["er"])
    for name, taken in seconds.items():
        told = f"{1000 * min(taken):7.1f} ms   {min(taken) / reference:.2f} x er"
        print(f"  {name:<18} {told}   {peaks[name] / logits.nbytes:.2f} x the logits' bytes beside them")


def _kinds(outputs: int, images: int, form: str) -> tuple[Tensor, dict[str, Callable[[Tensor], Tensor]]]:
    """Return logits and the losses of a step that adds a quarter of the outputs; half of the images are of step 0."""
    import torch

    from benchmarks.labels import VOID
    from strategies.learning import losses as whole
    from strategies.learning import offline_losses as offline
    from strategies.learning.tiled import em_loss, unbiased_loss
    from strategies.learning.tiled_offline import labels_and_distillation, one_vs_rest, weighed_cross_entropy

    generator = torch.Generator().manual_seed(0)
    layout = torch.channels_last if form == "NHWC" else torch.contiguous_format
    known = outputs - outputs // 4
    logits, old = (
        (3 * torch.randn(images, count, SIDE, SIDE, generator=generator)).contiguous(memory_format=layout)
        for count in (outputs, known)
    )
    steps = torch.arange(images) % 2
    own = whole.own_classes(steps, torch.tensor([-1] + [0] * (known - 1) + [1] * (outputs - known)))
    labels = torch.zeros(images, SIDE, SIDE, dtype=torch.long)
    labels[:, SIDE // 8 : -SIDE // 4, SIDE // 8 : -SIDE // 8] = torch.where(steps > 0, known, 1)[:, None, None]
    labels[:, SIDE // 8 : SIDE // 7] = VOID

    def ours_in_tensors(z: Tensor) -> Tensor:
        log_p = z.log_softmax(1)
        whole.class_confidences(log_p, labels)
        relabelled = whole.relabel(log_p.detach(), labels, own, 0.8)
        return whole.composite_loss(log_p, labels, relabelled, own, 0.5)

    def mib_in_tensors(z: Tensor) -> Tensor:
        log_p = z.log_softmax(1)
        distillation = whole.unbiased_distillation(log_p, old, labels)
        return whole.unbiased_cross_entropy(log_p, labels, own) + 10 * distillation

    def dkd_in_tensors(z: Tensor) -> Tensor:
        total = whole.classes_vs_rest(z[:, known:], labels, known) + whole.classes_vs_rest(z[:, :1], labels, 0)
        return total / labels.numel() + 5 * offline.sigmoid_distillation(z[:, 1:], old[:, 1:])

    shares = torch.full((images,), 0.5)
    return logits, {
        "er": lambda z: whole.cross_entropy(z, labels),
        "ours": lambda z: em_loss(z, labels, own, 0.8, 0.5).loss,
        "mib": lambda z: unbiased_loss(z, old, labels, own, 10.0),
        "plop": lambda z: weighed_cross_entropy(z, labels, shares),
        "ssul": lambda z: one_vs_rest(z, labels),
        "dkd": lambda z: labels_and_distillation(z, old, labels, 5.0),
        "ours, not in tiles": ours_in_tensors,
        "mib, not in tiles": mib_in_tensors,
        "plop, not in tiles": lambda z: offline.weighed_cross_entropy(z, labels, shares),
        "ssul, not in tiles": lambda z: whole.one_vs_rest(z, labels),
        "dkd, not in tiles": dkd_in_tensors,
    }


def _with_gradient(loss: Callable[[Tensor], Tensor], logits: Tensor) -> None:
    import torch

    torch.autograd.backward(loss(logits.detach().requires_grad_(True)))


def peak_bytes(work: Callable[[], None]) -> int:
    """Return the most bytes that torch holds at a time for what it makes meanwhile, as far as it is held."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        work()
    assert profiled.profiler is not None
    events = [event for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"]
    return max(accumulate(int(event.nbytes()) for event in sorted(events, key=lambda event: event.start_ns())))
