"""The presets of the offline lineages: the published recipes, and their small forms that run on the embedded sets."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from bench.launch.session import run
from bench.plan.request import Request
from bench.settings.errors import RequestError
from bench.settings.merging import resolve_config
from bench.settings.strategies import method_parameters, parse_strategies
from strategies.learning.protocol import OfflineProtocol
from strategies.learning.schedule import learning_rate

VOC = {
    # epochs base and increments, batch, rates base and increments, crop, view, void
    "mib": (30, 30, 24, 0.01, 0.001, 512, 512, "background"),
    "plop": (30, 30, 24, 0.01, 0.001, 512, 512, "ignore"),
    "ssul": (50, 50, 32, 0.01, 0.01, 513, 513, "ignore"),
    "dkd": (60, 60, 32, 0.001, 0.0001, 512, 512, "negative"),
}
ADE = {
    "mib": (60, 60, 24, 0.01, 0.001),
    "plop": (60, 60, 24, 0.01, 0.001),
    "ssul": (100, 100, 24, 0.01, 0.05),
    "dkd": (100, 100, 24, 0.0025, 0.00025),
}
CONVENTIONS = {  # future classes on VOC and on ADE20K, test images, the background in the printed mean
    "mib": ("ignore", "ignore", "known", False),
    "plop": ("background", "background", "known", True),
    "ssul": ("ignore", "ignore", "all", True),
    "dkd": ("background", "ignore", "known", True),
}


def recipe(config: Any) -> tuple[Any, ...]:
    base, steps = config.base, config.incremental
    assert isinstance(steps, OfflineProtocol) and base.batch_size == steps.batch_size
    return base.epochs, steps.epochs, base.batch_size, base.lr, steps.lr


@pytest.mark.parametrize("name", VOC)
def test_recipes_are_the_published_ones(name: str) -> None:
    voc, ade = resolve_config("voc-15-5-overlapped", name), resolve_config("ade-100-50-overlapped", name)
    assert (*recipe(voc), voc.data.crop, voc.evaluation.short_side, voc.data.void) == VOC[name]
    assert recipe(ade) == ADE[name]
    for config in (voc, ade):
        assert config.memory.size == 0 and config.network.name == f"{name.replace('plop', 'mib')}-deeplabv3"
        for part in (config.base, config.incremental):
            assert (part.optimizer, part.nesterov, part.momentum, part.drop_last) == ("sgd", True, 0.9, True)
            assert part.poly_power == 0.9
    evaluations = voc.evaluation, ade.evaluation
    found = (*(e.future_classes for e in evaluations), voc.evaluation.images, voc.evaluation.background_in_mean)
    assert found == CONVENTIONS[name]


def settings_of(section: dict[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in section.items():
        if isinstance(value, dict) and not key.startswith(("lr_", "weight_", "strategies")):
            yield from settings_of(value, f"{above}{key}.")
        else:
            yield above + key, list(value) if isinstance(value, tuple) else value


@pytest.mark.parametrize(("column", "scenario"), [(1, "voc-15-5-overlapped"), (2, "ade-100-50-overlapped")])
def test_a_lineages_page_has_its_presets_settings(column: int, scenario: str) -> None:
    """Each page's table says what the preset does, and has every setting in which the lineages differ."""
    found = {name: dict(settings_of(dataclasses.asdict(resolve_config(scenario, name)))) for name in VOC}
    differing = {key for one in found.values() for key in one if any(one[key] != o.get(key) for o in found.values())}
    for name, settings in found.items():
        page = (Path(__file__).parent.parent / "docs" / f"lineage-{name}.md").read_text(encoding="utf-8")
        rows = [line.split("|")[1:] for line in page.splitlines() if line.startswith("| `")]
        told = {key: yaml.safe_load(row[column]) for row in rows for key in re.findall(r"`([\w.]+)`", row[0])}
        assert told == {key: settings[key] for key in told}, name
        cropped = settings["data.augmentation"] == "resized_crop"
        unused = {"scale", "padding", "fill", "fill_colour"} if cropped else {"area", "aspect"}
        needed = {key for key in differing if settings.get(key) is not None}
        assert needed - {"strategies", *(f"data.{key}" for key in unused)} <= told.keys(), name


def test_what_scenarios_have_of_their_own() -> None:
    assert resolve_config("voc-15-1-overlapped", "mib").strategies["mib"]["distillation_weight"] == 100
    assert resolve_config("voc-15-5-overlapped", "mib").strategies["mib"]["distillation_weight"] == 10
    for preset, of_ewf in (("mib", 100), ("plop", 10)):  # what it fuses is mib; its scripts, whose code is PLOP's
        for scenario, weights in (
            ("voc-15-1", (100, of_ewf)),
            ("voc-15-5", (10, 10)),
            ("ade-100-10", (10, 100)),
            ("ade-100-5", (10, 100)),
            ("ade-100-50", (10, 10)),
        ):
            config = resolve_config(f"{scenario}-overlapped", preset)
            found = [method_parameters(request, config) for request in parse_strategies(["mib", "ewf"])]
            assert tuple(each.distillation_weight for each in found) == weights
    plop = resolve_config("voc-15-5-overlapped", "plop")
    assert [method_parameters(r, plop).penalty_weight for r in parse_strategies(["ewc", "pi", "rw"])] == [100] * 3
    dkd = [resolve_config(name, "dkd").strategies["dkd"] for name in ("voc-15-5-overlapped", "ade-100-50-overlapped")]
    weights = [(each["base_positive_weight"], each["positive_weight"], each["distillation_weight"]) for each in dkd]
    assert weights == [(2, 1, 5), (35, 35, 5)]
    for scenario, maps, exemplars in (("voc-15-5-overlapped", "maps", 100), ("ade-100-50-overlapped", "none", 300)):
        for method, lineage, threshold in (("ssul-m", "ssul", 0.7), ("dkd-m", "dkd", 0.9)):
            [request] = parse_strategies([method])
            found = method_parameters(request, resolve_config(scenario, lineage))
            assert (found.exemplars, found.threshold, found.replayed) == (exemplars, threshold, "corrected")
            if method == "ssul-m":
                assert (found.saliency, found.background_rate) == (maps, 0.0001)
    assert recipe(resolve_config("voc-10-1-overlapped", "plop"))[:2] == (30, 10)
    for preset, scenario, factors in (
        *((preset, "voc-15-1-overlapped", (0.01, 0.0005)) for preset in ("plop", "paper", "laptop")),
        *((preset, "ade-100-50-overlapped", (0.001, 0.00001)) for preset in ("plop", "paper", "laptop")),
        ("plop,small", "scenes-100-50-overlapped", (0.001, 0.00001)),
    ):
        config = resolve_config(scenario, preset, None, ["protocol=offline"])
        for request in parse_strategies(["plop", "ewf(on=plop)"]):
            found = method_parameters(request, config)
            assert (found.pod_factor, found.logits_factor, found.thresholds) == (*factors, "published"), preset


def test_rates_of_parts_and_warm_up() -> None:
    """SSUL's backbone has 0.001, its increments the new head alone; DKD has ten times the backbone's rate elsewhere."""
    ssul, dkd = (resolve_config("ade-100-50-overlapped", name) for name in ("ssul", "dkd"))
    assert ssul.base.lr * ssul.base.lr_factors["backbone"] == pytest.approx(0.001)
    assert ssul.incremental.lr_factors == dict.fromkeys(("backbone", "pyramid", "classifier"), 0)
    assert ssul.incremental.batchnorm == dkd.incremental.batchnorm == "frozen"
    assert [learning_rate(ssul.incremental, i, 1000) for i in (0, 100, 550)] == pytest.approx(
        [0.05 * 0.001, 0.05 * 0.9**0.9, 0.05 * 0.45**0.9]
    )
    assert ssul.base.min_lr == ssul.incremental.min_lr == 0
    assert [learning_rate(dkd.base, i, 1000) for i in (0, 100, 600)] == pytest.approx(
        [0.0025 * 0.001, 0.0025 * 0.5005 * 0.9**0.9, 0.0025 * 0.4**0.9]
    )
    assert dkd.base.lr_factors == {"pyramid": 10, "classifier": 10} and dkd.incremental.lr_factors["new"] == 10
    assert (dkd.incremental.weight_decay, dkd.incremental.weight_decays) == (0, {"new": 0.0001})
    assert not dkd.incremental.dropout and ssul.incremental.dropout


def test_the_best_weights_are_never_chosen_on_test_images() -> None:
    ssul = resolve_config("voc-15-5-overlapped", "ssul")
    assert ssul.base.weights == ssul.incremental.weights == "best" and ssul.evaluation.valid_fraction == 0.1
    with pytest.raises(RequestError, match="never test images"):
        resolve_config("voc-15-5-overlapped", "ssul", None, ["evaluation.valid_fraction=0"])


@pytest.mark.parametrize("name", VOC)
def test_a_lineages_small_form_has_its_pyramid_on_a_small_trunk(name: str) -> None:
    small, alone = resolve_config("shapes-15-1-overlapped", f"{name},small"), resolve_config("voc", name)
    assert (small.network.name, small.network.trunk, small.network.weights) == (alone.network.name, "small", "none")
    assert small.protocol == "offline" and small.data.size == 64 and small.evaluation.short_side is None
    assert (small.data.augmentation, small.data.void) == (alone.data.augmentation, alone.data.void)
    assert small.incremental.batchnorm == alone.incremental.batchnorm
    for preset in ("small", "laptop"):  # their rates are one for all parts that are trained, and their decays
        config = resolve_config("voc-15-1-overlapped", f"{name},{preset}", None, ["protocol=offline"])
        for recipe_of in (config.base, config.incremental):
            assert set(recipe_of.lr_factors.values()) <= {0, 1}
            assert set(recipe_of.weight_decays.values()) <= {recipe_of.weight_decay}


@pytest.mark.parametrize("scenario", ["shapes-15-1-overlapped", "scenes-100-50-overlapped"])
@pytest.mark.parametrize("name", ["mib", "plop", "ssul", "dkd"])
def test_a_small_form_is_trained_as_small_is(name: str, scenario: str) -> None:
    small = resolve_config(scenario, "small", None, ["protocol=offline"])
    form = resolve_config(scenario, f"{name},small")
    for one, other in ((form.base, small.base), (form.incremental, small.incremental)):
        for key in ("optimizer", "epochs", "batch_size", "warmup_steps", "warmup_share", "min_lr", "weight_decay"):
            assert getattr(one, key) == getattr(other, key), key


def test_a_small_form_runs_on_embedded_images(tmp_path: Path) -> None:
    """SSUL's: new outputs alone are trained, the best weights are chosen on held-out images."""
    quick = ["base.epochs=1", "incremental.epochs=1", "data.size=16", "evaluation.pictures=0", "base.batch_size=128"]
    request = Request("finetune", "shapes-19-1-overlapped", preset="ssul,small", assignments=quick, out=tmp_path)
    result = run(request, Console(quiet=True))
    assert not result.failures
    [made] = result.runs
    assert made.spec["config"]["network"]["name"] == "ssul-deeplabv3" and len(made.steps) == 2
