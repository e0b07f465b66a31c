"""`runtime.compile` and `runtime.fused`: the same training by other kernels, in the hash only where asked for."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from test_run import quick_run
from torch import Tensor, nn
from toy import GROUPS, Toy, benchmark, make, rerun
from voc_root import make_voc_root

from bench.plan import planning
from bench.plan.spec import base_inputs
from bench.settings.errors import RequestError
from bench.settings.merging import resolve_config
from bench.train.networks import new_network
from benchmarks.names import ScenarioName
from benchmarks.scenarios import compute_scenario
from strategies.learning.protocol import BaseRecipe
from strategies.learning.schedule import make_optimizer
from strategies.networks.build import build_network
from strategies.networks.stage_maps import StageMaps

OFFLINE = ["protocol=offline", "memory.size=0", "incremental.epochs=1", "incremental.batch_size=4"]
SGD = ["incremental.optimizer=sgd", "incremental.lr=0.01"]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How often a compiled graph is called: torch.compile traces the network, and computes the graph as it is."""
    counted = [0]

    def backend(graph: Any, inputs: Any) -> Any:
        def called(*given: Any) -> Any:
            counted[0] += 1
            return graph.forward(*given)

        return called

    compile_it = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda module: compile_it(module, backend=backend))
    torch._dynamo.reset()
    yield counted
    torch._dynamo.reset()


def test_a_compiled_network_computes_alike_for_methods_that_look_into_it_and_is_evaluated_as_without(
    calls: list[int],
) -> None:
    """Two methods after one another look at its maps, by hooks that the first compilation has not seen."""
    torch.manual_seed(0)
    plain = build_network("small", 3).train()
    network, images = copy.deepcopy(plain), torch.randn(2, 3, 16, 16)
    network.compile_training()
    assert torch.allclose(network(images), plain(images), atol=1e-6) and calls[0] == 1
    for passes in (2, 3):
        with StageMaps(network) as maps, StageMaps(plain) as expected:
            for each in (network, plain):
                each(images).square().mean().backward()
            assert calls[0] == passes
            for name in maps.names:
                torch.testing.assert_close(maps[name], expected[name])
    for one, other in zip(network.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)
    assert torch.equal(network.eval()(images), plain.eval()(images)) and calls[0] == 3


@pytest.mark.parametrize("asked", [False, True])
def test_a_network_is_compiled_where_the_settings_say_so(asked: bool, calls: list[int]) -> None:
    config = resolve_config("shapes", None, None, [f"runtime.compile={str(asked).lower()}"])
    network = new_network(config, BaseRecipe(), 3, pretrained=False)
    assert (network.backbone._compiled_call_impl is not None) == asked
    assert not any("_orig_mod" in name for name in network.state_dict())


def test_what_compiles_nothing_is_told_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._inductor import config, cpp_builder

    cpp_builder.cpp_compiler_search.cache_clear()
    monkeypatch.setattr(config.cpp, "cxx", ("no-such-compiler",))
    with pytest.raises(RequestError, match=r"^runtime\.compile=true: no C\+\+ compiler \(g\+\+, .*is found here$"):
        quick_run(make_voc_root(tmp_path), tmp_path, strategies="er", assignments=["runtime.compile=true"])
    monkeypatch.undo()
    cpp_builder.cpp_compiler_search.cache_clear()
    monkeypatch.setattr("torch._inductor.cpp_builder.get_cpp_compiler", lambda: "g++")
    monkeypatch.setattr("torch.utils._triton.has_triton", lambda: False)
    planning.require_compiler("cpu")
    with pytest.raises(RequestError, match=r"^runtime\.compile=true: Triton, .* is not found here$"):
        planning.require_compiler("cuda")


@pytest.mark.parametrize("protocol", ["online", "offline"])
def test_the_optimiser_of_a_step_is_fused_where_the_settings_say_so(protocol: str) -> None:
    protocols = {"online": [], "offline": [*OFFLINE, *SGD]}[protocol]
    weights = []
    for fused in ("false", "true"):
        template = make("finetune", settings=[*protocols, f"runtime.fused={fused}"])
        template.begin(benchmark().train_stream[0])
        template.train(benchmark().train_stream[1], eval_streams=[])
        assert bool(template.optimizer.defaults["fused"]) == (fused == "true")
        weights.append(torch.cat([p.detach().flatten() for p in template.network.parameters()]))
    torch.testing.assert_close(*weights, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_fused_optimisers_make_the_steps_of_the_others(optimizer: str) -> None:
    chosen = [*OFFLINE, f"incremental.optimizer={optimizer}", "incremental.weight_decay=0.1"]
    protocol = resolve_config("shapes", None, None, chosen).incremental
    network = make("finetune").network
    twins = [rerun(network, train=True) for _ in range(2)]
    ways = [make_optimizer(twin, protocol, fused) for twin, fused in zip(twins, (False, True), strict=True)]
    assert [bool(way.defaults["fused"]) for way in ways] == [False, True]
    for _ in range(3):
        for twin, way in zip(twins, ways, strict=True):
            _set_gradients(twin)
            way.step()
    for one, other in zip(*(twin.parameters() for twin in twins), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def _set_gradients(network: nn.Module) -> None:
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        gradient: Tensor = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        parameter.grad = gradient.to(parameter)


def test_both_are_in_a_base_models_key_only_where_asked_for() -> None:
    scenario = compute_scenario(ScenarioName("toy", "3+1+2", "overlapped"), Toy(), GROUPS)

    def runtime(*settings: str) -> Any:
        return base_inputs(scenario, resolve_config("shapes", None, None, settings), BaseRecipe(), 0, "cpu")["runtime"]

    usual = {"threads": 1, "precision": "fp32", "tf32": False}
    assert runtime() == runtime("runtime.compile=false", "runtime.fused=false") == usual
    assert runtime("runtime.compile=true") == {**usual, "compile": True}
    assert runtime("runtime.fused=true") == {**usual, "fused": True}
