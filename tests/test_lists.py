"""Which images train: lists under their usual names and given ones, ids in both lists, extensions in any case."""

import io
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from test_data_check import devkit, label_map, list_of, photograph

from bench.cli.arguments import request_of
from bench.cli.entry import _parser, main
from bench.launch.announcing import hand_over
from bench.launch.session import prepare
from bench.plan.described import prepare_one
from bench.plan.job import RunJob
from bench.plan.request import Request
from bench.plan.spec import digest
from bench.settings.merging import resolve_config
from bench.train.benchmark import benchmark_of
from benchmarks.errors import DataError
from benchmarks.obtain.checking import check
from benchmarks.obtain.faults import Kind
from benchmarks.scenarios import load_scenario

SCENARIO = "voc-15-1-disjoint"
SMALL = {"data.size": 16, "base.epochs": 1, "base.batch_size": 32, "memory.size": 5, "data.ram_gb": 0}


def moved(root: Path, target: Path, count: int = 119) -> Path:
    """Move the training list elsewhere, less its last ids."""
    ids = list_of(root, "trainaug").read_text().split()
    list_of(root, "trainaug").unlink()
    target.parent.mkdir(exist_ok=True)
    target.write_text("\n".join(ids[:count]))
    return target


@pytest.mark.parametrize(
    "place",
    [
        "VOCdevkit/VOC2012/ImageSets/Segmentation/train_aug.txt",
        "VOCdevkit/VOC2012/ImageSets/SegmentationAug/train_aug.txt",
        "VOCdevkit/VOC2012/ImageSets/SegmentationAug/trainaug.txt",
        "VOCdevkit/VOC2012/train_aug.txt",
        "VOCdevkit/trainaug.txt",
        "train_aug.txt",
        "../train_aug.txt",
    ],
)
def test_the_training_list_is_found_under_its_usual_names_and_told(
    tiny_voc: Path, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = moved(tiny_voc, (tiny_voc / place).resolve())
    scenario = load_scenario(SCENARIO, tiny_voc)
    assert list(scenario.imageset.ids("train")) == file.read_text().split()
    told = [
        f"the training list is {file} (119 ids)",
        f"no list names 1 label map in {label_map(tiny_voc, 0).parent}: 2007_000119",
    ]
    assert scenario.remarks() == told
    with pytest.raises(SystemExit):
        main(["scenario", SCENARIO, "--data-root", str(tiny_voc)])
    assert [line for line in capsys.readouterr().out.splitlines() if line.startswith("note:")] == [
        f"note: {text}" for text in told
    ]


def test_two_lists_that_differ_are_refused_with_both_named_unless_one_is_chosen(tiny_voc: Path) -> None:
    first, second = list_of(tiny_voc, "trainaug"), tiny_voc / "train_aug.txt"
    second.write_text(first.read_text())
    assert len(load_scenario(SCENARIO, tiny_voc).imageset.ids("train")) == 120
    second.write_text("\n".join(first.read_text().split()[:119]))
    with pytest.raises(DataError, match=f"{first} and {second} list different training images"):
        load_scenario(SCENARIO, tiny_voc)
    assert len(load_scenario(SCENARIO, tiny_voc, second).imageset.ids("train")) == 119
    assert not check("voc", tiny_voc, train_list=second).faults


def test_a_list_beside_the_root_does_not_contradict_its_own(tiny_voc: Path) -> None:
    (tiny_voc.parent / "train_aug.txt").write_text("2007_000001\n")
    assert len(load_scenario(SCENARIO, tiny_voc).imageset.ids("train")) == 120


def test_a_list_of_pairs_of_files_names_their_ids(tiny_voc: Path) -> None:
    ids = list_of(tiny_voc, "trainaug").read_text().split()
    lines = [f"/JPEGImages/{i}.jpg /SegmentationClassAug/{i}.png" for i in ids]
    list_of(tiny_voc, "trainaug").write_text("\n".join(lines))
    assert list(load_scenario(SCENARIO, tiny_voc).imageset.ids("train")) == ids
    assert not check("voc", tiny_voc).faults
    list_of(tiny_voc, "trainaug").write_text("\n".join([*lines, "/JPEGImages/a.jpg /SegmentationClassAug/b.png"]))
    with pytest.raises(DataError, match=r"holds '/JPEGImages/a\.jpg /SegmentationClassAug/b\.png'"):
        load_scenario(SCENARIO, tiny_voc)


def test_without_a_list_it_is_said_what_trains(tiny_voc: Path) -> None:
    list_of(tiny_voc, "trainaug").unlink()
    remarks = load_scenario(SCENARIO, tiny_voc).remarks()
    assert remarks == ["there is no list of the training images: all label maps train that val.txt lacks"]


def test_a_given_list_is_a_file_and_for_image_sets_of_files(tiny_voc: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="shapes is generated"):
        load_scenario("shapes-15-1-disjoint", None, tmp_path / "list.txt")
    with pytest.raises(DataError, match=r"cannot read .*nowhere\.txt"):
        load_scenario(SCENARIO, tiny_voc, tmp_path / "nowhere.txt")


# ------------------------------------------------------------------------------------------------ ids in both lists


def share(root: Path, count: int) -> list[str]:
    ids = list_of(root, "val").read_text().split()[:count]
    list_of(root, "trainaug").write_text(list_of(root, "trainaug").read_text() + "\n".join(ids))
    return ids


@pytest.mark.parametrize("command", [["scenario", SCENARIO], ["run", "--strategies", "er", "--scenario", SCENARIO]])
def test_test_images_in_the_training_list_are_refused_with_their_count_and_names(
    tiny_voc: Path,
    tmp_path: Path,
    command: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    ids = share(tiny_voc, 5)
    with pytest.raises(SystemExit) as exit_:
        main([*command, "--data-root", str(tiny_voc)])
    said = capsys.readouterr().err
    assert exit_.value.code == 2
    assert said == (
        f"bench: voc: 5 images are in the training and in the test list ({', '.join(ids[:3])}, ...); "
        "--shared-ids allow trains on them all the same\n"
    )


def test_shared_ids_that_are_allowed_are_told(tiny_voc: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ids = share(tiny_voc, 2)
    with pytest.raises(SystemExit) as exit_:
        main(["scenario", SCENARIO, "--data-root", str(tiny_voc), "--shared-ids", "allow"])
    assert exit_.value.code == 0
    told = f"note: 2 images are in the training and in the test list, {ids[0]} among them"
    assert told in capsys.readouterr().out.splitlines()


# ------------------------------------------------------------------------------------------------------------- runs


def test_a_given_list_and_shared_ids_reach_the_jobs_and_stand_in_the_spec(
    tiny_voc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = tmp_path / "lists, all" / "mine.txt"
    share(tiny_voc, 1)
    moved(tiny_voc, chosen, 121)
    chosen.write_text("\n".join(chosen.read_text().split()[1:]))
    monkeypatch.chdir(chosen.parent)
    settings = [f"{key}={value}" for key, value in SMALL.items()]
    asked = Request("er", SCENARIO, data_root=tiny_voc, preset="small", out=tmp_path / "runs", jobs=1)

    def planned(file: str) -> tuple[RunJob, list[str]]:
        console = Console(record=True, width=1000, file=io.StringIO())
        request = replace(asked, assignments=[*settings, f"data.train_list={file}", "data.shared_ids=allow"])
        [job] = prepare(request, console).runs
        return job, console.export_text().splitlines()

    job, said = planned("mine.txt")
    assert f"note: the training list is {chosen} (120 ids)" in said
    assert job.spec["config"]["data"]["train_list"] == str(chosen)
    assert job.spec["config"]["data"]["shared_ids"] == "allow"
    monkeypatch.chdir(tmp_path)
    assert len(benchmark_of(job).streams["joint"][-1].data) == 120
    hand_over(job)
    assert prepare_one(job.folder, False, (), Console(quiet=True)).folders == [job.folder]
    chosen.rename(tmp_path / "elsewhere.txt")
    assert planned("elsewhere.txt")[0].folder == job.folder  # the same images: the same run


def test_the_command_line_has_both(tmp_path: Path) -> None:
    options = ["--train-list", "lists, all.txt", "--shared-ids", "allow"]
    parsed = _parser().parse_args(["run", "--strategies", "er", "--scenario", SCENARIO, *options])
    request = request_of(parsed, "er", SCENARIO)
    data = resolve_config(SCENARIO, assignments=request.assignments).data
    assert (data.train_list, data.shared_ids) == (str(Path("lists, all.txt").absolute()), "allow")


def test_larger_images_are_read_where_it_is_asked_for_and_no_hash_tells_of_it(tiny_voc: Path, tmp_path: Path) -> None:
    asked = Request("er", SCENARIO, data_root=tiny_voc, preset="small", out=tmp_path / "runs", jobs=1)
    settings = [f"{key}={value}" for key, value in SMALL.items()]

    def planned(megapixels: float) -> RunJob:
        request = replace(asked, assignments=[*settings, f"data.max_megapixels={megapixels}"])
        [job] = prepare(request, Console(quiet=True)).runs
        return job

    with pytest.raises(DataError, match=r"cannot decode .* \(0 megapixels; --max-megapixels 1 "):
        planned(0.001)
    one, other = planned(1), planned(500)
    assert [job.spec["config"]["data"]["max_megapixels"] for job in (one, other)] == [1, 500]
    assert one.folder == other.folder
    assert one.spec["base"]["hash"] == other.spec["base"]["hash"]
    assert one.spec["split_hash"] == other.spec["split_hash"]
    config = dict(one.spec["config"])
    config["data"] = {key: config["data"][key] for key in ("size", "scale", "crop", "flip")}
    config["data"] |= dict.fromkeys(("workers", "ram_gb", "train_list", "shared_ids"))
    config["runtime"] = {key: config["runtime"][key] for key in ("threads", "precision", "tf32", "device")}
    config["incremental"] = {key: value for key, value in config["incremental"].items() if key != "devices"}
    config["network"] = {"name": "small", "pretrained": False}  # as runs were recorded before there were weights,
    first = ("epochs", "batch_size", "optimizer", "lr", "momentum", "weight_decay", "warmup_steps", "poly_power")
    config["base"] = {key: config["base"][key] for key in (*first, "devices")}
    del config["keep"], config["protocol"]  # ... these settings
    determining = {
        **{"schema": 1, "split_hash": one.spec["split_hash"], "data": one.spec["data"]["fingerprint"]},
        **{"method": one.spec["method"], "recipe": one.spec["base"]["inputs"]["recipe"], "config": config},
    }
    assert one.spec["hash"] == digest(determining)[:12], "runs made before there was the setting are other ones"


@pytest.mark.parametrize("command", [["scenario", SCENARIO], ["data", "check", "voc"]])
def test_the_limit_can_be_given_to_what_reads_images(
    data_root: Path, tmp_path: Path, command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path))  # what was read is not read again
    for given, status in (("0.0004", 2 if command[0] == "scenario" else 1), ("1", 0), ("0", 2), ("nan", 2)):
        with pytest.raises(SystemExit) as exit_:
            main([*command, "--data-root", str(data_root), "--max-megapixels", given])
        assert exit_.value.code == status


# ------------------------------------------------------------------------------------------------------- extensions


def test_photographs_and_label_maps_are_found_with_extensions_in_any_case(tiny_voc: Path) -> None:
    photograph(tiny_voc, 1).rename(photograph(tiny_voc, 1).with_suffix(".JPG"))
    photograph(tiny_voc, 2).rename(photograph(tiny_voc, 2).with_suffix(".jpeg"))
    label_map(tiny_voc, 3).rename(label_map(tiny_voc, 3).with_suffix(".PNG"))
    imageset = load_scenario(SCENARIO, tiny_voc).imageset
    for index in (1, 2, 3):
        image, labels = imageset.read("train", index)
        assert (labels == np.asarray(Image.open(next(label_map(tiny_voc, index).parent.glob(f"*{index:06d}.*"))))).all()
        assert image.shape[:2] == labels.shape
    assert not check("voc", tiny_voc).faults
    (devkit(tiny_voc) / "ImageSets" / "Segmentation" / "trainaug.txt").unlink()
    assert load_scenario(SCENARIO, tiny_voc).imageset.ids("train")[3] == "2007_000003"


def test_a_label_map_that_is_really_a_jpeg_is_refused_by_scenario_and_named_by_check(
    tiny_voc: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    size = Image.open(label_map(tiny_voc, 6)).size
    Image.new("L", size, 7).save(label_map(tiny_voc, 6), "JPEG", quality=100)
    with pytest.raises(SystemExit) as exit_:
        main(["scenario", SCENARIO, "--data-root", str(tiny_voc)])
    assert exit_.value.code == 2
    assert f"{label_map(tiny_voc, 6)} is a JPEG whatever its name" in capsys.readouterr().err
    assert [fault.kind for fault in check("voc", tiny_voc).faults] == [Kind.INEXACT]


def test_grey_of_fewer_than_8_bit_is_refused_since_decoders_stretch_it(tiny_voc: Path) -> None:
    """A PNG of 4 bit grey: labels 0 and 1 would be read as 0 and 17."""
    width, height = Image.open(label_map(tiny_voc, 7)).size
    rows = zlib.compress((b"\0" + b"\x11" * (width // 2) + b"\x10" * (width % 2)) * height)
    header = struct.pack(">IIBBBBB", width, height, 4, 0, 0, 0, 0)
    chunks = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in ((b"IHDR", header), (b"IDAT", rows), (b"IEND", b""))
    )
    label_map(tiny_voc, 7).write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
    assert set(np.unique(Image.open(label_map(tiny_voc, 7)))) <= {0, 17}
    assert [fault.kind for fault in check("voc", tiny_voc).faults] == [Kind.INEXACT]
    with pytest.raises(DataError, match="is grey of fewer than 8 bit"):
        load_scenario(SCENARIO, tiny_voc)
