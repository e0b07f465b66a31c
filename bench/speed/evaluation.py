"""The evaluation of images as large as ADE20K's, of 151 outputs, against one that makes scores of all pixels."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

from bench.speed.losses import peak_bytes

OUTPUTS, IMAGES, SIZE = 151, 4, (512, 683)
ROUNDS = 5


def evaluation(data_root: Path | None) -> None:
    """Print images a second and memory of both, and their ratio; the network is small, its weights are random."""
    import torch
    from torch.nn.functional import interpolate

    from strategies.learning.evaluation import best_classes, largest_of, pixel_counts
    from strategies.networks.build import build_network

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = build_network("small", OUTPUTS - 1).to(memory_format=torch.channels_last).eval()
    coarse = interpolate(torch.randn(IMAGES, 3, 8, 10), size=SIZE, mode="bicubic")
    images = (coarse + 0.1 * torch.randn(IMAGES, 3, *SIZE)).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(OUTPUTS, (IMAGES, *SIZE))

    def evaluate(all_pixels: bool) -> None:
        with torch.no_grad():
            if all_pixels:
                classes = best_classes(network(images))
            else:
                classes = largest_of(network, images, lambda: network(images))
            pixel_counts(classes, labels, OUTPUTS - 1, OUTPUTS)

    seconds: dict[bool, list[float]] = {False: [], True: []}
    try:
        for _ in range(ROUNDS):
            for kind, taken in seconds.items():
                started = time.perf_counter()
                evaluate(kind)
                taken.append(time.perf_counter() - started)
    finally:
        torch.set_num_threads(threads)
    print(
        f"evaluation: {OUTPUTS} outputs, {IMAGES} x {SIZE[0]} x {SIZE[1]}, small network, 1 thread, least of {ROUNDS}"
    )
    whole = min(seconds[True])
    for kind, taken in seconds.items():
        name = "scores of all pixels" if kind else "classes from cells"
        peak = peak_bytes(partial(evaluate, kind))
        told = f"{IMAGES / min(taken):6.1f} images/s   {whole / min(taken):.2f} x all pixels'"
        print(f"  {name:<22} {told}   {peak / 1e6:,.0f} MB held by torch")
