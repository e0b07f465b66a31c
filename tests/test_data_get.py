"""`bench data get`: archives are downloaded, verified, unpacked and put in place at once, whatever goes wrong."""

import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from archive_server import ArchiveServer, Offer, serving
from PIL import Image
from scipy.io import savemat
from voc_root import save_mask

from bench.cli import main
from benchmarks.errors import DataError, FetchError
from benchmarks.files import read_mask
from benchmarks.obtain import obtain
from benchmarks.sources import ADE, PUBLISHED, SBD, VOC, with_mirrors
from benchmarks.unpack import unpack
from benchmarks.voc import Voc

TRAIN = [f"2007_{i:06d}" for i in range(4)]
VAL = [f"2007_{i:06d}" for i in range(4, 8)]
SBD_ALONE = [f"2008_{i:06d}" for i in range(5)]
SBD_IDS = [*SBD_ALONE, *TRAIN[:2], *VAL[:2]]
"""SBD annotates images of both of VOC's lists anew: those of the validation list must not be trained on."""
TRAINAUG = sorted([*TRAIN, *SBD_ALONE])
OWN_LABEL, SBD_LABEL = 3, 7

Get = Callable[..., list[str]]
Files = dict[str, bytes]


# ------------------------------------------------------------------------------------------------ small archives


def jpeg(seed: int) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.RandomState(seed).randint(0, 256, (24, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


def label_map(label: int) -> np.ndarray:
    labels = np.zeros((24, 32), np.uint8)
    labels[4:12, 4:20] = label
    labels[12, 4:20] = 255
    return labels


def mask_png(label: int, folder: Path) -> bytes:
    save_mask(label_map(label), folder / "mask.png")
    return (folder / "mask.png").read_bytes()


def sbd_mat(label: int) -> bytes:
    buffer = io.BytesIO()
    struct = np.zeros((1, 1), [(field, object) for field in ("Boundaries", "Segmentation", "CategoriesPresent")])
    struct["Segmentation"][0, 0] = label_map(label)
    savemat(buffer, {"GTcls": struct})
    return buffer.getvalue()


def voc_files(folder: Path) -> Files:
    top = "VOCdevkit/VOC2012"
    lists = {"train": TRAIN, "val": VAL}
    return {
        **{f"{top}/ImageSets/Segmentation/{name}.txt": "\n".join(ids).encode() for name, ids in lists.items()},
        **{f"{top}/JPEGImages/{i}.jpg": jpeg(k) for k, i in enumerate([*TRAIN, *VAL, *SBD_ALONE])},
        **{f"{top}/SegmentationClass/{i}.png": mask_png(OWN_LABEL, folder) for i in [*TRAIN, *VAL]},
        f"{top}/Annotations/{TRAIN[0]}.xml": b"<annotation/>",
    }


def sbd_files() -> Files:
    top = "benchmark_RELEASE/dataset"
    return {
        f"{top}/train.txt": "\n".join(SBD_IDS).encode(),
        f"{top}/img/{SBD_IDS[0]}.jpg": jpeg(99),
        **{f"{top}/cls/{i}.mat": sbd_mat(SBD_LABEL) for i in SBD_IDS},
    }


def ade_files(folder: Path) -> Files:
    files = {"ADEChallengeData2016/objectInfo150.txt": b"Idx\tRatio\n"}
    for split, count in {"training": 6, "validation": 3}.items():
        for i in range(count):
            name = f"ADE_{split[:5]}_{i:08d}"
            files[f"ADEChallengeData2016/images/{split}/{name}.jpg"] = jpeg(i)
            files[f"ADEChallengeData2016/annotations/{split}/{name}.png"] = mask_png(i, folder)
    return files


def tar_of(files: Files, mode: str = "w", extra: tuple[tarfile.TarInfo, ...] = ()) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:  # type: ignore[call-overload]
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
        for entry in extra:
            tar.addfile(entry)
    return buffer.getvalue()


def zip_of(files: Files, extra: tuple[zipfile.ZipInfo, ...] = ()) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
        for entry in extra:
            archive.writestr(entry, "/etc")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("masks")
    return {
        VOC.name: tar_of(voc_files(folder)),
        SBD.name: tar_of(sbd_files(), "w:gz"),
        ADE.name: zip_of(ade_files(folder)),
    }


@pytest.fixture
def server(archives: Files, monkeypatch: pytest.MonkeyPatch) -> Iterator[ArchiveServer]:
    monkeypatch.setenv("no_proxy", "*")
    with serving() as server:
        server.offers = {name: Offer(content) for name, content in archives.items()}
        yield server


def sources_of(server: ArchiveServer, checksums: dict[str, str] | None = None) -> dict[str, dict[str, str]]:
    def source(name: str, offer: Offer) -> dict[str, str]:
        checksum = f"sha256:{hashlib.sha256(offer.content).hexdigest()}"
        return {"url": server.url(name), "checksum": (checksums or {}).get(name, checksum)}

    return {name: source(name, offer) for name, offer in server.offers.items()}


@pytest.fixture
def get(server: ArchiveServer, tmp_path: Path) -> Get:
    """Get a data set into tmp_path/data from the server, and return what was noted."""

    def call(name: str = "voc", root: Path = tmp_path / "data", **options: object) -> list[str]:
        notes: list[str] = []
        arguments = {"archives": with_mirrors(sources_of(server), "test"), "tries": 2, "note": notes.append, **options}
        obtain(name, root, **arguments)  # type: ignore[arg-type]
        return notes

    return call


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "data"


def devkit(root: Path) -> Path:
    return root / "VOCdevkit" / "VOC2012"


def downloads(root: Path) -> list[str]:
    return sorted(p.name for p in (root / "downloads").iterdir()) if (root / "downloads").exists() else []


def assert_voc_is_complete(root: Path) -> None:
    voc = Voc(root)
    assert list(voc.ids("train")) == TRAINAUG
    assert list(voc.ids("test")) == VAL
    for split, ids in {"train": TRAINAUG, "test": VAL}.items():
        for index, image_id in enumerate(ids):
            expected = SBD_LABEL if image_id in SBD_ALONE else OWN_LABEL
            image, labels = voc.read(split, index)  # type: ignore[arg-type]
            assert image.shape == (24, 32, 3)
            assert (labels == label_map(expected)).all(), image_id
    assert sorted(p.stem for p in (devkit(root) / "SegmentationClassAug").iterdir()) == sorted([*TRAINAUG, *VAL])
    assert not unfinished(root)


def assert_ade_is_complete(root: Path, archives: Files) -> None:
    with zipfile.ZipFile(io.BytesIO(archives[ADE.name])) as archive:
        for name in archive.namelist():
            assert (root / name).read_bytes() == archive.read(name)
    assert not unfinished(root)


def assert_nothing_looks_complete(root: Path) -> None:
    """No folder of a data set is there, and no scratch folder was left."""
    for folder in (devkit(root), root / "ADEChallengeData2016", root / "benchmark_RELEASE"):
        assert not folder.exists()
    assert not unfinished(root)


def unfinished(root: Path) -> list[Path]:
    return list(root.rglob("*.unfinished"))


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
    from torchvision.datasets import SBDataset
    from torchvision.datasets.voc import DATASET_YEAR_DICT

    voc = DATASET_YEAR_DICT["2012"]
    assert (VOC.name, VOC.url, VOC.checksum) == (voc["filename"], voc["url"], f"md5:{voc['md5']}")
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


def test_a_root_with_voc_alone_gets_sbd_alone(get: Get, root: Path, server: ArchiveServer, archives: Files) -> None:
    with tarfile.open(fileobj=io.BytesIO(archives[VOC.name])) as tar:
        tar.extractall(root, filter="data")
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


# ------------------------------------------------------------------------------------------------- the network


def ranges(server: ArchiveServer, name: str) -> list[str | None]:
    return [entry.range for entry in server.asked(name)]


@pytest.mark.parametrize("cuts", [[1], [0], [5000], [-1], [5000, 9000, 1]])
def test_a_cut_download_goes_on_where_it_was_cut(
    get: Get, root: Path, server: ArchiveServer, archives: Files, cuts: list[int]
) -> None:
    whole = len(archives[VOC.name])
    server.offers[VOC.name].cuts = [cut % whole for cut in cuts]
    reached = [sum(c % whole for c in cuts[: k + 1]) for k in range(len(cuts))]
    get("voc")
    assert_voc_is_complete(root)
    assert ranges(server, VOC.name) == [None, *(f"bytes={at}-" if at else None for at in reached)]
    assert sum(entry.sent for entry in server.asked(VOC.name)) == whole


def test_a_download_goes_on_in_the_next_call(get: Get, root: Path, server: ArchiveServer, archives: Files) -> None:
    server.offers[VOC.name].cuts = [9000, 0]
    with pytest.raises(FetchError, match=r"cut after 9,000 of .*9,000 bytes are kept"):
        get("voc", tries=1)
    assert_nothing_looks_complete(root)
    get("voc")
    assert_voc_is_complete(root)
    last = server.asked(VOC.name)[-1]
    assert (last.range, last.if_range) == ("bytes=9000-", '"one"')
    assert last.sent == len(archives[VOC.name]) - 9000


def test_a_server_without_ranges_gives_the_whole_again(
    get: Get, root: Path, server: ArchiveServer, archives: Files
) -> None:
    server.offers[VOC.name] = Offer(archives[VOC.name], etag=None, ranges=False, cuts=[9000, 5000, 12000])
    get("voc")
    assert_voc_is_complete(root)
    assert server.asked(VOC.name)[-1].sent == len(archives[VOC.name])


def test_a_server_without_ranges_that_always_cuts_at_one_place_is_given_up(
    get: Get, root: Path, server: ArchiveServer, archives: Files
) -> None:
    server.offers[VOC.name] = Offer(archives[VOC.name], ranges=False, cuts=[9000] * 20)
    with pytest.raises(FetchError, match="cut after 9,000"):
        get("voc")
    assert len(server.log) == 3
    assert_nothing_looks_complete(root)


@pytest.mark.parametrize("heeds_if_range", [True, False])
def test_a_file_that_has_changed_meanwhile_is_not_glued(
    get: Get, root: Path, server: ArchiveServer, archives: Files, heeds_if_range: bool
) -> None:
    server.offers[VOC.name] = Offer(b"x" * 30000, etag='"old"', cuts=[9000, 0])
    checksum = f"sha256:{hashlib.sha256(archives[VOC.name]).hexdigest()}"
    sources = with_mirrors(sources_of(server, {VOC.name: checksum}), "test")
    with pytest.raises(FetchError, match="9,000 bytes are kept"):
        get("voc", tries=1, archives=sources)
    server.offers[VOC.name] = Offer(archives[VOC.name], etag='"new"', heeds_if_range=heeds_if_range)
    get("voc")
    assert_voc_is_complete(root)


def test_the_first_bytes_of_an_archive_with_another_checksum_are_not_gone_on_with(
    get: Get, root: Path, server: ArchiveServer, archives: Files
) -> None:
    server.offers[VOC.name] = Offer(b"x" * 30000, etag=None, cuts=[9000, 0])
    with pytest.raises(FetchError):
        get("voc", tries=1)
    server.offers[VOC.name] = Offer(archives[VOC.name], etag=None)
    get("voc")
    assert_voc_is_complete(root)


def test_an_archive_that_was_complete_when_the_process_died_is_not_downloaded_again(
    get: Get, root: Path, server: ArchiveServer, archives: Files
) -> None:
    (root / "downloads").mkdir(parents=True)
    (root / "downloads" / f"{VOC.name}.part").write_bytes(archives[VOC.name])
    about = {**sources_of(server)[VOC.name], "validator": '"one"'}
    (root / "downloads" / f"{VOC.name}.part.json").write_text(json.dumps(about))
    get("voc")
    assert_voc_is_complete(root)
    assert [entry.status for entry in server.asked(VOC.name)] == [416]


def test_first_bytes_longer_than_the_file_are_dropped(
    get: Get, root: Path, server: ArchiveServer, archives: Files
) -> None:
    (root / "downloads").mkdir(parents=True)
    (root / "downloads" / f"{VOC.name}.part").write_bytes(archives[VOC.name] + b"more")
    about = {**sources_of(server)[VOC.name], "validator": '"one"'}
    (root / "downloads" / f"{VOC.name}.part.json").write_text(json.dumps(about))
    get("voc")
    assert_voc_is_complete(root)


def test_fewer_bytes_than_announced_are_no_archive(
    get: Get, root: Path, server: ArchiveServer, archives: Files
) -> None:
    server.offers[VOC.name] = Offer(archives[VOC.name], missing=1000, ranges=False)
    with pytest.raises(FetchError, match=f"cut after {len(archives[VOC.name]):,} of"):
        get("voc")
    assert_nothing_looks_complete(root)


@pytest.mark.parametrize("announced", [True, False])
def test_wrong_bytes_are_named_and_removed_and_the_next_try_starts_anew(
    get: Get, root: Path, server: ArchiveServer, archives: Files, announced: bool
) -> None:
    right = with_mirrors(sources_of(server), "test")
    wrong = bytes([archives[VOC.name][0] ^ 1]) + archives[VOC.name][1:]
    server.offers[VOC.name] = Offer(wrong, etag=None, announced=announced)
    with pytest.raises(FetchError) as caught:
        get("voc", archives=right)
    for part in (VOC.name, right[VOC.name].checksum, hashlib.sha256(wrong).hexdigest(), f"{len(wrong):,} bytes"):
        assert part in str(caught.value)
    assert_nothing_looks_complete(root)
    assert VOC.name not in downloads(root)
    assert f"{VOC.name}.part" not in downloads(root)
    server.offers[VOC.name] = Offer(archives[VOC.name], etag=None, announced=announced)
    get("voc")
    assert_voc_is_complete(root)
    assert ranges(server, VOC.name) == [None, None]


def test_a_busy_server_is_asked_again(get: Get, root: Path, server: ArchiveServer) -> None:
    server.offers[VOC.name].failures = [503]
    notes = get("voc")
    assert_voc_is_complete(root)
    assert any("503" in note and "next try in" in note for note in notes)


def test_a_missing_file_is_not_asked_for_again(get: Get, root: Path, server: ArchiveServer) -> None:
    server.offers[VOC.name].failures = [404] * 9
    with pytest.raises(FetchError, match=f"{VOC.name}.* answers 404"):
        get("voc")
    assert len(server.log) == 1
    assert_nothing_looks_complete(root)


def test_a_host_that_cannot_be_a_name_is_no_connection(get: Get, root: Path) -> None:
    with pytest.raises(FetchError, match="no connection"):
        get("ade", tries=1, archives=with_mirrors({ADE.name: {"url": "http://a..b/x"}}, "test"))
    assert_nothing_looks_complete(root)


def test_a_lost_second_archive_leaves_the_first_one_in_place(get: Get, root: Path, server: ArchiveServer) -> None:
    server.offers[SBD.name].failures = [404]
    with pytest.raises(FetchError, match=SBD.name):
        get("voc")
    assert not (devkit(root) / "SegmentationClassAug").exists()
    server.log.clear()
    get("voc")
    assert_voc_is_complete(root)
    assert {entry.name for entry in server.log} == {SBD.name}


def test_two_processes_do_not_get_into_one_root(get: Get, root: Path, server: ArchiveServer) -> None:
    go_on = threading.Event()
    server.offers[VOC.name].hold = go_on
    first = threading.Thread(target=get)
    first.start()
    try:
        while not server.log:
            time.sleep(0.01)
        with pytest.raises(FetchError, match="another process"):
            get("voc")
    finally:
        go_on.set()
        first.join()
    assert_voc_is_complete(root)


# -------------------------------------------------------------------------------------------- damaged and hostile


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("name", [VOC.name, SBD.name, ADE.name])
def test_a_truncated_archive_is_named(
    get: Get, root: Path, server: ArchiveServer, archives: Files, name: str, share: float
) -> None:
    """Its checksum is that of what is served: a mirror's sources were made from a truncated file."""
    content = archives[name].rstrip(b"\0") if name == VOC.name else archives[name]
    server.offers[name] = Offer(content[: int(share * len(content))])
    with pytest.raises(FetchError, match=f"{name} is cut or damaged"):
        get("ade" if name == ADE.name else "voc")
    assert not unfinished(root)
    assert not (devkit(root) / "SegmentationClassAug").exists()
    assert not (root / "ADEChallengeData2016").exists()
    if name == VOC.name:
        assert not devkit(root).exists()


def test_a_tar_that_ends_behind_a_whole_entry_is_cut_nonetheless(
    get: Get, root: Path, server: ArchiveServer, archives: Files
) -> None:
    with tarfile.open(fileobj=io.BytesIO(archives[VOC.name])) as tar:
        cut = tar.getmembers()[9].offset
    server.offers[VOC.name] = Offer(archives[VOC.name][:cut])
    with pytest.raises(FetchError, match="its end is missing"):
        get("voc")
    assert_nothing_looks_complete(root)


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, target
    return entry


def zip_link(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name)
    entry.create_system = 3
    entry.external_attr = 0o120777 << 16
    return entry


HOSTILE = {
    "parent.tar": lambda files: tar_of({**files, "f/../../evil": b"x"}),
    "parent.tgz": lambda files: tar_of({**files, "../evil": b"x"}, "w:gz"),
    "parent.zip": lambda files: zip_of({**files, "f/../../evil": b"x"}),
    "absolute.tar": lambda files: tar_of({**files, "/tmp/evil": b"x"}),
    "absolute.zip": lambda files: zip_of({**files, "/tmp/evil": b"x"}),
    "symlink.tar": lambda files: tar_of(files, extra=(link("f/evil", "../../outside"),)),
    "absolute-symlink.tar": lambda files: tar_of(files, extra=(link("f/evil", "/etc"),)),
    "hardlink.tar": lambda files: tar_of(files, extra=(link("f/evil", "../outside", tarfile.LNKTYPE),)),
    "symlink.zip": lambda files: zip_of(files, extra=(zip_link("f/evil"),)),
    "device.tar": lambda files: tar_of(files, extra=(link("f/evil", "", tarfile.CHRTYPE),)),
    "pipe.tar": lambda files: tar_of(files, extra=(link("f/evil", "", tarfile.FIFOTYPE),)),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_an_archive_that_would_write_elsewhere_is_refused_before_anything_is_written(tmp_path: Path, kind: str) -> None:
    archive, target = tmp_path / kind, tmp_path / "target"
    archive.write_bytes(HOSTILE[kind]({"f/a.txt": b"a"}))
    target.mkdir()
    with pytest.raises(DataError, match="evil"):
        unpack(archive, "f", target, lambda *_: None)
    assert list(target.iterdir()) == []
    assert not (tmp_path / "evil").exists()


def test_a_link_that_leads_outside_by_way_of_another_is_refused(tmp_path: Path) -> None:
    """`f/a/b/c` is the folder itself, so `f/evil`, which stays inside by its name, is its parent."""
    chain = (link("f/a/b/c", "../.."), link("f/evil", "a/b/c/../.."))
    (tmp_path / "x.tar").write_bytes(tar_of({"f/a/b/file": b""}, extra=chain))
    (tmp_path / "target").mkdir()
    with pytest.raises(DataError, match="evil"):
        unpack(tmp_path / "x.tar", "f", tmp_path / "target", lambda *_: None)


def test_a_hostile_archive_leaves_the_root_as_it_was(get: Get, root: Path, server: ArchiveServer) -> None:
    server.offers[VOC.name] = Offer(tar_of({"VOCdevkit/VOC2012/a": b"", "../evil": b"x"}))
    with pytest.raises(DataError, match=r"'\.\./evil'"):
        get("voc")
    assert_nothing_looks_complete(root)
    assert not (root.parent / "evil").exists()


def test_an_archive_of_something_else_is_refused(get: Get, root: Path, server: ArchiveServer) -> None:
    server.offers[ADE.name] = Offer(zip_of({"cats/cat.jpg": b""}))
    with pytest.raises(FetchError, match="holds no folder ADEChallengeData2016"):
        get("ade")
    assert_nothing_looks_complete(root)


# --------------------------------------------------------------------------------------------------- a full disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a disk of 1 MiB cannot be mounted here (not root)")
    yield disk
    subprocess.run(["umount", disk], check=True)


def enlarge(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=32m", disk], check=True)


def with_ballast(archives: Files, size: int, folder: Path) -> bytes:
    ballast = np.random.RandomState(0).bytes(size)
    return tar_of({**voc_files(folder), "VOCdevkit/VOC2012/ballast": ballast})


def test_a_disk_too_small_is_said_before_the_download(
    get: Get, server: ArchiveServer, small_disk: Path, archives: Files, tmp_path: Path
) -> None:
    server.offers[VOC.name] = Offer(with_ballast(archives, 700_000, tmp_path))
    with pytest.raises(FetchError, match=r"needs [\d,]+ bytes, the disk of .* has [\d,]+ left"):
        get("voc", small_disk)
    assert f"{VOC.name}.part" not in downloads(small_disk)
    assert_nothing_looks_complete(small_disk)


def test_a_disk_that_fills_up_is_said_and_the_download_goes_on_later(
    get: Get, server: ArchiveServer, small_disk: Path, archives: Files, tmp_path: Path
) -> None:
    server.offers[VOC.name] = Offer(with_ballast(archives, 1_500_000, tmp_path), announced=False)
    with pytest.raises(FetchError, match="is full"):
        get("voc", small_disk)
    assert_nothing_looks_complete(small_disk)
    kept = (small_disk / "downloads" / f"{VOC.name}.part").stat().st_size
    assert kept > 500_000
    enlarge(small_disk)
    get("voc", small_disk)
    assert_voc_is_complete(small_disk)
    assert ranges(server, VOC.name) == [None, f"bytes={kept}-"]


def test_an_archive_that_is_larger_unpacked_than_the_disk_is_not_unpacked(
    get: Get, server: ArchiveServer, small_disk: Path, archives: Files, tmp_path: Path
) -> None:
    files = {**ade_files(tmp_path), "ADEChallengeData2016/ballast": bytes(5_000_000)}
    server.offers[ADE.name] = Offer(zip_of(files))
    with pytest.raises(FetchError, match=r"unpacking .* needs 5,"):
        get("ade", small_disk)
    assert_nothing_looks_complete(small_disk)
    enlarge(small_disk)
    server.log.clear()
    get("ade", small_disk)
    assert (small_disk / "ADEChallengeData2016" / "ballast").stat().st_size == 5_000_000
    assert server.log == []


def test_a_disk_that_fills_up_while_unpacking_leaves_nothing(
    get: Get, server: ArchiveServer, small_disk: Path, archives: Files, tmp_path: Path
) -> None:
    """Small files take a block each: more than their sizes' sum."""
    files = {**ade_files(tmp_path), **{f"ADEChallengeData2016/{i}": b"x" for i in range(400)}}
    server.offers[ADE.name] = Offer(zip_of(files))
    with pytest.raises(FetchError, match="is full"):
        get("ade", small_disk)
    assert_nothing_looks_complete(small_disk)
    enlarge(small_disk)
    get("ade", small_disk)
    assert len(list((small_disk / "ADEChallengeData2016").iterdir())) == 403


# ------------------------------------------------------------------------------------------------------ kill -9

KILLED = """
import os, signal, sys
from pathlib import Path
import yaml
from benchmarks.obtain import obtain
from benchmarks.sources import with_mirrors

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
