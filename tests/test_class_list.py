"""A class list gives the scenarios that the label maps give, and claims nothing that only pixels tell."""

import json
from pathlib import Path

import numpy as np
import pytest

from bench.cli.entry import main
from benchmarks.class_list import open_class_list
from benchmarks.errors import DataError
from benchmarks.imageset import SPLITS
from benchmarks.scenarios import load_scenario

NAME = "voc-15-1-disjoint"


@pytest.fixture
def lists(tiny_voc: Path, tmp_path: Path) -> Path:
    """A folder with the class lists of the little VOC root, named as SSUL's are."""
    voc = load_scenario(NAME, tiny_voc).imageset
    folder = tmp_path / "lists"
    folder.mkdir()
    for split, name in zip(SPLITS, ("train_cls.txt", "val_cls.txt"), strict=True):
        rows = zip(voc.ids(split), voc.class_presence(split), strict=True)
        text = "".join(f"{' '.join([i, *(str(c - 1) for c in np.flatnonzero(row))])}\n" for i, row in rows)
        (folder / name).write_text(text)
    return folder


def shown(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    with pytest.raises(SystemExit) as ended:
        main(["scenario", *map(str, arguments)])
    assert ended.value.code == 0
    return capsys.readouterr().out


def refused(file: Path, capsys: pytest.CaptureFixture[str], name: str = NAME) -> str:
    with pytest.raises(SystemExit) as ended:
        main(["scenario", name, "--class-list", str(file)])
    error = capsys.readouterr().err
    assert ended.value.code == 2 and error.count("\n") == 1
    return error


@pytest.mark.parametrize("name", [NAME, "voc-15-5-overlapped", "voc-10+6+4-sequential:order=random:3,rule=ade"])
def test_a_class_list_gives_the_split_of_the_label_maps(
    name: str, lists: Path, tiny_voc: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    by_list = json.loads(shown(capsys, name, "--class-list", lists / "train_cls.txt", "--json"))
    assert by_list == json.loads(shown(capsys, name, "--data-root", tiny_voc, "--json"))


def test_the_lists_are_told(lists: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train, test = lists / "train_cls.txt", lists / "val_cls.txt"
    out = shown(capsys, NAME, "--class-list", train)
    assert f"classes of 120 training images from {train}, 40 test images from {test}\n" in out


@pytest.mark.parametrize("list_name", ["train_cls.txt", "all.txt"])
def test_without_a_test_list_what_it_would_tell_is_unknown(
    list_name: str, lists: Path, tiny_voc: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (lists / "val_cls.txt").unlink()
    file = (lists / "train_cls.txt").rename(lists / list_name)
    out = shown(capsys, NAME, "--class-list", file)
    assert "test images and split_hash are unknown" in out and "split_hash unknown\n" in out
    expected = json.loads(shown(capsys, NAME, "--data-root", tiny_voc, "--json")) | {"split_hash": None}
    for step in expected["steps"]:
        step["test_images"] = None
    assert json.loads(shown(capsys, NAME, "--class-list", file, "--json")) == expected


def test_nothing_is_claimed_of_pixels(lists: Path) -> None:
    imageset = open_class_list("voc", lists / "train_cls.txt")
    for claim in (lambda: imageset.fingerprint, imageset.stamp, lambda: imageset.read("train", 0)):
        with pytest.raises(DataError, match="tells nothing of the pixels of voc"):
            claim()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("2007_1 20", "line 3: class '20' of 2007_1; allowed are 0..19 (the label less one), once each"),
        ("2007_1 -1", "line 3: class '-1'"),
        ("2007_1 cat", "line 3: class 'cat'"),
        ("2007_1 3 3", "line 3: class '3'"),
        ("a 3", "line 3: a stands there twice"),
        ("JPEGImages/a.jpg 3", "line 3: JPEGImages/a.jpg is no id, but a path"),
    ],
)
def test_a_wrong_line_is_named(line: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "train.txt"
    file.write_text(f"a 0\n\n{line}\n")
    assert refused(file, capsys).startswith(f"bench: {file}, {said}")


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "cannot read"), (b"", "is empty; it has a line per image"), (b"\x89PNG\xff", "is not text")],
)
def test_what_is_no_class_list_is_refused(
    content: bytes | None, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "train.txt"
    if content is not None:
        file.write_bytes(content)
    assert said in refused(file, capsys)


def test_a_folder_and_a_set_without_published_lists_are_refused(
    lists: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "is a folder; it is the training images' list" in refused(lists, capsys)
    for name in ("scenes-100-50-disjoint", "folder-6-5-disjoint"):
        assert "--class-list is for voc and ade" in refused(lists / "train_cls.txt", capsys, name)


def test_a_wrong_test_list_is_named(lists: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (lists / "val_cls.txt").write_text("a 0\nb 99\n")
    assert f"{lists / 'val_cls.txt'}, line 2: class '99' of b" in refused(lists / "train_cls.txt", capsys)
