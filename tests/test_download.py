"""Downloads go on where they were cut, end with the published bytes or say why not, and respect the disk."""

import hashlib
import json
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from archive_server import ArchiveServer, Offer
from small_archives import (
    Files,
    Get,
    ade_files,
    assert_nothing_looks_complete,
    assert_voc_is_complete,
    devkit,
    downloads,
    ranges,
    sources_of,
    tar_of,
    voc_files,
    zip_of,
)
from small_disk import mounted

from benchmarks.errors import FetchError
from benchmarks.obtain.sources import ADE, SBD, VOC, with_mirrors

# ------------------------------------------------------------------------------------------------- the network


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


# --------------------------------------------------------------------------------------------------- a full disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MiB."""
    with mounted(tmp_path / "disk", "size=1m") as disk:
        yield disk


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
