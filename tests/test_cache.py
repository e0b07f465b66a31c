"""Folders of the cache appear whole, whoever else makes them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks.cache import ABANDONED_SECONDS, appearing_folder, keep


def test_a_folder_appears_with_its_content_and_by_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with appearing_folder(tmp_path / "made") as scratch:
            (scratch / "file").write_text("content")
            assert not (tmp_path / "made").exists()
    finally:
        os.umask(before)
    assert (tmp_path / "made" / "file").read_text() == "content"
    assert (tmp_path / "made").stat().st_mode & 0o777 == 0o750
    assert list(tmp_path.iterdir()) == [tmp_path / "made"]


def test_the_first_of_two_makers_wins(tmp_path: Path) -> None:
    with appearing_folder(tmp_path / "made") as first:
        (first / "file").write_text("first")
        with appearing_folder(tmp_path / "made") as second:
            (second / "file").write_text("second")
    assert (tmp_path / "made" / "file").read_text() == "second"
    assert list(tmp_path.iterdir()) == [tmp_path / "made"]


def test_what_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), appearing_folder(tmp_path / "made"):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_what_is_abandoned_is_deleted_and_what_vanishes_meanwhile_is_no_matter(tmp_path: Path) -> None:
    old = tmp_path / ".made.old"
    old.mkdir()
    long_ago = old.stat().st_mtime - 2 * ABANDONED_SECONDS
    os.utime(old, (long_ago, long_ago))
    (tmp_path / ".made.vanished").symlink_to("nowhere")
    (tmp_path / ".made.new").mkdir()
    with appearing_folder(tmp_path / "made"):
        pass
    assert {path.name for path in tmp_path.iterdir()} == {"made", ".made.new", ".made.vanished"}


def test_a_file_that_is_kept_replaces_the_one_before_and_leaves_nothing(tmp_path: Path) -> None:
    for content in (b"one", b"two"):
        keep(tmp_path / "file", content)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"two"]
