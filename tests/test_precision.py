"""bf16 autocast: every method runs in it, and the network's numbers stay near those of fp32."""

from pathlib import Path

import numpy as np
import pytest
import torch
from test_run import QUICK, quick_run
from voc_root import make_voc_root

from strategies.network import build_network


def test_bf16_logits_are_float32_near_those_of_fp32() -> None:
    torch.manual_seed(0)
    network = build_network("small", 5).eval()
    images = torch.randn(4, 3, 32, 32)
    full = network(images)
    network.precision = "bf16"
    rough = network(images)
    assert rough.dtype == network.features(images).dtype == torch.float32
    assert not torch.equal(rough, full)
    assert (rough - full).norm() / full.norm() < 2e-2


def test_bf16_gradients_reach_every_parameter() -> None:
    torch.manual_seed(0)
    network = build_network("small", 5, "cosine")
    network.precision = "bf16"
    network(torch.randn(4, 3, 32, 32)).logsumexp(1).mean().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in network.parameters())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_voc_root(tmp_path_factory.mktemp("data"))


def test_all_methods_run_in_bf16(root: Path, tmp_path: Path) -> None:
    strategies = "finetune,er,lwf-mc,icarl,agem,mir,mib,coriseg,ours,joint"
    settings = [*QUICK, "runtime.precision=bf16"]
    result = quick_run(root, tmp_path, strategies=strategies, scenario="voc-15-5-overlapped", assignments=settings)
    assert not result.failures
    assert len(result.runs) == 10
    assert all(np.isfinite(one.steps[-1]["miou"]) for one in result.runs)
    assert all(one.spec["config"]["runtime"]["precision"] == "bf16" for one in result.runs)
