"""Networks that a run has kept, used: the same label maps as in its records, from images in whatever form."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from kept_networks import write
from PIL import Image
from usual import usual

import bench
from bench.cli.entry import main
from bench.plan.spec import digest
from bench.settings.errors import RequestError
from bench.train.network_file import read_kept
from bench.use.evaluating import Asked, _config, planned
from bench.use.segmenter import Segmenter
from reports.palettes import voc_palette
from reports.records import Run, find_runs, read_run

SETTINGS = {
    **{"data.size": None, "data.crop": 32, "data.workers": 0, "base.epochs": 1, "base.warmup_steps": 2},
    **{"evaluation.batch_size": 1, "evaluation.pictures": 3, "memory.size": 8},
}
"""Images as they are: 24 to 28 x 20 to 22 pixels."""
SCENARIO = "voc-15-5-overlapped"

Bench = Callable[..., tuple[int, str, str]]


def made(root: Path, out: Path, strategies: str, overwrite: bool = False, **changes: object) -> list[Run]:
    settings = {**SETTINGS, **changes}
    result = bench.run(
        strategies, SCENARIO, data_root=root, preset="small", settings=settings, out=out, overwrite=overwrite
    )
    return result.runs


@pytest.fixture(scope="module")
def runs(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """A method that predicts by its logits, and one that does not; every network is kept."""
    out = tmp_path_factory.mktemp("runs")
    return {run.spec["strategy"]: run for run in made(data_root, out, "lwf-mc,icarl", keep="all")}


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Bench:
    """A command's exit status, what it prints and what it says of faults."""

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        assert isinstance(ended.value.code, int)
        return ended.value.code, said.out, said.err

    return run


@pytest.fixture
def small(tmp_path: Path) -> Segmenter:
    """Three classes, 32 x 32 pixels, random weights; the classes are 7, 3 and 5 in label maps."""
    return bench.load(write(tmp_path / "small.safetensors"))


def photographs(root: Path) -> Path:
    return root / "VOCdevkit" / "VOC2012" / "JPEGImages"


def ids_of(root: Path) -> list[str]:
    """The test images."""
    return (root / "VOCdevkit" / "VOC2012" / "ImageSets" / "Segmentation" / "val.txt").read_text().split()


def counts(root: Path, label_maps: Path, ids: list[str], known: int) -> np.ndarray:
    """The confusion matrix of PNGs and the data set's own, future classes as the background, a pixel at a time."""
    matrix = np.zeros((known, known), dtype=np.int64)
    for name in ids:
        truth = np.asarray(Image.open(root / "VOCdevkit" / "VOC2012" / "SegmentationClassAug" / f"{name}.png"))
        if not ((truth > 0) & (truth < known)).any():
            continue  # it shows no known class
        labels = np.asarray(Image.open(label_maps / f"{name}.png"))
        assert labels.shape == truth.shape
        for true, predicted in zip(truth.ravel().tolist(), labels.ravel().tolist(), strict=True):
            if true != 255:
                matrix[true if true < known else 0, predicted] += 1
    return matrix


# ---------------------------------------------------------------- keeping


@pytest.mark.parametrize("strategy", usual(["lwf-mc", "icarl"], "icarl"))
def test_the_written_label_maps_give_the_counts_of_the_record(
    runs: dict[str, Run], data_root: Path, tmp_path: Path, command: Bench, strategy: str
) -> None:
    run, ids = runs[strategy], ids_of(data_root)
    files = [photographs(data_root) / f"{name}.jpg" for name in ids]
    for step, known in ((0, 16), (1, 21)):
        out = tmp_path / f"step-{step}"
        assert command("predict", run.path, *files, "--out", out, "--step", step)[0] == 0
        assert (counts(data_root, out, ids, known) == run.confusions[step][:known, :known]).all()


def test_what_is_kept_is_told_in_the_header(runs: dict[str, Run]) -> None:
    for strategy, predicts in (("lwf-mc", "logits"), ("icarl", "method")):
        run = runs[strategy]
        kept = read_kept(run.path / "networks" / "step-0.safetensors")
        assert (kept.strategy, kept.step, kept.predicts) == (strategy, 0, predicts)
        assert (kept.hash, kept.scenario) == (run.spec["hash"], run.spec["scenario"])
        assert kept.class_names == run.spec["class_names"][:16] and kept.classes == list(range(16))
        assert np.array_equal(kept.palette, voc_palette()[:16])


def test_keep_says_which_and_changes_neither_numbers_nor_directory(
    runs: dict[str, Run], data_root: Path, tmp_path: Path
) -> None:
    with_all = runs["lwf-mc"].path
    assert sorted(path.name for path in (with_all / "networks").iterdir()) == [
        "step-0.safetensors",
        "step-1.safetensors",
    ]
    (last,) = made(data_root, tmp_path, "lwf-mc")
    assert last.path.relative_to(tmp_path).parts == with_all.parts[-3:]
    assert (last.path / "steps.csv").read_bytes() == (with_all / "steps.csv").read_bytes()
    networks = last.path / "networks"
    assert [path.name for path in networks.iterdir()] == ["step-1.safetensors"]
    assert (networks / "step-1.safetensors").read_bytes() == (with_all / "networks" / "step-1.safetensors").read_bytes()
    made(data_root, tmp_path, "lwf-mc", overwrite=True, keep="none")
    assert not list(networks.iterdir())
    with pytest.raises(RequestError, match=r"no network of this run was kept \(keep=none\); the command that made it"):
        bench.load(last.path)


def test_a_run_without_the_network_asked_for_is_refused(runs: dict[str, Run], tmp_path: Path) -> None:
    run = runs["icarl"].path
    with pytest.raises(RequestError, match=r"--step 5: .* has the networks after step 0, 1"):
        bench.load(run, step=5)
    with pytest.raises(RequestError, match="there is no such run directory"):
        bench.load(tmp_path / "none")
    (tmp_path / "networks").mkdir()
    (tmp_path / "spec.yaml").write_bytes((run / "spec.yaml").read_bytes())
    with pytest.raises(RequestError, match="the run is not finished and has no network yet"):
        bench.load(tmp_path)
    other = runs["lwf-mc"].path / "networks" / "step-1.safetensors"
    (tmp_path / "networks" / "step-1.safetensors").write_bytes(other.read_bytes())
    with pytest.raises(RequestError, match="another run's network, its hash is"):
        bench.load(tmp_path)


# ---------------------------------------------------------------- evaluating again


def records(folder: Path) -> dict[str, bytes]:
    """Everything in a run's directory but its evaluations."""
    files = (path for path in folder.rglob("*") if path.is_file() and "evaluations" not in path.parts)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def evaluated(command: Bench, *arguments: object) -> Run:
    status, said, faults = command("evaluate", *arguments)
    assert status == 0, faults
    return read_run(Path(said.splitlines()[-1]))


@pytest.mark.parametrize("strategy", ["lwf-mc", "icarl"])
def test_evaluated_again_as_it_was_a_run_gives_the_same_counts_beside_its_records(
    runs: dict[str, Run], command: Bench, strategy: str
) -> None:
    run = runs[strategy]
    before = records(run.path)
    again = evaluated(command, run.path)
    assert again.path.parent == run.path / "evaluations" and again.spec["evaluates"]["hash"] == run.spec["hash"]
    for name in ("steps.csv", "confusion/step-0.csv", "confusion/step-1.csv"):
        assert (again.path / name).read_bytes() == (run.path / name).read_bytes()
    assert records(run.path) == before
    assert "evaluated already" in command("evaluate", run.path)[1]
    assert [found.path for found in find_runs(run.path.parents[2])] == sorted(each.path for each in runs.values())


def test_another_view_and_other_images_are_evaluations_of_their_own(
    runs: dict[str, Run], data_root: Path, tmp_path: Path, command: Bench
) -> None:
    run = runs["lwf-mc"]
    darker = Path(shutil.copytree(data_root, tmp_path / "root"))
    for photograph in photographs(darker).iterdir():
        with Image.open(photograph) as image:
            Image.fromarray(np.asarray(image) // 3).save(photograph)
    view = evaluated(command, run.path, "--set", "evaluation.short_side=32,evaluation.batch_size=8")
    other = evaluated(command, run.path, "--data-root", darker)
    assert view.spec["conventions"]["resolution"] == "short side 32, centre crop"
    assert 0 < view.last_confusion.sum() <= 40 * 32 * 32
    assert other.spec["data"]["root"] == str(darker) and other.spec["conventions"] == run.spec["conventions"]
    assert other.last_confusion.sum() == run.last_confusion.sum()
    assert not np.array_equal(other.last_confusion, run.last_confusion)
    assert len({each.spec["hash"] for each in (run, view, other)}) == 3


def test_a_run_from_before_a_setting_is_evaluated(runs: dict[str, Run]) -> None:
    spec = {**runs["icarl"].spec}
    spec["config"] = {**spec["config"], "base": {"epochs": 1}}
    assert _config(spec, ["evaluation.short_side=32"]).evaluation.short_side == 32


def test_settings_that_evaluations_may_be_older_than_are_no_part_of_their_hash(runs: dict[str, Run]) -> None:
    spec = planned(runs["icarl"].path, Asked()).spec
    of_data = ("size", "scale", "crop", "flip", "workers", "ram_gb", "train_list", "shared_ids", "max_megapixels")
    told = {key: spec[key] for key in ("scenario", "asked", "conventions", "steps", "split_hash", "division")}
    of_runtime = ("threads", "precision", "tf32", "device")
    told["config"] = {
        **spec["config"],
        "data": {key: spec["config"]["data"][key] for key in of_data},
        "runtime": {key: spec["config"]["runtime"][key] for key in of_runtime},
    }
    told |= {"data": spec["data"]["fingerprint"], "evaluates": runs["icarl"].spec["hash"]}
    assert spec["hash"] == digest(told)[:12]


def test_what_needs_another_training_is_refused(runs: dict[str, Run], tmp_path: Path, command: Bench) -> None:
    run = runs["icarl"].path
    for arguments, told in (
        ((run, "--set", "base.epochs=2"), "--set base.epochs=...: a network that is trained is evaluated by"),
        ((run, "--set", "evaluation.valid_fraction=0.5"), "--set evaluation.valid_fraction=..."),
        ((run, "--set", "evaluation.batch_size=4"), "images as they are differ in size"),
        ((run, "--set", "evaluation.short_side=32,data.size=32"), "--set data.size=null too"),
        ((run, "--scenario", "voc-15-1-overlapped"), "has not the steps' classes of"),
        ((tmp_path,), "there is no run directory"),
    ):
        status, _, faults = command("evaluate", *arguments)
        assert status == 2 and faults.count("\n") == 1 and told in faults, (arguments, faults)


# ---------------------------------------------------------------- images in whatever form


def picture(height: int = 40, width: int = 60) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_an_image_is_the_same_in_every_form(small: Segmenter, tmp_path: Path) -> None:
    pixels = picture()
    Image.fromarray(pixels).save(tmp_path / "image.png")
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    forms = [Image.fromarray(pixels), pixels, pixels / 255, tensor, tensor / 255, tmp_path / "image.png"]
    maps = [small.predict(form) for form in forms]
    assert maps[0].shape == (40, 60) and maps[0].dtype == np.uint8 and set(np.unique(maps[0])) <= {0, 7, 3, 5}
    assert all(np.array_equal(maps[0], other) for other in maps)
    assert small.class_names == {0: "background", 7: "cat", 3: "dog", 5: "猫"}


def test_what_is_no_image_is_refused_in_a_line(small: Segmenter) -> None:
    for image, told in (
        (np.zeros((2, 3, 40, 40), np.uint8), r"shape \(2, 3, 40, 40\)"),
        (torch.zeros(4, 40, 40, dtype=torch.uint8), r"shape \(4, 40, 40\)"),
        (np.zeros((0, 4, 3), np.uint8), r"shape \(0, 4, 3\)"),
        (np.zeros((4, 4, 3), np.int64), "an image of int64"),
        (torch.randn(3, 8, 8), "outside of 0 to 1"),
        (np.full((8, 8, 3), np.nan), "outside of 0 to 1"),
        (Image.new("RGBA", (8, 8)), "mode RGBA"),
    ):
        with pytest.raises(RequestError, match=told):
            small.predict(image)


def test_a_label_map_lies_upon_its_image_whatever_exif_says(small: Segmenter, tmp_path: Path) -> None:
    """Stored lying on its side, as telephones do: the network sees it upright."""
    upright = picture(60, 40)
    expected = small.predict(upright)
    lying = Image.fromarray(np.rot90(upright).copy())
    exif = lying.getexif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    lying.save(tmp_path / "telephone.png", exif=exif)
    with Image.open(tmp_path / "telephone.png") as stored:
        assert np.array_equal(small.predict(stored), np.rot90(expected))
    assert np.array_equal(small.predict(tmp_path / "telephone.png"), expected)
    assert not np.array_equal(small.predict(np.rot90(upright).copy()), np.rot90(expected))


def test_images_are_scaled_as_in_evaluation_and_large_ones_to_what_was_trained_on(tmp_path: Path) -> None:
    def seen(**view: int | None) -> Segmenter:
        return bench.load(write(tmp_path / "n", **{"size": None, **view}))

    assert seen(size=64).input_size((3024, 4032)) == [64, 64]
    assert seen(short_side=512).input_size((375, 500)) == [512, 682]
    as_they_are = seen(crop=512)
    assert as_they_are.input_size((375, 500)) == [375, 500]
    assert as_they_are.input_size((1024, 2000)) == [1024, 2000]
    assert as_they_are.input_size((3024, 4032)) == [512, 682]
    assert as_they_are.input_size((3024, 4032), short_side=3024) == [3024, 4032]


def test_a_label_map_taken_back_to_the_size_of_evaluation_is_what_was_predicted_there(small: Segmenter) -> None:
    """So counts at the size that images are squeezed to can be had from the label maps too."""
    pixels = picture(97, 211)
    squeezed = np.asarray(Image.fromarray(small.predict(pixels)).resize((32, 32), Image.Resampling.NEAREST))
    planes = [Image.fromarray(pixels[..., c]).resize((32, 32), Image.Resampling.BILINEAR) for c in range(3)]
    assert np.array_equal(small.predict(np.stack([np.asarray(plane) for plane in planes], axis=2)), squeezed)


# ---------------------------------------------------------------- the command


def test_a_folder_is_segmented_with_overlays_and_an_unreadable_image_is_named(tmp_path: Path, command: Bench) -> None:
    network, images, out = write(tmp_path / "n.safetensors"), tmp_path / "images", tmp_path / "images" / "out"
    (images / "deep.er").mkdir(parents=True)
    for name in ("a.b.png", "deep.er/c.JPG"):
        Image.fromarray(picture()).save(images / name)
    (images / "broken.jpg").write_bytes(b"\xff\xd8 no more")
    (images / "notes.txt").write_text("no image")
    for _ in range(2):  # what was written is no image of the folder
        status, said, faults = command("predict", network, images, "--out", out, "--overlay")
        assert status == 1 and faults.count("\n") == 1 and "broken.jpg" in faults
        assert said.splitlines()[-1] == f"2 label maps in {out}, 1 images could not be read"
        assert re.search(r"a\.b\.png  (background|cat|dog|猫) \d+\.\d %", said)
        written = sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())
        assert written == ["a.b.png", "deep.er/c.png", "overlays/a.b.png", "overlays/deep.er/c.png"]
    with Image.open(out / "a.b.png") as labels:
        assert (labels.mode, labels.size) == ("P", (60, 40))
        colours = np.asarray(labels.convert("RGB")).reshape(-1, 3)
    assert {tuple(c) for c in np.unique(colours, axis=0)} <= {(0, 0, 0), (128, 0, 0), (0, 128, 0), (0, 0, 128)}
    with Image.open(out / "overlays" / "a.b.png") as overlay:
        assert overlay.size[0] == 1200 and 800 < overlay.size[1] < 900


def test_a_request_that_is_wrong_is_one_line(tmp_path: Path, command: Bench) -> None:
    network, image = write(tmp_path / "n"), tmp_path / "a.png"
    Image.fromarray(picture()).save(image)
    Image.fromarray(picture()).save(tmp_path / "a.jpg")
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "bad").write_bytes(b"no network")
    for name in ("one", "other"):
        (tmp_path / "er" / name).mkdir(parents=True)
        (tmp_path / "er" / name / "spec.yaml").write_text("")
    for arguments, told in (
        ((network, tmp_path / "none", "--out", "o"), "there is no such image or folder"),
        ((network, tmp_path / "empty", "--out", "o"), "there is no image in this folder"),
        ((network, image, "--out", tmp_path), "would be written over the image"),
        ((network, tmp_path, "--out", tmp_path), "the images lie there"),
        ((network, image, tmp_path / "a.jpg", "--out", tmp_path / "o"), "would both be written to"),
        ((network, image, "--out", tmp_path / "o", "--short-side", 3), "--short-side 3: allowed are 16 to 4096"),
        ((network, tmp_path / "text.png", "--out", tmp_path / "o"), "text.png"),
        ((tmp_path / "bad", image, "--out", tmp_path / "o"), "no safetensors file"),
        ((network, tmp_path / "er" / "one", image, "--out", tmp_path / "o"), "a run's directory, no photographs"),
        ((tmp_path, image, "--out", tmp_path / "o"), f"no spec.yaml; below it is {tmp_path}/er/one, and 1 more"),
        ((tmp_path / "empty", image, "--out", tmp_path / "o"), "no run's directory, it has no spec.yaml\n"),
    ):
        status, _, faults = command("predict", *arguments)
        assert status == 2 and faults.count("\n") == 1 and told in faults, (arguments, faults)
    assert not list((tmp_path / "o").rglob("*"))


# ---------------------------------------------------------------- bundles


def test_a_bundle_of_networks_verifies_and_its_cheapest_run_is_made_again(
    runs: dict[str, Run], command: Bench, data_root: Path, tmp_path: Path
) -> None:
    folder, bundle = runs["icarl"].path.parents[2], tmp_path / "b.zip"
    status, told, _ = command("bundle", folder, "--networks", "--out", bundle)
    assert (status, told.startswith(f"{bundle}: 2 runs, ")) == (0, True)
    moved = Path(shutil.copytree(data_root, tmp_path / "elsewhere"))
    status, told, _ = command("verify", bundle, "--rerun", 1, "--out", tmp_path / "again", "--data-root", moved)
    assert status == 0
    assert "2 runs of 1 scenario," in told and "sound" in told
    assert told.splitlines()[-1].endswith("seed 0: bit-equal")
