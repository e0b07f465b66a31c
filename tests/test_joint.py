"""joint: the base protocol on every step's images with every step's labels, and nothing of the online stage."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from toy import LABEL_OF, LEARNED, VOID, arrivals, benchmark, full_label_map, id_by_content

import bench
import bench.base
import bench.runner
from bench.config import resolve_config
from bench.runner import _offline_steps
from benchmarks.cache import cache_folder
from reports.records import read_run
from strategies.joint import Joint, JointParameters
from strategies.losses import cross_entropy
from strategies.protocol import BaseRecipe

EPOCHS = 2


def known_labels(image_id: str, t: int) -> np.ndarray:
    """The full annotation of an image with the classes of steps 0..t."""
    full = full_label_map(image_id)
    labels = np.where(full == VOID, VOID, 0)
    for raw, label in LABEL_OF.items():
        if any(label in classes for classes in LEARNED[: t + 1]):
            labels[full == raw] = label
    return labels


def offline(monkeypatch: pytest.MonkeyPatch, **parameters: Any) -> tuple[list[Any], list[list[tuple[str, np.ndarray]]]]:
    """What `_offline_steps` yields, and the images with their labels that each training met, in order."""
    met: list[list[tuple[str, np.ndarray]]] = []
    build, by_content = bench.base.new_network, id_by_content()
    current: list[torch.Tensor] = []

    def watched(*args: Any, **kwargs: Any) -> Any:
        network = build(*args, **kwargs)
        network.register_forward_pre_hook(lambda _, given: current.append(given[0].contiguous()))
        met.append([])
        return network

    def noted(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        for image, annotated in zip(current.pop(), labels, strict=True):
            met[-1].append((by_content[image.contiguous().numpy().tobytes()][0], annotated.numpy()))
        return cross_entropy(logits, labels)

    def forbidden(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("joint needs no base model")

    monkeypatch.setattr(bench.base, "new_network", watched)
    monkeypatch.setitem(bench.base.BASE_LOSSES, "cross-entropy", noted)
    monkeypatch.setattr(bench.runner, "load_base", forbidden)
    config = resolve_config("shapes", None, None, ["data.flip=false", f"base.epochs={EPOCHS}", "base.batch_size=6"])
    job: Any = SimpleNamespace(
        device="cpu",
        config=config,
        recipe=BaseRecipe(),
        seed=0,
        key="joint",
        parameters=JointParameters(**parameters),
        scenario="toy-3-1-overlapped",
        units=0,
        spec={"base": None},
    )
    steps = []
    for t, done, template in _offline_steps(job, Joint, benchmark(), [], lambda _: None):
        assert len(met) == len(steps) + 1
        steps.append((t, done, template.network.outputs, template.measured().updates))
    return steps, met


@pytest.mark.parametrize(("parameters", "trained"), [({}, [2]), ({"every_step": True}, [0, 1, 2])])
def test_joint_meets_every_image_once_an_epoch_with_the_labels_of_all_steps_so_far(
    monkeypatch: pytest.MonkeyPatch, parameters: dict[str, Any], trained: list[int]
) -> None:
    steps, met = offline(monkeypatch, **parameters)
    assert [t for t, *_ in steps] == trained
    assert [outputs for _, _, outputs, _ in steps] == [(4, 5, 7)[t] for t in trained]
    assert len(met) == len(trained)
    updates = 0
    for t, done, _, online_updates in steps:
        union = set().union(*(arrivals(step) for step in range(t + 1)))
        seen = met[trained.index(t)]
        epochs = [seen[i : i + len(union)] for i in range(0, len(seen), len(union))]
        assert len(epochs) == EPOCHS
        for epoch in epochs:
            assert Counter(name for name, _ in epoch) == Counter(union)
        assert [name for name, _ in epochs[0]] != [name for name, _ in epochs[1]]
        for name, labels in seen:
            np.testing.assert_array_equal(labels, known_labels(name, t))
        assert {int(v) for _, labels in seen for v in np.unique(labels)} == {0, VOID, *sum(LEARNED[: t + 1], [])}
        updates += EPOCHS * -(-len(union) // 6)
        assert done == updates
        assert online_updates == 0


def test_in_the_toy_images_come_in_several_steps_and_only_all_steps_together_tell_all_labels() -> None:
    """So that the test above tells joint from training on the steps one after the other."""
    assert arrivals(0) & arrivals(1) and arrivals(1) & arrivals(2)
    assert any(len(set(np.unique(known_labels(name, 2))) - {0, VOID}) > 1 for name in arrivals(2))


QUICK = {"data.size": 32, "base.epochs": 1, "base.warmup_steps": 2, "base.batch_size": 8}


@pytest.mark.parametrize(("strategy", "steps"), [("joint", [5]), ("joint(every_step=true)", list(range(6)))])
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
