"""Make the finished runs of this folder anew, and from them `pinned_tables`: `python tests/finished_runs/make.py`.

The confusion matrices are random numbers, plausible at a glance and nothing else: no network ever saw an image. The
numbers of classes and the layout of a run directory are real. `pinned_tables` is what `reports` makes of them.
"""

from __future__ import annotations

import shutil
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from reports.grids import NeededRun, needed
from reports.numbered import write_numbered
from reports.records import find_runs
from reports.run_writer import RunWriter
from reports.spec import SCHEMA
from reports.statistics_tables import write_statistics

RUNS = Path(__file__).resolve().parent
TABLES = RUNS.parent / "pinned_tables"

GROUPS = {
    "19-1": (19, 1),
    "15-5": (15, 5),
    "15-1": (15, 1, 1, 1, 1, 1),
    "100-50": (100, 50),
    "100-10": (100, 10, 10, 10, 10, 10),
    "50-50": (50, 50, 50),
}
VOC = ("voc-19-1-disjoint", "voc-15-5-disjoint", "voc-15-1-disjoint")
# A few only: their matrices are large.
ADE_ALONE = {"ade-100-50-disjoint": ("er", "ours"), "ade-100-10-disjoint": ("ours",), "ade-50-50-disjoint": ("mib",)}


def wanted() -> list[tuple[NeededRun, int]]:
    """Return which runs there are, with their seeds: Table 1's disjoint half less a seed, 2 and 4 whole, 3 in part."""
    voc = [need for need in needed(1, "voc") if need.scenario in VOC]
    by_memory = [need for need in needed(2, "voc") if need.memory != 100]
    ade = [need for need in needed(3, "ade") if need.strategy in ADE_ALONE.get(need.scenario, ())]
    seeded = [*product(voc, (0, 1, 2)), *product(by_memory, (0, 1)), *product([*ade, *needed(4, "ade")], (0,))]
    gone = {(need, 2) for need in voc if (need.strategy, need.scenario) == ("mir", "voc-19-1-disjoint")}
    return [each for each in seeded if each not in gone]


def write_runs(out: Path) -> None:
    """Write every wanted run below `out`, a new folder for each."""
    for need, seed in wanted():
        spec = spec_of(need, seed)
        path = out / need.scenario / need.strategy / f"{spec['hash']}-seed{seed}"
        shutil.rmtree(path, ignore_errors=True)
        writer = RunWriter(path)
        writer.start(spec)
        random = np.random.default_rng([need.memory, seed, *f"{need.scenario} {need.strategy}".encode()])
        known = 1
        for step in spec["steps"]:
            known += len(step["classes"])
            writer.add_step(matrix(random, known, len(spec["steps"][0]["classes"]) + 1), cost(step["step"]))
        writer.finish()


def spec_of(need: NeededRun, seed: int) -> dict[str, Any]:
    """Return what the tables read of a spec, for a run of the paper's protocol."""
    dataset, split = need.scenario.split("-", 1)
    ends = np.cumsum(GROUPS[split.rsplit("-", 1)[0]]).tolist()
    steps = [
        {"step": t, "classes": list(range(first + 1, last + 1))}
        for t, (first, last) in enumerate(zip([0, *ends], ends, strict=False))
    ]
    return {
        "schema": SCHEMA,
        "scenario": need.scenario,
        "strategy": need.strategy,
        "seed": seed,
        "hash": f"made-up-{need.memory}",
        "method": {"name": need.strategy.split("(")[0], "parameters": {}},
        "config": {"memory": {"size": need.memory}},
        "conventions": {
            "future_classes": "background",
            "background_in_mean": True,
            "resolution": "none (random numbers)",
            "evaluate_on": "test",
        },
        "class_names": ["background", *(f"c{number}" for number in range(1, ends[-1] + 1))],
        "steps": steps,
        "split_hash": f"split of {need.scenario}",
        "division": "made up",
        "data": {"name": dataset, "root": None, "fingerprint": f"made-up {dataset}"},
    }


def matrix(random: np.random.Generator, known: int, base: int) -> np.ndarray:
    """Random pixel counts, known x known: of 60 pixels a class 25-55 are right if old, 5-35 if new; the rest spread."""
    hits = np.concatenate([random.integers(25, 55, base), random.integers(5, 35, known - base)])
    counts = np.diag(hits).astype(np.int64)
    for _ in range(2):
        counts[np.arange(known), random.integers(0, known, known)] += (60 - hits) // 2
    return counts


def cost(step: int) -> dict[str, Any]:
    """Return a row of costs.csv."""
    batches = 50 if step else 0
    return {"step": step, "incoming_batches": batches, "seconds": 0.5 * batches, "forward_passes": batches}


def write_tables(runs_folder: Path, out: Path) -> list[Path]:
    """Write every table and statistic of the runs below `out`; return the files."""
    runs = find_runs(runs_folder)
    return [
        *write_numbered([1, 2, 3, 4], runs, out),
        *write_numbered([1, 2, 3, 4], runs, out / "compared", compare=True),
        *write_statistics(runs, out / "statistics"),
    ]


if __name__ == "__main__":
    write_runs(RUNS)
    shutil.rmtree(TABLES, ignore_errors=True)
    write_tables(RUNS, TABLES)
