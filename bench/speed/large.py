"""Whole updates of ResNet-101 on the CPU: methods of both protocols against er, finetune and mib, in one run."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.speed.data import CLASSES, environment, painted_folder
from bench.speed.device import now
from bench.speed.updates import ER, FINETUNE, Bare, print_updates, update_seconds

if TYPE_CHECKING:
    from bench.settings.schema import Config

SCENARIO = "folder-4-2-overlapped"
UPDATES = 1
"""Of each method in each round, offline in each of two epochs."""
ROUNDS = 3


@dataclass(frozen=True)
class Case:
    """Methods of one preset that take turns; batches are those of an update's incoming images."""

    preset: str
    side: int
    batch: int
    methods: tuple[str, ...]
    bare: Bare
    settings: tuple[str, ...] = ()

    @property
    def reference(self) -> str:
        """The method that the others are measured against."""
        return self.bare.method


_OFFLINE = ("memory.size=0", "incremental.epochs=2", "incremental.optimizer=adamw")
CASES = (
    Case("paper", 256, 4, ("er", "ours", "mib"), ER),
    Case("paper", 512, 1, ("er", "ours", "mib"), ER),
    Case("mib", 256, 4, ("finetune", "mib", "plop", "ewf"), FINETUNE, _OFFLINE),
    Case(
        "dkd",
        256,
        4,
        ("finetune", "mib", "dkd"),
        FINETUNE,
        (*_OFFLINE, "data.void=ignore", "incremental.batchnorm=train"),
    ),
)


def large(data_root: Path | None) -> None:
    """Print every case."""
    for case in CASES:
        print_case(case)


def print_case(case: Case, rounds: int = ROUNDS) -> None:
    """Print milliseconds per update and ratios, and the share that the previous model's pass has of mib's update."""
    from bench.settings.merging import resolve_config
    from bench.train.networks import normalisation
    from benchmarks.streams import load_benchmark

    chosen = (
        "network.weights=none",
        f"data.crop={case.side}",
        f"incremental.batch_size={case.batch}",
        "data.workers=0",
    )
    precision = ("runtime.precision=fp32", "runtime.threads=1")
    config = resolve_config(SCENARIO, case.preset, assignments=[*chosen, *precision, *case.settings])
    with tempfile.TemporaryDirectory() as folder, environment("BENCH_CACHE", f"{folder}/cache"):
        root = _painted(Path(folder) / "data", max(CLASSES, 3 * UPDATES * case.batch), case.side)
        benchmark = load_benchmark(SCENARIO, root, size=config.data.size, normalisation=normalisation(config))
        size = f"{case.side} x {case.side} pixels, incoming images an update: {case.batch}"
        print(f"large: {config.network.name}, preset {case.preset}, {size}")
        seconds = update_seconds(case.methods, config, SCENARIO, benchmark, case.bare, rounds)
    print_updates(seconds, case.bare)
    share = forward_seconds(config, case) / seconds["mib"]
    print(f"  the previous model's pass: {100 * share:.0f} % of mib's update")


def _painted(root: Path, images: int, side: int) -> Path:
    """Write training images, a third of them the increment's, and a test image of each class."""
    painted_folder(root, images + CLASSES, (side, side))
    for name, numbers in (("train", range(images)), ("val", range(images, images + CLASSES))):
        (root / f"{name}.txt").write_text("".join(f"{number:05d}\n" for number in numbers), encoding="utf-8")
    return root


def forward_seconds(config: Config, case: Case) -> float:
    """Return the seconds of a pass over an update's images, in evaluation mode, without gradients: the best of two."""
    import torch

    from bench.train.computing import computing
    from bench.train.networks import new_network
    from strategies.learning.protocol import BaseRecipe

    network = new_network(config, BaseRecipe(), 4, pretrained=False).eval()
    images = torch.randn(case.batch * (2 if config.memory.size else 1), 3, case.side, case.side)
    cpu, taken = images.device, []
    with computing(config.runtime), torch.no_grad():
        for _ in range(2):
            started = now(cpu)
            network(images)
            taken.append(now(cpu) - started)
    return min(taken)
