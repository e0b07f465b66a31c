"""ADE20K: the layout, the class names, three real images, the published division."""

import hashlib
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from bench.cli.entry import main
from benchmarks.errors import DataError
from benchmarks.scenarios import load_scenario
from benchmarks.sets.ade20k import Ade20k

SAMPLE = Path(__file__).resolve().parent.parent.parent / "shared" / "data" / "ade-sample"


@pytest.fixture(scope="module")
def ade_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with the three real images: all three for training, all three for validation."""
    if not SAMPLE.is_dir():
        pytest.skip(f"ADE20K's sample images are not at {SAMPLE}")
    root = tmp_path_factory.mktemp("ade")
    for kind in ("images", "annotations"):
        for folder in ("training", "validation"):
            shutil.copytree(SAMPLE / kind, root / "ADEChallengeData2016" / kind / folder)
    return root


def test_names_are_the_first_synonyms_of_the_published_list() -> None:
    if not SAMPLE.is_dir():
        pytest.skip(f"ADE20K's class list is not at {SAMPLE}")
    rows = [line.split("\t") for line in (SAMPLE / "objectInfo150.txt").read_text().splitlines()[1:]]
    assert [int(row[0]) for row in rows] == list(range(1, 151))
    assert Ade20k.fixed_class_names == ("background", *(row[4].split(",")[0].strip() for row in rows))


def test_real_images_show_the_right_classes_by_name(ade_root: Path) -> None:
    ade = Ade20k(ade_root)
    assert ade.ids("test") == ("ADE_val_00000001", "ADE_val_00000002", "ADE_val_00000003")
    shown = [{ade.class_names[c] for c in np.flatnonzero(row)} for row in ade.class_presence("test")]
    assert shown == [
        {"wall", "building", "sky", "tree", "road", "grass", "plant"},
        {"wall", "building", "sky", "tree", "earth", "plant"},
        {"wall", "building", "sky", "tree", "road", "sidewalk", "car", "signboard", "bus", "streetlight", "escalator",
         "van"},
    ]  # fmt: skip
    sizes = [(512, 683), (364, 500), (300, 400)]
    for i, size in enumerate(sizes):
        image, label_map = ade.read("test", i)
        assert image.shape == (*size, 3) and label_map.shape == size
        assert {ade.class_names[c] for c in np.unique(label_map) if c} == shown[i]


# ---------------------------------------------------------------------------------- the published division

CLASS_LIST = SAMPLE.parent / "ade-classes" / "train.txt"
PUBLISHED = {
    "100-10": [
        "37e47b47d04d5214", "eb35528d10195248", "cc6720353b47dcd3", "b993725ac349fb7f", "a20324da833ca9b2",
        "d68db0eb1e544a54",
    ],
    "100-50": ["37e47b47d04d5214", "c56c3f7737074328"],
    "50-50": ["88bc008921d55a57", "d59bf22e57c38228", "e0abd37671e8bb1a"],
}  # fmt: skip
"""Of each step's places in the sorted file list, as MiB's index files have them."""
SIZES = {
    "100-10-disjoint": (13452, 1130, 1200, 1366, 1550, 1498),
    "100-50-disjoint": (13452, 6744),
    "50-50-disjoint": (8219, 6384, 5593),
    "100-10-disjoint:order=mib-b": (10375, 1362, 1346, 2084, 2609, 2420),
    "100-50-disjoint:order=mib-b": (10375, 1362 + 1346 + 2084 + 2609 + 2420),
    "50-50-disjoint:order=mib-b": (6659, 7483, 6054),
}
TESTED = {"100-10": [2000] * 6, "100-50": [2000] * 2, "50-50": [1997, 2000, 2000]}


@pytest.fixture
def class_list() -> Path:
    if not CLASS_LIST.is_file():
        pytest.skip(f"the classes of ADE20K's images are not at {CLASS_LIST}")
    return CLASS_LIST


@pytest.mark.parametrize("setup", ["disjoint", "sequential"])
@pytest.mark.parametrize("split", PUBLISHED)
def test_ade_is_divided_image_for_image_as_published(split: str, setup: str, class_list: Path) -> None:
    steps = load_scenario(f"ade-{split}-{setup}", class_list=class_list).steps
    texts = [",".join(map(str, sorted(step.train.tolist()))) for step in steps]
    assert [hashlib.sha256(text.encode()).hexdigest()[:16] for text in texts] == PUBLISHED[split]
    assert [len(step.test) for step in steps] == TESTED[split]


@pytest.mark.parametrize("rest", SIZES)
def test_bench_scenario_finds_ade_as_published(rest: str, class_list: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["scenario", f"ade-{rest}", "--class-list", str(class_list)])
    assert ended.value.code == 0
    steps = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("step ")]
    assert [int(words[2]) for words in steps] == [*SIZES[rest]]
    assert all(words[-2:] == ["as", "published"] for words in steps)


def test_order_b_of_mib_has_every_class_once_step_by_step() -> None:
    """The first class of each step of 50b and 100-10b, and its last, read off MiB's `tasks.py`."""
    order = Ade20k.class_orders["mib-b"]
    assert sorted(order) == list(range(1, 151))
    ends = [(order[a], order[b - 1]) for a, b in pairwise([0, 50, 100, 110, 120, 130, 140, 150])]
    assert ends == [(1, 144), (3, 150), (11, 146), (30, 138), (2, 141), (4, 139), (17, 137)]


def test_missing_folder_says_how_to_get_the_data(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="bench data get ade"):
        load_scenario("ade-100-50-disjoint", tmp_path)
