"""ADE20K: the layout, the class names, three real images, the division over scenes of the embedded set."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from benchmarks import load_scenario
from benchmarks.ade20k import Ade20k
from benchmarks.errors import DataError

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


@pytest.mark.parametrize("split", ["100-50", "100-10", "50-50"])
def test_scenes_give_every_image_with_a_class_to_exactly_one_step(split: str) -> None:
    """The embedded set that stands in for ADE20K; its base step depends on the base classes alone."""
    scenario = load_scenario(f"scenes-{split}-disjoint")
    presence = scenario.imageset.class_presence("train")
    given = np.concatenate([step.train for step in scenario.steps])
    assert sorted(given.tolist()) == np.flatnonzero(presence.any(axis=1)).tolist()
    for step in scenario.steps:
        assert presence[step.train][:, list(step.classes)].any(axis=1).all()


def test_base_step_of_100_10_is_that_of_100_50() -> None:
    first, second = (load_scenario(f"scenes-{split}-disjoint") for split in ("100-50", "100-10"))
    assert first.train_sha256(0) == second.train_sha256(0)
    assert sum(len(step.train) for step in second.steps[1:]) == len(first.steps[1].train)


def test_missing_folder_says_how_to_get_the_data(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="bench data get ade"):
        load_scenario("ade-100-50-disjoint", tmp_path)
