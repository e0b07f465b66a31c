"""Every method on a device other than the CPU, where tensors of both places cannot be taken together."""

from __future__ import annotations

import csv
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from far_device import FAR, HERE, FarDevice
from test_resume import TINY, execute, plan
from usual import usual

from bench.plan.plugins import STRATEGIES
from bench.train.keeping import network_path
from bench.use.loading import KeptNetwork
from bench.use.segmenter import Segmenter
from strategies import mir
from strategies.learning.registry import method_class


def test_tensors_of_two_places_are_refused_together() -> None:
    with FarDevice():
        near, far = torch.zeros(2), torch.zeros(2, device=FAR)
        assert (near.device, far.device, far.cpu().device, (far + 1).device) == (HERE, FAR, HERE, FAR)
        assert (near.to(FAR) + far).to(near).device == HERE
        assert (torch.tensor(2.0) * far)[torch.tensor([0])].device == FAR
        for together in (lambda: near + far, lambda: torch.cat([near, far]), lambda: near[far.long()]):
            with pytest.raises(RuntimeError, match="expected all tensors to be on the same device"):
                together()
        with pytest.raises(TypeError, match="numpy"):
            far.numpy()
        network = torch.nn.Linear(2, 2).to(FAR)
        network(far).sum().backward()
        assert network.weight.device == network.weight.grad.device == FAR


SHORT = (*TINY, "base.epochs=1", "base.batch_size=40", "incremental.batch_size=16", "evaluation.pictures=0")
OFFLINE = (*SHORT, "protocol=offline", "incremental.epochs=1")
EVERY = [(name, protocol) for name in STRATEGIES.entry_points() for protocol in sorted(method_class(name).protocols)]


@pytest.mark.parametrize(("name", "protocol"), usual(EVERY, ("ssul-m", "offline")))
def test_a_run_is_made_on_another_device(
    name: str, protocol: str, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From its base model on, with evaluations, a stop after a step and what it takes up then, to its kept network.

    On a GPU where there is one.
    """
    device, there = (torch.device("cuda"), nullcontext()) if torch.cuda.is_available() else (FAR, FarDevice())
    monkeypatch.setitem(mir.LOGITS, FAR.type, mir.LOGITS["cuda"])
    settings = OFFLINE if protocol == "offline" else SHORT
    strategy = f"{name}(saliency=none)" if name.startswith("ssul") else name
    with there:
        [job] = plan(data_root, tmp_path / "out", strategy, on=device.type, assignments=settings).runs
        if protocol != "joint":
            execute(job, last=1)
        execute(job)
        kept = Segmenter(KeptNetwork(network_path(job.folder, 2), device))
        assert kept.predict(np.zeros((20, 24, 3), np.uint8)).shape == (20, 24)
    assert (job.folder / "done").exists()
    if torch.cuda.is_available() and protocol != "joint":
        steps = list(csv.DictReader((job.folder / "costs.csv").open()))
        assert all(int(step["peak_gpu_bytes"]) > 0 for step in steps if int(step["updates"]))
