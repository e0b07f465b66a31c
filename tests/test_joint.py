"""joint: the base protocol on every step's images with every step's labels, and nothing of the online stage."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from toy import LABEL_OF, LEARNED, VOID, arrivals, benchmark, full_label_map, id_by_content
from usual import usual

import bench
import bench.train.epochs
import bench.train.increments
import bench.train.run
from bench.screen.events import Event
from bench.settings.merging import resolve_config
from bench.train.run import make_run
from benchmarks.cache import cache_folder
from reports.counts import StepCounts, folded
from reports.records import read_run
from strategies.joint import JointParameters
from strategies.learning.losses import BASE_LOSSES, cross_entropy
from strategies.learning.protocol import BaseRecipe

EPOCHS = 2


def known_labels(image_id: str, t: int) -> np.ndarray:
    """The full annotation of an image with the classes of steps 0..t."""
    full = full_label_map(image_id)
    labels = np.where(full == VOID, VOID, 0)
    for raw, label in LABEL_OF.items():
        if any(label in classes for classes in LEARNED[: t + 1]):
            labels[full == raw] = label
    return labels


@dataclass
class Step:
    """What a run writes of a step, and the base protocol's updates done by then."""

    matrix: np.ndarray
    cost: dict[str, Any]
    done: int = 0


def offline(
    monkeypatch: pytest.MonkeyPatch, folder: Path, **parameters: Any
) -> tuple[list[Step], list[list[tuple[str, np.ndarray]]]]:
    """The steps evaluated, and the images with their labels that each training met, in order."""
    met: list[list[tuple[str, np.ndarray]]] = []
    build, by_content = bench.train.epochs.new_network, id_by_content()
    current: list[torch.Tensor] = []

    def watched(*args: Any, **kwargs: Any) -> Any:
        network = build(*args, **kwargs)
        network.register_forward_pre_hook(
            lambda trained, given: current.append(given[0].contiguous()) if trained.training else None
        )
        met.append([])
        return network

    def noted(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        for image, annotated in zip(current.pop(), labels, strict=True):
            met[-1].append((by_content[image.contiguous().numpy().tobytes()][0], annotated.numpy()))
        return cross_entropy(logits, labels)

    def forbidden(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("joint needs no base model")

    monkeypatch.setattr(bench.train.epochs, "new_network", watched)
    monkeypatch.setitem(BASE_LOSSES, "cross-entropy", noted)
    monkeypatch.setattr(bench.train.increments, "load_base", forbidden)
    config = resolve_config(
        "shapes", None, None, ["keep=none", "data.flip=false", f"base.epochs={EPOCHS}", "base.batch_size=6"]
    )
    job: Any = SimpleNamespace(
        device="cpu",
        config=config,
        recipe=BaseRecipe(),
        seed=0,
        key="joint",
        method="joint",
        parameters=JointParameters(**parameters),
        scenario="toy-3-1-overlapped",
        units=0,
        spec=dict.fromkeys(("scenario", "hash", "code"), "toy")
        | {"conventions": {}}
        | {"base": None, "seed": 0, "versions": {}, "plugins": [], "network_plugins": []},
        folder=folder,
        anew=False,
        loggers=(),
        bars=(),
    )
    steps: list[Step] = []

    class Writer:
        """Stands in for the run directory."""

        def __init__(self, path: Path) -> None: ...

        def start(self, spec: Any) -> None: ...

        def add_step(self, counts: StepCounts, cost: dict[str, Any], contours: Any) -> None:
            steps.append(Step(folded(counts, "background", "known"), cost))
            assert len(steps) == len(met)  # a network of its own for each

        def digest(self) -> str:
            return ""

        def add_pictures(self, kind: str, pictures: Any) -> None: ...

        def finish(self) -> None: ...

    def report(event: Event) -> None:
        if event.finished_step:
            steps[-1].done = event.done

    monkeypatch.setattr(bench.train.run, "RunWriter", Writer)
    make_run(job, benchmark(), report)
    return steps, met


@pytest.mark.parametrize(("parameters", "trained"), [({}, [2]), ({"every_step": True}, [0, 1, 2])])
def test_joint_meets_every_image_once_an_epoch_with_the_labels_of_all_steps_so_far(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, parameters: dict[str, Any], trained: list[int]
) -> None:
    steps, met = offline(monkeypatch, tmp_path / "run", **parameters)
    assert [step.cost["step"] for step in steps] == trained
    assert [step.matrix.shape for step in steps] == [((4, 4), (5, 5), (7, 7))[t] for t in trained]
    assert all(step.cost["updates"] == 0 for step in steps)  # none of them online
    updates = 0
    for t, step, seen in zip(trained, steps, met, strict=True):
        union = set().union(*(arrivals(tau) for tau in range(t + 1)))
        epochs = [seen[i : i + len(union)] for i in range(0, len(seen), len(union))]
        assert len(epochs) == EPOCHS
        for epoch in epochs:
            assert Counter(name for name, _ in epoch) == Counter(union)
        assert [name for name, _ in epochs[0]] != [name for name, _ in epochs[1]]
        for name, labels in seen:
            np.testing.assert_array_equal(labels, known_labels(name, t))
        known = {c for classes in LEARNED[: t + 1] for c in classes}
        assert {int(v) for _, labels in seen for v in np.unique(labels)} == {0, VOID, *known}
        updates += EPOCHS * -(-len(union) // 6)
        assert step.done == updates


def test_in_the_toy_images_come_in_several_steps_and_only_all_steps_together_tell_all_labels() -> None:
    """So that the test above tells joint from training on the steps one after the other."""
    assert arrivals(0) & arrivals(1) and arrivals(1) & arrivals(2)
    assert any(len(set(np.unique(known_labels(name, 2))) - {0, VOID}) > 1 for name in arrivals(2))


QUICK = {"data.size": 32, "base.epochs": 1, "base.warmup_steps": 2, "base.batch_size": 8}


EVERY_STEP = ("joint(every_step=true)", list(range(6)))


@pytest.mark.parametrize(("strategy", "steps"), usual([("joint", [5]), EVERY_STEP], EVERY_STEP))
def test_a_run_of_joint_needs_no_base_model_and_has_the_steps_it_was_asked_for(
    tiny_voc: Path, tmp_path: Path, strategy: str, steps: list[int]
) -> None:
    bases = set(cache_folder("bases").iterdir())
    result = bench.run(
        [strategy],
        "voc-15-1-overlapped",
        data_root=tiny_voc,
        preset="small",
        settings=QUICK,
        out=tmp_path / "out",
        device="cpu",
    )
    assert set(cache_folder("bases").iterdir()) == bases
    assert list(result.frame.step) == steps
    assert result.frame.miou.between(0, 100).all()
    run = read_run(Path(result.frame.run.iloc[0]))
    assert run.spec["base"] is None
    assert run.confusions[-1].shape == (21, 21)
    assert [len(matrix) for matrix in run.confusions] == [16 + t for t in steps]
