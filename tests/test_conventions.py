"""The conventions of an evaluation: which images, which pixels, at which resolution; each in every results row."""

import copy
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from rich.console import Console
from usual import usual

from bench.launch.execution import Result
from bench.launch.session import run
from bench.plan.request import Request
from bench.plan.spec import digest
from bench.settings.errors import RequestError
from bench.settings.merging import resolve_config
from benchmarks.augmentation import View
from benchmarks.streams import load_benchmark
from reports.counts import folded
from reports.metrics import class_iou
from reports.records import read_run
from reports.scenario_tables import write_tables
from reports.tables import frame

NAME = "voc-19-1-disjoint"
CHOSEN = {
    "evaluation.future_classes": ("ignore", "future_classes", "ignore"),
    "evaluation.images": ("all", "test_images", "all"),
    "evaluation.background_in_mean": ("false", "background_in_mean", False),
    "evaluation.short_side": (32, "resolution", "short side 32, centre crop"),
}


def test_all_test_images_are_tested_at_every_step_when_asked(tiny_voc: Path) -> None:
    whole = load_benchmark("voc-15-1-disjoint", tiny_voc, tested="all", valid_fraction=0.2)
    ids = whole.scenario.imageset.ids("test")
    assert all(experience.data.ids == ids for experience in whole.test_stream)
    assert len({experience.data.ids for experience in whole.valid_stream}) == 1
    known = load_benchmark("voc-15-1-disjoint", tiny_voc)
    assert len(known.test_stream[0].data) < len(ids)


def test_view_scales_the_shorter_side_and_takes_the_central_square(tiny_voc: Path) -> None:
    image, labels = load_benchmark(NAME, tiny_voc).test_stream[1].data.annotated(3)
    seen, seen_labels = load_benchmark(NAME, tiny_voc, view=View(24)).test_stream[1].data.annotated(3)
    assert seen.shape == (3, 24, 24) and seen_labels.shape == (24, 24)
    height, width = labels.shape
    assert height < width
    size = (int(width * 24 / height), 24)
    left = round((size[0] - 24) / 2)
    square = (left, 0, left + 24, 24)
    whole = Image.fromarray(image.numpy().transpose(1, 2, 0)).resize(size, Image.Resampling.BILINEAR)
    assert np.array_equal(seen.numpy().transpose(1, 2, 0), whole.crop(square))
    assert np.array_equal(
        seen_labels, Image.fromarray(labels.numpy()).resize(size, Image.Resampling.NEAREST).crop(square)
    )


def test_view_leaves_training_alone(tiny_voc: Path) -> None:
    image, _ = load_benchmark(NAME, tiny_voc, view=View(24)).train_stream[0].data.annotated(3)
    assert image.shape[1:] != (24, 24)


@pytest.fixture(scope="module")
def voc(tmp_path_factory: pytest.TempPathFactory, voc_template: Path) -> Path:
    return voc_template


def quick(voc: Path, out: Path, *assignments: str, evaluate_on: str | None = None) -> Result:
    settings = ["base.epochs=1", "memory.size=20", "data.size=null", "data.crop=32", "evaluation.batch_size=1"]
    request = Request(
        strategies="er",
        scenario=NAME,
        data_root=voc,
        preset="small",
        assignments=[*settings, *assignments],
        out=out,
        jobs=1,
        evaluate_on=evaluate_on,
    )
    result = run(request, Console(quiet=True))
    assert not result.failures
    return result


@pytest.fixture(scope="module")
def default(voc: Path, tmp_path_factory: pytest.TempPathFactory) -> Result:
    return quick(voc, tmp_path_factory.mktemp("default"))


@pytest.mark.parametrize("setting", usual(CHOSEN, "evaluation.future_classes", "evaluation.short_side"))
def test_what_was_chosen_is_in_every_results_row(setting: str, voc: Path, default: Result, tmp_path: Path) -> None:
    value, column, shown = CHOSEN[setting]
    result = quick(voc, tmp_path, f"{setting}={value}")
    assert (result.frame[column] == shown).all()
    assert (default.frame[column] != shown).all()
    [csv] = [path for path in write_tables(result.runs, tmp_path, ("csv",)) if path.suffix == ".csv"]
    header, row = (line.split(",") for line in csv.read_text().replace('"', "").splitlines()[:2])
    assert str(shown).split(",")[0] == row[header.index(column)]
    printed = setting in ("evaluation.future_classes", "evaluation.images")
    assert (result.runs[0].spec["hash"] == default.runs[0].spec["hash"]) == printed, "only another evaluation is new"


def test_a_finished_run_is_counted_by_the_conventions_that_are_asked_for_and_is_not_made_again(
    voc: Path, default: Result
) -> None:
    [run] = default.runs
    result = quick(voc, run.path.parents[2], "evaluation.future_classes=ignore", "evaluation.images=all")
    [counted] = result.runs
    assert counted.path == run.path and (result.frame["future_classes"] == "ignore").all()
    np.testing.assert_array_equal(counted.confusions[0], folded(run.counts[0], "ignore", "all"))
    assert counted.confusions[0].sum() != run.confusions[0].sum()
    assert read_run(run.path).spec == run.spec


def test_a_run_whose_hash_tells_of_its_conventions_is_found(voc: Path, default: Result, tmp_path: Path) -> None:
    """As they were hashed before conventions were chosen at printing."""
    spec = copy.deepcopy(default.runs[0].spec)
    spec["config"]["evaluation"]["future_classes"] = spec["conventions"]["future_classes"] = "ignore"
    config = {key: value for key, value in spec["config"].items() if key not in ("keep", "protocol", "strategies")}
    first = ("epochs", "batch_size", "optimizer", "lr", "momentum", "weight_decay", "warmup_steps", "poly_power")
    config["base"] = {key: config["base"][key] for key in (*first, "devices")}
    config["data"] = {key: config["data"][key] for key in ("size", "scale", "crop", "flip")}
    config["data"] |= dict.fromkeys(("workers", "ram_gb", "train_list", "shared_ids"))
    config["runtime"] = {key: config["runtime"][key] for key in ("threads", "precision", "tf32", "device")}
    config["incremental"] = {key: value for key, value in config["incremental"].items() if key != "devices"}
    config["network"] = {"name": "small", "pretrained": False}
    determining = {
        **{"schema": 1, "split_hash": spec["split_hash"], "data": spec["data"]["fingerprint"]},
        **{"method": spec["method"], "recipe": spec["base"]["inputs"]["recipe"], "config": config},
    }
    spec["hash"] = digest(determining)[:12]
    folder = tmp_path / NAME / "er" / f"{spec['hash']}-seed0"
    shutil.copytree(default.runs[0].path, folder)
    (folder / "spec.yaml").write_text(yaml.safe_dump(spec), encoding="utf-8")
    [run] = quick(voc, tmp_path, "evaluation.future_classes=ignore").runs
    assert run.path == folder


def test_both_means_are_stored_and_the_chosen_one_is_shown(voc: Path, default: Result, tmp_path: Path) -> None:
    result = quick(voc, tmp_path, "evaluation.background_in_mean=false")
    for runs in (result.runs, default.runs):
        last = runs[0].confusions[-1]
        iou = class_iou(last)
        assert runs[0].steps[-1]["miou"] == pytest.approx(100 * np.nanmean(iou), abs=1e-3)
        assert runs[0].steps[-1]["miou_without_background"] == pytest.approx(100 * np.nanmean(iou[1:]), abs=1e-3)
    assert result.runs[0].steps == default.runs[0].steps
    shown = frame(result.runs)
    assert not shown["background_in_mean"].any()


def test_valid_stream_is_held_out_and_recorded(voc: Path, default: Result, tmp_path: Path) -> None:
    [made] = quick(voc, tmp_path, evaluate_on="valid").runs
    assert made.spec["config"]["evaluation"]["valid_fraction"] == 0.1
    assert made.spec["conventions"]["evaluate_on"] == "valid"
    assert made.spec["base"]["hash"] != default.runs[0].spec["base"]["hash"], "its images are other ones"
    assert made.confusions[-1].sum() < default.runs[0].confusions[-1].sum()


def test_valid_fraction_and_seed_that_are_set_hold() -> None:
    config = resolve_config(NAME, "small", None, ["evaluation.valid_fraction=0.3", "evaluation.valid_seed=5"], "valid")
    assert (config.evaluation.stream, config.evaluation.valid_fraction) == ("valid", 0.3)
    assert config.evaluation.valid_seed == 5
    with pytest.raises(RequestError, match="valid_fraction above 0"):
        resolve_config(NAME, "small", None, ["evaluation.stream=valid"])


def test_squeezed_images_are_not_cropped_as_well() -> None:
    with pytest.raises(RequestError, match="short_side is for images as they are"):
        resolve_config(NAME, "small", None, ["evaluation.short_side=32"])
