"""Small archives of the published layouts, a server for them, and what a complete root has: for the tests."""

import hashlib
import io
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from archive_server import ArchiveServer, Offer, serving
from PIL import Image
from scipy.io import savemat
from voc_root import save_mask

from benchmarks.imageset import Split
from benchmarks.obtain.obtain import obtain
from benchmarks.obtain.sources import ADE, SBD, VOC, with_mirrors
from benchmarks.sets.voc import Voc

TRAIN = [f"2007_{i:06d}" for i in range(4)]
VAL = [f"2007_{i:06d}" for i in range(4, 8)]
SBD_ALONE = [f"2008_{i:06d}" for i in range(5)]
SBD_IDS = [*SBD_ALONE, *TRAIN[:2], *VAL[:2]]
"""SBD annotates images of both of VOC's lists anew: those of the validation list must not be trained on."""
TRAINAUG = sorted([*TRAIN, *SBD_ALONE])
OWN_LABEL, SBD_LABEL = 3, 7

Get = Callable[..., list[str]]
Files = dict[str, bytes]


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


def tar_of(files: Files, mode: Literal["w", "w:gz"] = "w", extra: tuple[tarfile.TarInfo, ...] = ()) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:
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

    def call(name: str = "voc", root: Path = tmp_path / "data", **options: Any) -> list[str]:
        notes: list[str] = []
        arguments: dict[str, Any] = {
            "archives": with_mirrors(sources_of(server), "test"),
            "tries": 2,
            "note": notes.append,
            **options,
        }
        obtain(name, root, **arguments)
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
    listed: dict[Split, list[str]] = {"train": TRAINAUG, "test": VAL}
    for split, ids in listed.items():
        for index, image_id in enumerate(ids):
            expected = SBD_LABEL if image_id in SBD_ALONE else OWN_LABEL
            image, labels = voc.read(split, index)
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


def ranges(server: ArchiveServer, name: str) -> list[str | None]:
    return [entry.range for entry in server.asked(name)]
