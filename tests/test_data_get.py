"""`bench data get`: archives are downloaded, verified, unpacked and put in place at once, whatever goes wrong."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
import yaml
from archive_server import ArchiveServer, serving
from PIL import Image
from small_archives import (
    SBD_ALONE,
    SBD_IDS,
    SBD_LABEL,
    TRAIN,
    TRAINAUG,
    VAL,
    Files,
    Get,
    assert_ade_is_complete,
    assert_nothing_looks_complete,
    assert_voc_is_complete,
    devkit,
    downloads,
    jpeg,
    label_map,
    ranges,
    sbd_files,
    sbd_mat,
    sources_of,
    voc_files,
)

from bench.cli.entry import main
from benchmarks.errors import DataError
from benchmarks.files import read_mask
from benchmarks.obtain.sources import ADE, PUBLISHED, SBD, VOC, with_mirrors
from benchmarks.sets.voc import Voc

# --------------------------------------------------------------------------------------------------- a clean get


def test_voc_is_complete_after_one_call_and_its_archives_are_gone(get: Get, root: Path) -> None:
    get("voc")
    assert_voc_is_complete(root)
    assert (devkit(root) / "Annotations" / f"{TRAIN[0]}.xml").is_file()
    assert not (root / "downloads").exists()
    assert not (root / "benchmark_RELEASE").exists()


def test_vocs_own_label_maps_are_copied_byte_for_byte(get: Get, root: Path) -> None:
    get("voc")
    for image_id in [*TRAIN, *VAL]:
        own, augmented = (devkit(root) / f / f"{image_id}.png" for f in ("SegmentationClass", "SegmentationClassAug"))
        assert own.read_bytes() == augmented.read_bytes()


def test_converted_label_maps_have_vocs_palette(get: Get, root: Path) -> None:
    get("voc")
    with Image.open(devkit(root) / "SegmentationClassAug" / f"{SBD_ALONE[0]}.png") as image:
        assert image.mode == "P"
        colours = np.array(image.getpalette()).reshape(-1, 3)
    known = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 3: (128, 128, 0), 8: (64, 0, 0), 15: (192, 128, 128)}
    for label, colour in {**known, 20: (0, 64, 128), 255: (224, 224, 192)}.items():
        assert tuple(colours[label]) == colour


def test_a_struct_as_savemat_writes_it_is_what_sbd_is_read_as(tmp_path: Path) -> None:
    (tmp_path / "a.mat").write_bytes(sbd_mat(5))
    assert (read_mask(tmp_path / "a.mat") == label_map(5)).all()


def test_ade_is_complete_after_one_call(get: Get, root: Path, archives: Files) -> None:
    get("ade")
    assert_ade_is_complete(root, archives)
    assert not (root / "downloads").exists()


@pytest.mark.parametrize("name", ["voc", "ade"])
def test_a_second_call_asks_the_server_for_nothing(get: Get, root: Path, server: ArchiveServer, name: str) -> None:
    get(name)
    server.log.clear()
    for image in [*root.rglob("*.jpg")]:  # as macOS and Windows leave them
        image.with_name(f"._{image.name}").write_bytes(b"\0\5\26\7")
        image.rename(image.with_suffix(".JPG"))
    times = {p: p.stat().st_mtime_ns for p in root.rglob("*")}
    assert get(name) == [f"{name} is complete in {root}: nothing to get"]
    assert server.log == []
    assert {p: p.stat().st_mtime_ns for p in root.rglob("*")} == times


def test_archives_are_kept_on_request_and_then_used(get: Get, root: Path, server: ArchiveServer) -> None:
    get("voc", keep_archives=True)
    assert downloads(root) == [VOC.name, SBD.name]
    shutil.rmtree(root / "VOCdevkit")
    server.log.clear()
    get("voc")
    assert_voc_is_complete(root)
    assert server.log == []


def test_the_published_sources_are_those_of_torchvision() -> None:
    """Of whatever version: VOC's host has changed its name."""
    from torchvision.datasets import SBDataset
    from torchvision.datasets.voc import DATASET_YEAR_DICT

    voc = DATASET_YEAR_DICT["2012"]
    assert (VOC.name, VOC.checksum) == (voc["filename"], f"md5:{voc['md5']}")
    assert urlsplit(VOC.url).path == urlsplit(voc["url"]).path
    assert (SBD.name, SBD.url, SBD.checksum) == (SBDataset.filename, SBDataset.url, f"md5:{SBDataset.md5}")


def test_a_folder_with_as_many_label_maps_as_published_lacks_only_the_list(
    get: Get, root: Path, server: ArchiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    get("voc")
    (devkit(root) / "ImageSets" / "Segmentation" / "trainaug.txt").unlink()
    server.log.clear()
    monkeypatch.setattr(Voc, "published_counts", {"train": len(TRAINAUG), "test": len(VAL)})
    get("voc")
    assert_voc_is_complete(root)
    assert server.log == []


# ---------------------------------------------------------------------------------------- what is already there


def test_a_root_with_voc_alone_gets_sbd_alone(get: Get, root: Path, server: ArchiveServer, tmp_path: Path) -> None:
    for name, content in voc_files(tmp_path).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    get("voc")
    assert_voc_is_complete(root)
    assert {entry.name for entry in server.log} == {SBD.name}


@pytest.mark.parametrize("folder", ["sbd", "benchmark_RELEASE/dataset"])
def test_sbd_that_is_there_is_not_downloaded(get: Get, root: Path, server: ArchiveServer, folder: str) -> None:
    for name, content in sbd_files().items():
        path = root / folder / Path(name).relative_to("benchmark_RELEASE/dataset")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    get("voc")
    assert_voc_is_complete(root)
    assert {entry.name for entry in server.log} == {VOC.name}


def test_sbd_that_is_there_in_part_is_not_taken_for_whole(get: Get, root: Path) -> None:
    (root / "sbd" / "cls").mkdir(parents=True)
    (root / "sbd" / "cls" / f"{SBD_IDS[0]}.mat").write_bytes(sbd_mat(SBD_LABEL))
    (root / "sbd" / "train.txt").write_text("\n".join(SBD_IDS))
    get("voc")
    assert_voc_is_complete(root)


@pytest.mark.parametrize(
    "lost",
    [
        f"JPEGImages/{TRAIN[1]}.jpg",
        f"JPEGImages/{SBD_ALONE[1]}.jpg",
        "JPEGImages",
        f"SegmentationClassAug/{SBD_ALONE[1]}.png",
        f"SegmentationClassAug/{VAL[1]}.png",
        "SegmentationClassAug",
        "ImageSets/Segmentation/val.txt",
        "ImageSets/Segmentation/trainaug.txt",
        "ImageSets",
    ],
)
def test_what_is_lost_is_made_up_for_and_the_rest_is_not_touched(get: Get, root: Path, lost: str) -> None:
    get("voc")
    path = devkit(root) / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    times = {p: p.stat().st_mtime_ns for p in devkit(root).rglob("*") if p.is_file()}
    get("voc")
    assert_voc_is_complete(root)
    assert {p: p.stat().st_mtime_ns for p in times} == times


@pytest.mark.parametrize(
    "lost", ["images/training", "annotations/validation", "images/training/ADE_train_00000002.jpg"]
)
def test_an_ade_folder_that_is_there_in_part_is_completed(get: Get, root: Path, archives: Files, lost: str) -> None:
    get("ade")
    path = root / "ADEChallengeData2016" / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    get("ade")
    assert_ade_is_complete(root, archives)


def test_the_photographs_of_the_augmented_list_are_got_where_only_vocs_own_were_there(get: Get, root: Path) -> None:
    get("voc")
    shutil.rmtree(devkit(root) / "SegmentationClassAug")
    (devkit(root) / "ImageSets" / "Segmentation" / "trainaug.txt").unlink()
    for image_id in SBD_ALONE:
        (devkit(root) / "JPEGImages" / f"{image_id}.jpg").unlink()
    get("voc")
    assert_voc_is_complete(root)


def test_a_shorter_list_of_the_users_own_stays(get: Get, root: Path) -> None:
    get("voc")
    listed = devkit(root) / "ImageSets" / "Segmentation" / "trainaug.txt"
    listed.write_text("\n".join(SBD_ALONE[:2]))
    shutil.rmtree(devkit(root) / "SegmentationClassAug")
    get("voc")
    assert listed.read_text().split() == SBD_ALONE[:2]
    assert Voc(root).ids("train") == tuple(SBD_ALONE[:2])


def test_a_listed_image_without_any_label_map_is_named(get: Get, root: Path) -> None:
    get("voc")
    (devkit(root) / "ImageSets" / "Segmentation" / "trainaug.txt").write_text("\n".join([*TRAINAUG, "2099_1"]))
    (devkit(root) / "JPEGImages" / "2099_1.jpg").write_bytes(jpeg(1))
    with pytest.raises(DataError, match=r"2099_1 is in the lists .* neither VOC nor SBD"):
        get("voc")


def test_what_a_killed_process_left_unfinished_is_cleared_away(get: Get, root: Path) -> None:
    get("voc")
    for folder in (devkit(root).parent / ".VOC2012.unfinished", root / "downloads" / f".{SBD.name}.unfinished"):
        folder.mkdir(parents=True)
        (folder / "file").touch()
    (root / "downloads" / f"{SBD.name}.part.json").touch()
    get("voc")
    assert_voc_is_complete(root)
    assert not (root / "downloads").exists()


def test_a_folder_on_another_disk_behind_a_link_is_filled_there(get: Get, root: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    root.mkdir()
    (root / "VOCdevkit").symlink_to(tmp_path / "elsewhere")
    get("voc")
    assert_voc_is_complete(root)
    assert (tmp_path / "elsewhere" / "VOC2012").is_dir()


# ------------------------------------------------------------------------------------------------------ kill -9

KILLED = """
import os, signal, sys
from pathlib import Path
import yaml
from benchmarks.obtain.obtain import obtain
from benchmarks.obtain.sources import with_mirrors

def progress(text, done, total):
    if text.startswith(sys.argv[3]) and done >= total / 2:
        os.kill(os.getpid(), signal.SIGKILL)

archives = with_mirrors(yaml.safe_load(Path(sys.argv[2]).read_text()), "test")
obtain("voc", Path(sys.argv[1]), archives=archives, progress=progress)
"""


@pytest.mark.parametrize(
    "moment", [f"checking {VOC.name}", f"unpacking {VOC.name}", f"unpacking {SBD.name}", "converting label maps"]
)
def test_a_killed_process_leaves_what_the_next_one_completes(
    get: Get, root: Path, server: ArchiveServer, tmp_path: Path, moment: str
) -> None:
    sources = tmp_path / "sources.yaml"
    sources.write_text(yaml.safe_dump(sources_of(server)))
    killed = subprocess.run([sys.executable, "-c", KILLED, root, sources, moment], capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (devkit(root) / "SegmentationClassAug").exists()
    assert devkit(root).exists() == (VOC.name not in moment)
    if devkit(root).exists():
        assert len(list((devkit(root) / "JPEGImages").iterdir())) == 13
    already = len(server.log)
    get("voc")
    assert_voc_is_complete(root)
    assert not (root / "downloads").exists()
    again = {entry.name for entry in server.log[already:] if entry.sent}
    assert again == ({SBD.name} if VOC.name in moment else set())


# --------------------------------------------------------------------------------------------- the command line


@pytest.fixture
def sources(server: ArchiveServer, tmp_path: Path) -> Path:
    path = tmp_path / "sources.yaml"
    path.write_text(yaml.safe_dump(sources_of(server)))
    return path


def command(*arguments: object, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bench", "data", "get", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, **(environment or {})},
    )


def one_line(text: str) -> bool:
    return text.startswith("bench") and text.count("\n") == 1 and text.endswith("\n")


def test_the_command_gets_voc_and_then_says_that_it_is_complete(sources: Path, root: Path) -> None:
    first = command("voc", "--sources", sources, environment={"BENCH_DATA_ROOT": str(root)})
    assert (first.returncode, first.stderr) == (0, "")
    assert f"downloading {VOC.name}" in first.stdout
    assert_voc_is_complete(root)
    second = command("voc", "--data-root", root, "--sources", sources)
    assert (second.returncode, second.stderr) == (0, "")
    assert second.stdout == f"voc is complete in {root}: nothing to get\n"


def test_the_command_says_a_failure_in_one_line(sources: Path, root: Path, server: ArchiveServer) -> None:
    server.offers[ADE.name].content = b"something else"
    ended = command("ade", "--data-root", root, "--sources", sources)
    assert ended.returncode == 1
    assert one_line(ended.stderr), ended.stderr
    assert "sha256:" in ended.stderr
    assert_nothing_looks_complete(root)


def test_no_server_at_all_is_said_in_one_line(root: Path, tmp_path: Path) -> None:
    with serving() as gone:
        url = gone.url(ADE.name)
    path = tmp_path / "gone.yaml"
    path.write_text(yaml.safe_dump({ADE.name: {"url": url}}))
    ended = command("ade", "--data-root", root, "--sources", path, "--tries", 2, environment={"no_proxy": "*"})
    assert ended.returncode == 1
    assert one_line(ended.stderr), ended.stderr
    assert "refused" in ended.stderr
    assert_nothing_looks_complete(root)


def test_an_interrupted_download_goes_on(sources: Path, root: Path, server: ArchiveServer) -> None:
    hold = server.offers[ADE.name].hold = threading.Event()
    arguments = [sys.executable, "-m", "bench", "data", "get", "ade", "--data-root", root, "--sources", sources]
    with subprocess.Popen(
        list(map(str, arguments)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        part = root / "downloads" / f"{ADE.name}.part"
        half = len(server.offers[ADE.name].content) // 2
        while process.poll() is None and not (part.exists() and part.stat().st_size == half):
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate()
    assert (process.returncode, said) == (130, "bench: interrupted\n")
    assert_nothing_looks_complete(root)
    hold.set()
    main_exits(0, "ade", "--data-root", root, "--sources", sources)
    assert ranges(server, ADE.name) == [None, f"bytes={half}-"]


def main_exits(status: int, *arguments: object) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["data", "get", *map(str, arguments)])
    assert exit_.value.code == status


DIGEST = "md5:" + 32 * "0"


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("[1, 2]", "mapping"),
        ("a: [", "YAML"),
        ("VOCtrainval.tar: {url: 'http://h/x'}", "did you mean VOCtrainval_11-May-2012.tar"),
        ("1: {url: 'http://h/x'}", "unknown archive 1"),
        (f"{ADE.name}: http://h/x", "url and checksum"),
        (f"{ADE.name}: {{}}", "url and checksum"),
        (f"{ADE.name}: {{link: 'http://h/x'}}", "url and checksum"),
        (f"{ADE.name}: {{url: 7}}", "url 7"),
        (f"{ADE.name}: {{url: 'file:///etc/passwd'}}", "file:///etc/passwd"),
        (f"{ADE.name}: {{url: 'http://'}}", "http://"),
        (f"{ADE.name}: {{url: 'http://h:port/x'}}", "http://h:port/x"),
        (f"{ADE.name}: {{url: 'http://[h/x'}}", "http://[h/x"),
        (f"{ADE.name}: {{url: 'http://h/a b'}}", "a b"),
        (f"{ADE.name}: {{checksum: 12}}", "12"),
        (f"{ADE.name}: {{checksum: '{DIGEST}0'}}", f"{DIGEST}0"),
        (f"{ADE.name}: {{checksum: 'crc:00'}}", "crc:00"),
    ],
)
def test_a_wrong_sources_file_is_refused(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, named: str
) -> None:
    (tmp_path / "sources.yaml").write_text(content)
    main_exits(2, "ade", "--data-root", root, "--sources", tmp_path / "sources.yaml")
    said = capsys.readouterr().err
    assert one_line(said)
    assert named in said
    assert not root.exists()


def test_a_wrong_request_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "file").touch()
    for arguments, named in {
        ("cityscapes", "--data-root", tmp_path / "data"): "allowed: voc, ade",
        ("shapes", "--data-root", tmp_path / "data"): "allowed: voc, ade",
        ("voc",): "--data-root",
        ("voc", "--data-root", tmp_path / "file" / "data"): "cannot write",
        ("voc", "--data-root", tmp_path / "data", "--tries", 0): "--tries 0",
        ("voc", "--data-root", tmp_path / "data", "--sources", tmp_path / "none.yaml"): "none.yaml",
    }.items():
        main_exits(2, *arguments)
        said = capsys.readouterr().err
        assert one_line(said)
        assert named in said
    assert not (tmp_path / "data").exists()


def test_a_mirror_may_have_the_published_checksum() -> None:
    archives = with_mirrors({ADE.name: {"url": "https://mirror/ade.zip"}}, "test")
    assert archives[ADE.name].checksum == PUBLISHED[ADE.name].checksum
    assert archives[VOC.name] == VOC
