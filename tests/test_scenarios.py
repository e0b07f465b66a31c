"""Which classes and images a step has: names, definitions, published sizes, the presence scan and its cache."""

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat
from usual import usual
from voc_root import make_voc_root, save_mask

from bench.cli.entry import main
from benchmarks import presence as presence_module
from benchmarks.division import disjoint, overlapped
from benchmarks.division import tested_images as images_that_test
from benchmarks.errors import DataError
from benchmarks.names import class_groups, parse_name, scenario_names
from benchmarks.scenarios import Scenario, load_scenario
from benchmarks.sets.registry import image_set_class, open_image_set

PUBLISHED = {
    "19-1-disjoint": [10034, 548],
    "19-1-overlapped": [10410, 548],
    "15-5-disjoint": [8437, 2145],
    "15-5-overlapped": [9568, 2145],
    "15-1-disjoint": [8437, 378, 299, 420, 500, 548],
    "15-1-overlapped": [9568, 487, 299, 491, 500, 548],
}
TEST_SIZES = {"19-1": [1421, 1449], "15-5": [1240, 1449], "15-1": [1240, 1277, 1329, 1353, 1421, 1449]}
VOC_NAMES = [f"voc-{rest}" for rest in PUBLISHED]


def devkit(root: Path) -> Path:
    return root / "VOCdevkit" / "VOC2012"


def listed(root: Path, name: str) -> list[str]:
    return (devkit(root) / "ImageSets" / "Segmentation" / f"{name}.txt").read_text().split()


def described(name: str, root: Path, capsys: pytest.CaptureFixture[str]) -> dict:
    with pytest.raises(SystemExit) as exit_:
        main(["scenario", name, "--data-root", str(root), "--json"])
    assert exit_.value.code == 0
    return json.loads(capsys.readouterr().out)


def groups_of(name: str) -> tuple[tuple[int, ...], ...]:
    parsed = parse_name(name)
    return class_groups(parsed, image_set_class(parsed.dataset).fixed_class_names or ())


def ids_of(scenario: Scenario, split: str) -> list[list[str]]:
    ids = scenario.imageset.ids(split)
    return [[ids[i] for i in getattr(step, split)] for step in scenario.steps]


# ------------------------------------------------------------------------------------------------ definitions

GROUPS = [(1, 2), (3,), (4,)]
#        image:  0          1          2       3          4          5       6   7
CLASSES_IN = [{1}, {1, 3}, {3}, {2, 3, 4}, {4}, {1, 4}, set(), {1, 2}]


@pytest.fixture
def matrix() -> np.ndarray:
    presence = np.zeros((len(CLASSES_IN), 5), dtype=bool)
    for image, classes in enumerate(CLASSES_IN):
        presence[image, list(classes)] = True
    return presence


def test_overlapped_step_has_every_image_with_a_pixel_of_its_classes(matrix: np.ndarray) -> None:
    steps = overlapped(matrix, GROUPS)
    assert [step.tolist() for step in steps] == [[0, 1, 3, 5, 7], [1, 2, 3], [3, 4, 5]]


def test_disjoint_step_leaves_out_images_with_a_class_of_a_later_step(matrix: np.ndarray) -> None:
    steps = disjoint(matrix, GROUPS)
    assert [step.tolist() for step in steps] == [[0, 7], [1, 2], [3, 4, 5]]


def test_images_keep_the_order_of_the_list(matrix: np.ndarray) -> None:
    steps = disjoint(matrix[::-1], GROUPS)
    assert [step.tolist() for step in steps] == [[0, 7], [5, 6], [2, 3, 4]]


def test_test_set_has_every_image_with_a_class_known_by_then(matrix: np.ndarray) -> None:
    assert [step.tolist() for step in images_that_test(matrix, GROUPS)] == [
        [0, 1, 3, 5, 7],
        [0, 1, 2, 3, 5, 7],
        [0, 1, 2, 3, 4, 5, 7],
    ]


@pytest.mark.parametrize("name", ["shapes-15-1-disjoint", "shapes-10-2-disjoint"])
def test_disjoint_steps_share_no_image(name: str) -> None:
    steps = [set(step.train.tolist()) for step in load_scenario(name).steps]
    assert sum(map(len, steps)) == len(set().union(*steps)) == 3000


def test_overlapped_steps_share_images() -> None:
    steps = load_scenario("shapes-15-1-overlapped").steps
    assert set(steps[0].train.tolist()) & set(steps[1].train.tolist())


# ------------------------------------------------------------------------------------------------------ names


def test_name_gives_the_classes_of_each_step() -> None:
    assert groups_of("voc-15-1-disjoint") == (tuple(range(1, 16)), (16,), (17,), (18,), (19,), (20,))
    assert groups_of("voc-15-5-overlapped") == (tuple(range(1, 16)), (16, 17, 18, 19, 20))
    assert groups_of("shapes-10-5-disjoint") == (
        tuple(range(1, 11)),
        (11, 12, 13, 14, 15),
        (16, 17, 18, 19, 20),
    )


@pytest.mark.parametrize("name", scenario_names())
def test_every_listed_name_is_its_own_parse(name: str) -> None:
    assert str(parse_name(name)) == name


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("voc-15-1-disjont", "voc-15-1-disjoint"),
        ("voc-15-1", "voc-15-1-disjoint"),
        ("shape-15-1-overlapped", "shapes-15-1-overlapped"),
        ("VOC-15-1-disjoint", "voc-15-1-disjoint"),
        ("coco-15-1-disjoint", "unknown"),
        ("", "bench scenarios"),
        ("xyzzy", "bench scenarios"),
    ],
)
def test_unknown_name_names_the_nearest(name: str, said: str) -> None:
    with pytest.raises(DataError, match="unknown scenario") as error:
        parse_name(name)
    assert said in str(error.value)
    assert f"'{name}'" in str(error.value)


@pytest.mark.parametrize(
    "name",
    [
        "voc-15-2-disjoint",
        "voc-20-1-disjoint",
        "voc-21-1-disjoint",
        "voc-0-1-disjoint",
        "voc-15-0-disjoint",
        "voc-15-6-disjoint",
        "voc-99999999999999999999-1-disjoint",
    ],
)
def test_uneven_split_is_refused(name: str) -> None:
    with pytest.raises(DataError, match="20 classes") as error:
        parse_name(name)
    assert name in str(error.value)


@pytest.mark.parametrize("name", ["voc-015-1-disjoint", "voc-15-01-disjoint", "voc-\u0661\u0665-1-disjoint"])
def test_name_has_one_spelling(name: str) -> None:
    """Seeds and folders are derived from the name's text: `voc-015-1-...` must not be a second `voc-15-1-...`."""
    try:
        parsed = parse_name(name)
    except DataError:
        return
    assert str(parsed) == name


def test_unknown_data_set_is_refused_by_name() -> None:
    with pytest.raises(DataError, match="did you mean shapes"):
        open_image_set("shape")


# ------------------------------------------------------------------------------------------------------- JSON


@pytest.mark.parametrize("name", ["voc-15-1-disjoint", "voc-15-5-overlapped", "voc-19-1-disjoint"])
def test_json_has_the_documented_keys(name: str, tiny_voc: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = described(name, tiny_voc, capsys)
    assert {"name", "dataset", "setup", "steps"} <= set(shown)
    assert (shown["name"], shown["dataset"], shown["setup"]) == (name, "voc", name.split("-")[-1])
    for t, step in enumerate(shown["steps"]):
        assert set(step) == {"step", "classes", "train_images", "test_images", "train_sha256"}
        assert step["step"] == t
    assert sorted(c for step in shown["steps"] for c in step["classes"]) == list(range(1, 21))


def test_train_sha256_is_the_digest_of_the_ids_one_per_line(tiny_voc: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = [
        [i for i in listed(tiny_voc, "trainaug") if step == disjoint_step(tiny_voc, i, [15, 16, 17, 18, 19, 20])]
        for step in range(6)
    ]
    shown = described("voc-15-1-disjoint", tiny_voc, capsys)["steps"]
    for ids, step in zip(expected, shown, strict=True):
        assert step["train_images"] == len(ids)
        assert step["train_sha256"] == hashlib.sha256("".join(f"{i}\n" for i in ids).encode()).hexdigest()


def disjoint_step(root: Path, image_id: str, last_class_of_step: list[int]) -> int:
    """The step whose classes hold the image's largest class id, from np.unique of its mask."""
    mask = np.asarray(Image.open(devkit(root) / "SegmentationClassAug" / f"{image_id}.png"))
    largest = max(set(np.unique(mask).tolist()) - {0, 255})
    return next(t for t, last in enumerate(last_class_of_step) if largest <= last)


# ---------------------------------------------------------------------------------------------- the real masks


@pytest.mark.parametrize("name", usual(VOC_NAMES, "voc-15-1-disjoint"))
def test_voc_has_the_published_sizes(name: str, voc_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = described(name, voc_data, capsys)
    split = name.removeprefix("voc-")
    assert [step["train_images"] for step in shown["steps"]] == PUBLISHED[split]
    assert [step["test_images"] for step in shown["steps"]] == TEST_SIZES[split.rsplit("-", 1)[0]]


def test_voc_matches_a_slow_computation_index_for_index(voc_data: Path) -> None:
    """Every 40th mask of the training list, decoded by Pillow and searched by np.unique."""
    steps = {name: [set(s.train.tolist()) for s in load_scenario(name, voc_data).steps] for name in VOC_NAMES}
    for place, image_id in list(enumerate(listed(voc_data, "trainaug")))[::40]:
        mask = np.asarray(Image.open(devkit(voc_data) / "SegmentationClassAug" / f"{image_id}.png"))
        present = set(np.unique(mask).tolist()) - {0, 255}
        for name in VOC_NAMES:
            groups = [set(g) for g in groups_of(name)]
            member = [bool(present & g) for g in groups]
            if name.endswith("disjoint"):
                member = [m and not any(member[t + 1 :]) for t, m in enumerate(member)]
            assert [place in step for step in steps[name]] == member, (name, image_id)


def test_voc_test_set_matches_a_slow_computation(voc_data: Path) -> None:
    steps = [set(s.test.tolist()) for s in load_scenario("voc-15-1-disjoint", voc_data).steps]
    for place, image_id in list(enumerate(listed(voc_data, "val")))[::20]:
        mask = np.asarray(Image.open(devkit(voc_data) / "SegmentationClassAug" / f"{image_id}.png"))
        present = set(np.unique(mask).tolist()) - {0, 255}
        assert [place in step for step in steps] == [any(1 <= c <= 15 + t for c in present) for t in range(6)]


# ---------------------------------------------------------------------------------------------- presence cache


@pytest.fixture
def scanned(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many masks each scan of this test read."""
    counts: list[int] = []
    scan = presence_module.scan

    def counted(paths: list[Path], max_megapixels: float) -> object:
        counts.append(len(paths))
        return scan(paths, max_megapixels)

    monkeypatch.setattr(presence_module, "scan", counted)
    return counts


def test_masks_are_scanned_once(tiny_voc: Path, scanned: list[int]) -> None:
    load_scenario("voc-15-1-disjoint", tiny_voc)
    assert sorted(scanned) == [40, 120]
    load_scenario("voc-15-5-overlapped", tiny_voc)
    assert len(scanned) == 2


def test_a_mask_of_another_size_is_scanned_again(tiny_voc: Path, scanned: list[int]) -> None:
    before = ids_of(load_scenario("voc-15-1-disjoint", tiny_voc), "train")
    first = before[0][0]
    path = devkit(tiny_voc) / "SegmentationClassAug" / f"{first}.png"
    times = (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    save_mask(np.full((40, 48), 20, np.uint8), path)
    os.utime(path, ns=times)
    after = ids_of(load_scenario("voc-15-1-disjoint", tiny_voc), "train")
    assert first not in after[0]
    assert first in after[5]
    assert scanned.count(120) == 2


def test_a_mask_of_another_time_is_scanned_again(tiny_voc: Path, scanned: list[int]) -> None:
    load_scenario("voc-15-1-disjoint", tiny_voc)
    path = devkit(tiny_voc) / "SegmentationClassAug" / f"{listed(tiny_voc, 'trainaug')[0]}.png"
    os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns + 1))
    load_scenario("voc-15-1-disjoint", tiny_voc)
    assert sorted(scanned) == [40, 120, 120]


def test_a_changed_list_is_scanned_again(tiny_voc: Path) -> None:
    path = devkit(tiny_voc) / "ImageSets" / "Segmentation" / "trainaug.txt"
    before = ids_of(load_scenario("voc-15-1-disjoint", tiny_voc), "train")
    path.write_text("\n".join(reversed(path.read_text().split())))
    after = ids_of(load_scenario("voc-15-1-disjoint", tiny_voc), "train")
    assert after == [step[::-1] for step in before]


@pytest.mark.parametrize("content", [b"", b"not an npz", b"PK\x03\x04 cut off"])
def test_a_damaged_cache_file_is_made_again(tiny_voc: Path, own_cache: Path, content: bytes) -> None:
    """A full disk or a crash may leave one; it must not stand in the way for ever."""
    before = ids_of(load_scenario("voc-15-1-disjoint", tiny_voc), "train")
    files = list(own_cache.glob("presence/*"))
    assert len(files) == 2
    for path in files:
        path.write_bytes(content)
    assert ids_of(load_scenario("voc-15-1-disjoint", tiny_voc), "train") == before


def test_a_flipped_bit_in_a_cache_file_is_noticed(tiny_voc: Path, own_cache: Path) -> None:
    """Which labels stand in which image decides who trains on it."""
    before = ids_of(load_scenario("voc-15-1-disjoint", tiny_voc), "train")
    files = list(own_cache.glob("presence/*"))
    assert len(files) == 2
    for path in files:
        sound = path.read_bytes()
        for place in range(0, len(sound), 97):
            damaged = bytearray(sound)
            damaged[place] ^= 4
            path.write_bytes(damaged)
            assert ids_of(load_scenario("voc-15-1-disjoint", tiny_voc), "train") == before
            assert path.read_bytes() == sound


def test_the_data_root_is_never_written_to(tiny_voc: Path) -> None:
    before = tree(tiny_voc)
    load_scenario("voc-15-1-disjoint", tiny_voc).imageset.stamp()
    assert tree(tiny_voc) == before


def tree(root: Path) -> list[tuple[Path, int, int]]:
    return sorted((p, p.stat().st_size, p.stat().st_mtime_ns) for p in (root, *root.rglob("*")))


# ----------------------------------------------------------------------------------------- lists and layouts


def test_without_trainaug_txt_the_list_is_every_mask_but_the_validation_ones(tiny_voc: Path) -> None:
    before = ids_of(load_scenario("voc-15-1-overlapped", tiny_voc), "train")
    (devkit(tiny_voc) / "ImageSets" / "Segmentation" / "trainaug.txt").unlink()
    scenario = load_scenario("voc-15-1-overlapped", tiny_voc)
    assert list(scenario.imageset.ids("train")) == listed_in_order(tiny_voc)
    assert ids_of(scenario, "train") == before


def listed_in_order(root: Path) -> list[str]:
    masks = {p.stem for p in (devkit(root) / "SegmentationClassAug").iterdir()}
    return sorted(masks - set(listed(root, "val")))


def test_real_voc_list_is_derived_exactly(voc_data: Path, tmp_path: Path) -> None:
    """The published 10,582 ids follow from the masks and val.txt alone."""
    lists = devkit(tmp_path) / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "val.txt").write_text("\n".join(listed(voc_data, "val")))
    masks = devkit(voc_data) / "SegmentationClassAug"
    (devkit(tmp_path) / "SegmentationClassAug").symlink_to(masks.resolve(), target_is_directory=True)
    derived = open_image_set("voc", tmp_path).ids("train")
    assert len(derived) == 10_582 and set(derived) == set(listed(voc_data, "trainaug"))


SBD_FOLDERS = ["sbd", "SBD", "benchmark_RELEASE/dataset", "."]


def to_sbd_layout(root: Path, folder: str) -> None:
    """Turn SegmentationClassAug into VOC's own masks plus SBD's cls/*.mat, as the two downloads leave them.

    SBD has a .mat for VOC's own images too; here those hold nonsense, so that reading them shows.
    """
    own = set(listed(root, "train")) | set(listed(root, "val"))
    cls, voc = root / folder / "cls", devkit(root) / "SegmentationClass"
    cls.mkdir(parents=True)
    voc.mkdir()
    for path in (devkit(root) / "SegmentationClassAug").iterdir():
        mask = np.asarray(Image.open(path))
        if path.stem in own:
            path.rename(voc / path.name)
            mask = np.full_like(mask, 20)
        save_sbd(cls / f"{path.stem}.mat", mask)
        path.unlink(missing_ok=True)
    (devkit(root) / "SegmentationClassAug").rmdir()


def save_sbd(path: Path, mask: np.ndarray) -> None:
    """Write a mask in SBD's nesting: a struct GTcls with Boundaries, Segmentation and CategoriesPresent."""
    categories = np.setdiff1d(mask, [0, 255]).astype(np.uint8)[:, None]
    boundaries = np.empty((20, 1), dtype=object)
    for i in range(20):
        boundaries[i, 0] = np.zeros(mask.shape, dtype=bool)
    savemat(
        path,
        {"GTcls": {"Boundaries": boundaries, "Segmentation": mask, "CategoriesPresent": categories}},
        do_compression=True,
    )


@pytest.mark.parametrize("folder", usual(SBD_FOLDERS, "sbd"))
@pytest.mark.parametrize("with_list", [True, False])
def test_sbd_layout_gives_the_same_split(tiny_voc: Path, folder: str, with_list: bool) -> None:
    name = "voc-15-1-disjoint"
    aug = load_scenario(name, tiny_voc)
    train, test, maps = ids_of(aug, "train"), ids_of(aug, "test"), [aug.imageset.read("train", i)[1] for i in range(8)]
    to_sbd_layout(tiny_voc, folder)
    if not with_list:
        (devkit(tiny_voc) / "ImageSets" / "Segmentation" / "trainaug.txt").unlink()
    sbd = load_scenario(name, tiny_voc)
    assert ids_of(sbd, "train") == train
    assert ids_of(sbd, "test") == test
    assert [sbd.train_sha256(t) for t in range(6)] == [aug.train_sha256(t) for t in range(6)]
    for i, expected in enumerate(maps):
        read = sbd.imageset.read("train", i)[1]
        assert read.dtype == np.uint8
        assert np.array_equal(read, expected)


def test_sbd_and_png_copies_of_the_same_data_have_one_split_hash(tmp_path: Path) -> None:
    png = load_scenario("voc-15-1-disjoint", make_voc_root(tmp_path / "a"))
    png_hash = png.split_hash
    root = make_voc_root(tmp_path / "b")
    to_sbd_layout(root, "sbd")
    assert load_scenario("voc-15-1-disjoint", root).split_hash == png_hash


def test_shorter_lists_are_valid_and_the_difference_is_said(tiny_voc: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["scenario", "voc-15-1-disjoint", "--data-root", str(tiny_voc)])
    assert exit_.value.code == 0
    assert "published: 8437" in capsys.readouterr().out


def test_photographs_are_not_needed_for_a_scenario(tiny_voc: Path) -> None:
    before = ids_of(load_scenario("voc-15-1-disjoint", tiny_voc), "train")
    photographs = devkit(tiny_voc) / "JPEGImages"
    for path in photographs.iterdir():
        path.unlink()
    photographs.rmdir()
    assert ids_of(load_scenario("voc-15-1-disjoint", tiny_voc), "train") == before
