"""Damaged and hostile archives are refused by name before anything is written."""

import io
import tarfile
import zipfile
from pathlib import Path

import pytest
from archive_server import ArchiveServer, Offer
from small_archives import Files, Get, assert_nothing_looks_complete, devkit, tar_of, unfinished, zip_of

from benchmarks.errors import DataError, FetchError
from benchmarks.obtain.sources import ADE, SBD, VOC
from benchmarks.obtain.unpack import unpack

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
