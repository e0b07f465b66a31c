"""bf16 autocast: every method runs in it, its numbers near those of fp32. TF32: on GPUs where it is asked for."""

from pathlib import Path

import pytest
import torch
from test_run import QUICK, quick_run
from toy import benchmark, equal, make, train
from usual import usual
from voc_root import make_voc_root

from bench.settings.schema import RuntimeConfig
from bench.train.computing import computing
from strategies.networks.build import build_network
from strategies.networks.network import SegmentationNetwork


def test_bf16_logits_are_float32_near_those_of_fp32() -> None:
    torch.manual_seed(0)
    network = build_network("small", 5).eval()
    images = torch.randn(4, 3, 32, 32)
    full = network(images)
    assert network.precision == "fp32"
    network.precision = "bf16"
    rough = network(images)
    assert rough.dtype == network.features(images).dtype == torch.float32
    assert not torch.equal(rough, full)
    assert (rough - full).norm() / full.norm() < 2e-2


def test_bf16_is_bf16_whatever_autocast_would_take_by_itself() -> None:
    torch.manual_seed(0)
    network, images = build_network("small", 5).eval(), torch.randn(1, 3, 32, 32)
    network.precision = "bf16"
    expected, usual = network(images), torch.get_autocast_dtype("cpu")
    torch.set_autocast_dtype("cpu", torch.float16)
    try:
        assert torch.equal(network(images), expected)
    finally:
        torch.set_autocast_dtype("cpu", usual)


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


METHODS = ["finetune", "er", "lwf-mc", "icarl", "agem", "mir", "mib", "coriseg", "ours"]


@pytest.mark.parametrize("name", usual(METHODS, "er", "coriseg", "ours"))
def test_each_method_trains_and_predicts_in_bf16(name: str) -> None:
    full, rough = make(name), make(name)
    rough.network.precision = "bf16"
    for template in (full, rough):
        train(template)
        template.eval(benchmark().test_stream[2])
    pairs = zip(full.network.parameters(), rough.network.parameters(), strict=True)
    assert all(parameter.isfinite().all() and parameter.dtype == torch.float32 for _, parameter in pairs)
    assert not equal(full.network.state_dict(), rough.network.state_dict())


def tf32() -> tuple[bool, bool]:
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize("asked", [False, True])
def test_tf32_is_used_for_convolutions_and_products_where_asked_and_never_else(asked: bool) -> None:
    before = tf32()
    with computing(RuntimeConfig(threads=1, precision="fp32", tf32=asked)):
        assert tf32() == (asked, asked)
    assert tf32() == before


@pytest.mark.parametrize("asked", [False, True])
def test_a_run_and_its_base_model_compute_in_the_precision_of_their_spec(
    asked: bool, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[tuple[bool, bool]] = set()
    forward = SegmentationNetwork.forward

    def watched(self: SegmentationNetwork, images: torch.Tensor) -> torch.Tensor:
        seen.add(tf32())
        return forward(self, images)

    monkeypatch.setattr(SegmentationNetwork, "forward", watched)
    settings = [*QUICK, "base.epochs=1", f"runtime.tf32={str(asked).lower()}"]
    (one,) = quick_run(root, tmp_path, strategies="er", scenario="voc-15-5-overlapped", assignments=settings).runs
    assert seen == {(asked, asked)}
    assert one.spec["config"]["runtime"]["tf32"] is one.spec["base"]["inputs"]["runtime"]["tf32"] is asked
