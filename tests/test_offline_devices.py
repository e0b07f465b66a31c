"""Offline increments on several devices: the updates are those of one, and a stop within a step loses nothing."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import torch
from test_resume import TINY, Watcher, files, plan, planned
from usual import usual

from bench.plan.job import RunJob
from bench.screen import stopping
from bench.screen.events import Event
from bench.settings.errors import RequestError
from bench.settings.merging import resolve_config
from bench.train.keeping import network_path
from bench.train.kept import base_model, run_checkpoints
from bench.train.work import Work
from bench.use.loading import KeptNetwork
from benchmarks.annotated import _Places
from strategies.learning.devices import Devices
from strategies.learning.offline import OfflineTemplate
from strategies.learning.protocol import OfflineProtocol
from strategies.learning.randomness import Seeds

OFFLINE = [*TINY, "base.epochs=1", "protocol=offline", "incremental.epochs=2", "incremental.batch_size=7"]
SETTINGS = [*OFFLINE, "memory.size=0", "incremental.optimizer=sgd", "incremental.lr=0.02"]
METHODS = {"dkd": "data.void=negative", "plop(thresholds=median)": "data.void=ignore"}
"""Every image weighs as much in the loss of its rank as in that of the whole batch, whatever of it is void; plop's
thresholds are those of all images.
"""


def job_on(method: str, devices: int, data_root: Path, out: Path, *more: str) -> RunJob:
    settings = [*SETTINGS, METHODS[method], f"base.devices={devices}", *more]
    [job] = plan(data_root, out / str(devices), method, assignments=settings).runs
    return job


@pytest.mark.parametrize("method", usual(METHODS, "plop(thresholds=median)"))
def test_two_devices_make_the_updates_of_one(method: str, data_root: Path, tmp_path: Path) -> None:
    """Where BatchNorm does not normalise by a rank's own share; a rank has four images of a batch, the other three."""
    jobs = [job_on(method, devices, data_root, tmp_path, "incremental.batchnorm=statistics") for devices in (1, 2)]
    of_one, of_two = (base_model(job.spec["base"]["hash"]) for job in jobs)
    of_two.write(of_one.read())
    networks, costs = [], []
    for job in jobs:
        Work(job).execute(lambda event: None)
        networks.append(KeptNetwork(network_path(job.folder, 2), torch.device("cpu")).network.state_dict())
        costs.append((job.folder / "costs.csv").read_text(encoding="utf-8").splitlines()[-1].split(","))
    base = of_one.read()["network"]
    for name, tensor in networks[0].items():
        torch.testing.assert_close(networks[1][name], tensor, rtol=1e-4, atol=2e-6)
    assert (networks[0]["head.bias"][:11] - base["head.bias"]).abs().max() > 1e-3
    header = (jobs[0].folder / "costs.csv").read_text(encoding="utf-8").splitlines()[0].split(",")
    for column in ("updates", "images", "incoming_batches"):
        assert costs[0][header.index(column)] == costs[1][header.index(column)]


def test_a_stop_within_a_step_on_two_devices_ends_with_the_same_files(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = "plop(thresholds=median)", 2, data_root
    whole, cut = (job_on(*settings, tmp_path / name, "incremental.epochs=5") for name in ("whole", "cut"))
    Work(whole).execute(lambda event: None)

    def stops(event: Event) -> None:
        if event.step == 1 and not event.finished_step:
            stopping.ask_to_stop()

    with monkeypatch.context() as patch:
        patch.setattr(stopping, "_asked", threading.Event())
        with pytest.raises(stopping.Stopped):
            Work(cut).execute(stops)
    assert run_checkpoints(cut).during(1).path.is_file()
    watcher = Watcher()
    Work(cut).execute(watcher)
    assert any(note.startswith("goes on after epoch") for note in watcher.notes), watcher.notes
    assert files(tmp_path / "cut") == files(tmp_path / "whole")


def test_several_devices_go_without_memory_and_accumulation(data_root: Path, tmp_path: Path) -> None:
    settings = [*TINY, "protocol=offline", "base.devices=2", "memory.size=0"]
    with pytest.raises(RequestError, match=r"^strategy ssul-m\(.*one device, not on base.devices=2$"):
        plan(data_root, tmp_path, "ssul-m(saliency=none)", device="cpu", assignments=settings)
    with pytest.raises(RequestError, match=r"^memory.size=5: increments on several devices"):
        resolve_config("shapes", "small", None, ["protocol=offline", "memory.size=5", "base.devices=2"])
    for where in ("base", "incremental"):
        with pytest.raises(RequestError, match=rf"^{where}.accumulate and base.devices both divide a batch"):
            resolve_config("shapes", "small", None, ["protocol=offline", f"{where}.accumulate=2", "base.devices=2"])


def test_an_increments_batch_has_an_image_for_each_device(data_root: Path, tmp_path: Path) -> None:
    settings = [*OFFLINE, "memory.size=0", "incremental.batch_size=2", "base.devices=3"]
    with pytest.raises(RequestError, match=r"^base.devices=3: offline increments are shared too, and .* is 2$"):
        plan(data_root, tmp_path, "finetune", device="cpu", assignments=settings)
    assert planned(data_root, tmp_path, "joint", device="cpu", assignments=settings).runs
    enough = [*settings, "incremental.batch_size=3"]
    assert planned(data_root, tmp_path, "finetune", device="cpu", assignments=enough).runs


@pytest.mark.parametrize(("images", "batch", "devices"), [(1, 24, 4), (3, 24, 8), (9, 8, 2), (10, 4, 4), (11, 4, 3)])
def test_all_devices_make_the_same_updates_of_however_few_images(images: int, batch: int, devices: int) -> None:
    seeds = Seeds(initialisation=0, order=1, augmentation=2, memory=3)
    protocol = OfflineProtocol(1, batch, "sgd", 0.1, 0.9, 0.0, 0, 0.9)
    step = SimpleNamespace(data=SimpleNamespace(step=1))
    template = SimpleNamespace(
        seeds=seeds, protocol=protocol, experience=step, images=images, train_mb_size=batch, devices=Devices()
    )
    template.devices.size = devices
    order, seed = OfflineTemplate._order(cast(OfflineTemplate, template), 0)
    shares = [list(_Places(batch, order, seed, (number, devices))) for number in range(devices)]
    updates = protocol.updates_an_epoch(images)
    assert all(len(share) == updates and all(share) for share in shares)
    assert set(order) == set(range(images))
