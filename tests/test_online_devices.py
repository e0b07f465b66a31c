"""Online increments on several devices: the updates, the memory and E(c) are those of one device."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import toy
from test_loggers import tensorboard
from test_resume import TINY, plan
from torch import Tensor

from bench.plan.job import RunJob
from bench.screen.events import Report
from bench.settings.errors import RequestError
from bench.settings.merging import resolve_config
from bench.settings.schema import RuntimeConfig
from bench.train.distributed import Rank, run_ranks
from bench.train.keeping import network_path
from bench.train.kept import base_model
from bench.train.ranked import RankDevices
from bench.train.work import Work
from bench.use.loading import KeptNetwork
from strategies.learning.protocol import BaseRecipe
from strategies.learning.registry import STRATEGIES, method_class
from strategies.learning.template import OnlineTemplate
from strategies.networks.build import build_network

ONE_THREAD = RuntimeConfig(threads=1, precision="fp32", tf32=False)
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "finetune": ("finetune", {}),
    "er": ("er", {}),
    "mib": ("mib", {}),
    "lwf-mc": ("lwf-mc", {}),
    "ours": ("ours", {"delta": 0.3}),
    "ours, separate": ("ours", {"delta": 0.3, "e_step": "separate"}),
    "ours, cross-entropy": ("ours", {"loss": "cross-entropy"}),
}
SHARED = {name for name, _ in CASES.values()}


class Losses(toy.SupervisedPlugin):
    """Writes down the loss of every update, and how many images the hooks after it see."""

    def __init__(self) -> None:
        super().__init__()
        self.of_updates: list[float] = []
        self.images: list[int] = []

    def after_training_iteration(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        self.of_updates.append(strategy.loss.item())
        self.images.append(len(strategy.mb_x))


def in_doubles(module: Any, images: tuple[Tensor]) -> tuple[Tensor]:
    return (images[0].double(),)


def trained(case: str, rank: Rank | None) -> tuple[OnlineTemplate, Losses]:
    """The template after both increments, computed in double precision."""
    name, parameters = CASES[case]
    losses = Losses()
    settings = ["incremental.batchnorm=frozen", "incremental.lr=0.05", "memory.size=6"]
    template = toy.make(name, [losses], settings=settings, **parameters)
    template.network.double().register_forward_pre_hook(in_doubles)
    template._distributed_check = True
    if rank is not None:
        template.devices = RankDevices(rank)
    return toy.train(template, steps=[1]), losses


def untrained(recipe: BaseRecipe) -> dict[str, Tensor]:
    torch.manual_seed(11)
    return build_network("small", 3, recipe.head, recipe.tau).state_dict()


def compares(rank: Rank, report: Report) -> None:
    """Train every case with the other ranks, and the first rank each alone too; what differs raises there."""
    toy.base_model = untrained
    for case in CASES:
        several, theirs = trained(case, rank)
        if not rank.leads:
            continue
        one, its = trained(case, None)
        np.testing.assert_allclose(theirs.of_updates, its.of_updates, rtol=3e-7, err_msg=case)
        assert theirs.images == its.images, case
        start, expected = untrained(one.method.recipe(one.method.parameters)), one.network.state_dict()
        for key, found in several.network.state_dict().items():
            np.testing.assert_allclose(found, expected[key], rtol=1e-7, atol=1e-9, err_msg=f"{case}, {key}")
        moved = expected["head.weight"][: len(start["head.weight"])] - start["head.weight"]
        assert moved.abs().max() > 1e-3, case
        assert one.method.kept() == several.method.kept()
        memory, shared = (getattr(t.method, "memory", None) for t in (one, several))
        assert memory is None or [e.image_id for e in memory.exemplars] == [e.image_id for e in shared.exemplars], case
        if "ours" in case:
            np.testing.assert_allclose(several.method.confidence, one.method.confidence, rtol=1e-7, err_msg=case)
            assert one.method.confidence.max() > 0.01
        for column in ("incoming_batches", "updates", "forward_passes", "backward_passes"):
            assert getattr(one.cost, column) == getattr(several.cost, column), (case, column)


def test_the_updates_of_several_devices_are_those_of_one() -> None:
    """Three devices share batches of 4 + 4 and 2 + 2 images; of finetune's last, two images, one gets none."""
    run_ranks(compares, 3, "cpu", ONE_THREAD, lambda event: None)


# ------------------------------------------------------------------------------------------ whole runs


def job_on(method: str, devices: int, data_root: Path, out: Path, *more: str) -> RunJob:
    settings = [*TINY, "base.epochs=1", f"incremental.devices={devices}", *more]
    given = {"assignments": settings, "device": "cpu", "loggers": ["tensorboard", "csv"]}
    [job] = plan(data_root, out / str(devices), method, **given).runs
    return job


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8") as text:
        return list(csv.DictReader(text))


@pytest.mark.long
def test_a_run_on_two_devices_ends_as_one_on_one(data_root: Path, tmp_path: Path) -> None:
    """Memory and E(c) go through the processes of both increments, and what was logged is logged."""
    more = "incremental.batchnorm=frozen", "incremental.lr=0.02"
    jobs = [job_on("ours(delta=0.3)", devices, data_root, tmp_path, *more) for devices in (1, 2)]
    assert jobs[0].spec["base"]["hash"] == jobs[1].spec["base"]["hash"]
    assert [job.devices for job in jobs] == [1, 2]
    networks = []
    for job in jobs:
        Work(job).execute(lambda event: None)
        networks.append(KeptNetwork(network_path(job.folder, 2), torch.device("cpu")).network.state_dict())
    for name, tensor in networks[0].items():
        torch.testing.assert_close(networks[1][name], tensor, rtol=1e-3, atol=1e-5)
    base = base_model(jobs[0].spec["base"]["hash"]).read()["network"]
    assert (networks[0]["head.weight"][:11] - base["head.weight"]).abs().max() > 1e-3
    one, two = (rows(job.folder / "costs.csv") for job in jobs)
    for column in ("incoming_batches", "updates", "forward_passes", "backward_passes", "memory_images", "memory_bytes"):
        assert [row[column] for row in one] == [row[column] for row in two], column
    one, two = (rows(job.folder / "steps.csv") for job in jobs)
    assert [float(row["miou"]) for row in two] == pytest.approx([float(row["miou"]) for row in one], abs=1)
    assert len(one) == 3
    logged = [tensorboard(job) for job in jobs]
    for metric in ("Loss_MB", "Loss_Epoch"):
        (updates, losses), (theirs, found) = (
            zip(*s[f"{metric}/train_phase/train_stream"], strict=True) for s in logged
        )
        assert theirs == updates
        assert found == pytest.approx(losses, rel=1e-3)
    training = [rows(job.folder / "logs" / "csv" / "training_results.csv") for job in jobs]
    assert [row["training_exp"] for row in training[1]] == ["1", "2"]
    assert [float(row["training_loss"]) for row in training[1]] == pytest.approx(found, abs=1e-3)


# ------------------------------------------------------------------------------------------ what may be asked for


def test_methods_that_cannot_share_a_batch_are_refused_by_name(data_root: Path, tmp_path: Path) -> None:
    built_in = {name.partition(":")[2] for name in STRATEGIES.built_in_names()}
    online = {name for name in built_in if "online" in method_class(name).protocols}
    assert {name for name in online if method_class(name).shares_batches} == SHARED
    assert online - SHARED == {"agem", "mir", "icarl", "coriseg"}
    for name in online - SHARED:
        said = rf"^strategy {name}: its online increments are trained on one device, not on incremental.devices=2; "
        with pytest.raises(RequestError, match=said):
            job_on(name, 2, data_root, tmp_path)
    assert job_on("joint", 2, data_root, tmp_path).devices == 1


def test_a_subclass_says_again_that_it_shares_batches() -> None:
    other: Any = type("Other", (method_class("er"),), {})
    assert not other.shares_batches


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["protocol=offline", "incremental.devices=2"], "incremental.devices is a setting of protocol=online"),
        (["incremental.batch_size=2", "incremental.devices=5"], "incremental.devices=5: an update has 2 incoming"),
        (["incremental.devices=65"], "incremental.devices=65: input should be less than or equal to 64"),
    ],
)
def test_what_is_not_possible_is_said(settings: list[str], said: str) -> None:
    with pytest.raises(RequestError, match=f"^{said}"):
        resolve_config("shapes", "small", None, settings)


def test_one_device_is_in_no_hash_and_several_are(data_root: Path, tmp_path: Path) -> None:
    jobs = [job_on("er", devices, data_root, tmp_path) for devices in (1, 2)]
    [unsaid] = plan(data_root, tmp_path / "unsaid", "er", assignments=[*TINY, "base.epochs=1"], device="cpu").runs
    assert jobs[0].spec["hash"] == unsaid.spec["hash"] != jobs[1].spec["hash"]
